"""Written-out gradients are those of automatic differentiation, and Adam is torch's."""

from __future__ import annotations

import torch

from ogsrl.policies.networks import Adam, Perceptrons, Shape

SHAPE = Shape(networks=3, inputs=7, hidden=16, outputs=2)


def drawn() -> tuple[Perceptrons, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    networks = Perceptrons.drawn(SHAPE, generator)
    x = torch.randn(11, 7, generator=generator)
    return networks, x, torch.randn(3, 11, 2, generator=generator)


def plain(flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The same networks one after the other."""
    answers = []
    pieces = flat.split([3 * 7 * 16, 3 * 16, 3 * 16 * 16, 3 * 16, 3 * 16 * 2, 3 * 2])
    w1, b1, w2, b2, w3, b3 = (
        piece.reshape(3, -1, width)
        for piece, width in zip(pieces, (16, 16, 16, 16, 2, 2), strict=True)
    )
    for n in range(3):
        h = torch.relu(x @ w1[n] + b1[n])
        h = torch.relu(h @ w2[n] + b2[n])
        answers.append(h @ w3[n] + b3[n])
    return torch.stack(answers)


def test_networks_side_by_side_answer_as_each_alone() -> None:
    networks, x, _ = drawn()
    assert torch.allclose(networks.forward(x), plain(networks.flat, x), atol=1e-6)


def test_networks_with_rows_of_their_own_answer_and_learn_as_each_alone() -> None:
    networks, _, slope = drawn()
    x = torch.randn(3, 11, 7, generator=torch.Generator().manual_seed(4))
    answers = networks.forward(x)
    networks.backward(slope)
    mine = networks.gradient.clone()
    one_by_one = torch.zeros_like(mine)
    for n in range(3):
        assert torch.allclose(answers[n], networks.forward(x[n])[n], atol=1e-6)
        networks.backward(torch.where(torch.arange(3)[:, None, None] == n, slope, 0.0))
        one_by_one += networks.gradient
    assert torch.allclose(mine, one_by_one, atol=1e-4)


def test_gradients_are_those_of_automatic_differentiation() -> None:
    networks, x, slope = drawn()
    networks.forward(x)
    networks.backward(slope)
    last = networks.backward_to_last(slope, 2)
    flat, inputs = networks.flat.clone().requires_grad_(), x.clone().requires_grad_()
    (plain(flat, inputs) * slope).sum().backward()
    assert flat.grad is not None
    assert inputs.grad is not None
    assert torch.allclose(networks.gradient, flat.grad, atol=1e-5)
    assert torch.allclose(last, inputs.grad[:, -2:], atol=1e-5)


def test_codes_are_columns_never_written_out() -> None:
    networks, _, slope = drawn()
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 11, 2, generator=generator)
    # of the five other inputs two are levels of one code, three of another; -1 is neither
    codes = torch.stack(
        [
            torch.randint(-1, 2, (3, 11), generator=generator),
            torch.randint(1, 5, (3, 11), generator=generator).where(
                torch.rand(3, 11, generator=generator) < 0.8, torch.tensor(-1)
            ),
        ],
        -1,
    )
    codes[..., 1][codes[..., 1] == 1] = 2
    assert (codes == -1).any((0, 1)).all()
    written = torch.cat([x, torch.nn.functional.one_hot(codes + 1, 6)[..., 1:].sum(2).float()], -1)
    asked = networks.answer(written)
    networks.forward(written)
    networks.backward(slope)
    wanted = networks.gradient.clone()
    assert torch.allclose(networks.answer(x, codes), asked, atol=1e-6)
    assert torch.equal(networks.forward(x, codes), networks.answer(x, codes))
    networks.backward(slope)
    assert torch.allclose(networks.gradient, wanted, atol=1e-5)
    last = networks.some(slice(2, 3))
    assert torch.allclose(last.answer(x[2], codes[2])[0], asked[2], atol=1e-6)


def test_the_change_along_a_direction_is_the_derivative() -> None:
    networks, x, _ = drawn()
    networks.forward(x)
    direction = torch.randn(len(networks.flat), generator=torch.Generator().manual_seed(5))
    _, known = torch.func.jvp(lambda flat: plain(flat, x), (networks.flat,), (direction,))
    assert torch.allclose(networks.along(direction), known, atol=1e-4)


def test_a_twin_is_equal_and_apart() -> None:
    networks, x, slope = drawn()
    twin = networks.twin()
    before = networks.forward(x)
    assert torch.equal(twin.forward(x), before)
    twin.backward(slope)
    Adam(twin, 0.1).step()
    assert torch.equal(networks.forward(x), before)
    assert not torch.equal(twin.forward(x), before)


def test_adam_is_torchs() -> None:
    networks, x, slope = drawn()
    flat = networks.flat.clone().requires_grad_()
    theirs, ours = torch.optim.Adam([flat], lr=0.01), Adam(networks, 0.01)
    for _ in range(5):
        theirs.zero_grad()
        (plain(flat, x) * slope).sum().backward()
        theirs.step()
        networks.forward(x)
        networks.backward(slope)
        ours.step()
    assert torch.allclose(networks.flat, flat, atol=1e-5)


def test_shorter_factors_change_answers_a_little_and_only_while_learning() -> None:
    generator = torch.Generator().manual_seed(5)
    networks = Perceptrons.drawn(Shape(2, 80, 96, 1), generator)
    x, slope = torch.randn(50, 80, generator=generator), torch.randn(2, 50, 1, generator=generator)
    exact = networks.forward(x)
    networks.backward(slope)
    gradient = networks.gradient.clone()
    networks.half = True
    assert torch.equal(networks.answer(x), exact), "who acts is never answered with them"
    assert torch.allclose(networks.forward(x), exact, atol=0.02)
    networks.backward(slope)
    apart = (networks.gradient - gradient).norm() / gradient.norm()
    assert float(apart) < 0.05
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"  # type: ignore[attr-defined]
    twin = networks.twin()
    assert twin.half
    assert twin.some(slice(0, 1)).half
