"""What each plain policy proposes, and how networks take codes and give levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ogsrl.errors import ModelError
from ogsrl.policies.actors import (
    ConstantActor,
    DenoisedActor,
    LevelsActor,
    MarginalActor,
    NetworkActor,
    ProtocolActor,
    check_fits,
)
from ogsrl.policies.codes import DoseLevels, StateCodes
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.networks import Perceptrons, Shape
from ogsrl.spec import Protocol
from tests.guardian.cohorts import numeric, planted, simulated
from tests.policies.clinicians import PROTOCOL, behaviour
from tests.policies.problems import three_levels

HISTORY = simulated()[0]["train"].history
STATES = simulated()[0]["validation"].states
LEVELS = three_levels()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(inputs: int, outputs: int, networks: int = 1) -> Perceptrons:
    return Perceptrons.drawn(Shape(networks, inputs, 16, outputs), generator())


def test_a_network_proposes_the_tanh_of_its_answer_and_draws_nothing() -> None:
    networks, states = drawn(3, 2), 3 * torch.randn(9_000, 3, generator=generator(1))
    source = generator(2)
    proposed = NetworkActor(networks).propose(states, source)
    assert torch.allclose(proposed, networks.forward(states)[0].tanh(), atol=1e-6)
    assert torch.equal(source.get_state(), generator(2).get_state())
    assert not proposed.requires_grad


def test_proposing_between_a_forward_and_a_backward_pass_leaves_the_gradient_alone() -> None:
    networks, x = drawn(3, 2), torch.randn(20, 3, generator=generator(1))
    slope = torch.ones(1, 20, 2)
    networks.forward(x)
    networks.backward(slope)
    alone = networks.gradient.clone()
    networks.forward(x)
    NetworkActor(networks).propose(-2 * x[:5], generator())
    networks.backward(slope)
    assert torch.equal(networks.gradient, alone)


def test_an_actor_follows_networks_that_go_on_training() -> None:
    networks, x = drawn(3, 2), torch.randn(20, 3, generator=generator(1))
    actor = NetworkActor(networks)
    before = actor.propose(x, generator())
    networks.flat.mul_(2)
    assert not torch.allclose(actor.propose(x, generator()), before, atol=1e-3)


def test_a_state_that_cannot_be_read_is_deferred_by_every_actor() -> None:
    states = STATES[:50].clone()
    states[3, 5] = torch.nan
    states[4, 0] = torch.inf
    network = NetworkActor(drawn(len(HISTORY.names), 2))
    clinicians = behaviour()
    for actor in (
        network,
        ConstantActor.zero(HISTORY),
        MarginalActor(clinicians.marginal),
        DenoisedActor(clinicians),
    ):
        deferred = Deployed.of(actor, None, HISTORY).decide(states, generator()).deferred
        assert deferred[3:5].all()
        assert not deferred.all()


def test_zero_dose_is_nothing_and_maximum_dose_the_upper_bound() -> None:
    for actor, share in ((ConstantActor.zero(HISTORY), 0.0), (ConstantActor.maximum(HISTORY), 1.0)):
        proposed = actor.propose(STATES[:4], generator())
        for j, scale in enumerate(HISTORY.preparation.doses.values()):
            given = torch.from_numpy(scale.inverse(proposed[:, j].numpy()))
            assert given.tolist() == [share * scale.high] * 4


def test_where_the_least_dose_is_not_zero_zero_dose_is_the_least() -> None:
    history = planted({"x0": {"plausible": [0, 1]}}, {"oxygen": {"bounds": [0.21, 1]}})
    assert ConstantActor.zero(history).doses == (-1.0,)
    below = planted({"x0": {"plausible": [0, 1]}}, {"shift": {"bounds": [-1, 3]}})
    assert ConstantActor.zero(below).doses == (-0.5,)


def test_the_marginal_clinician_doses_as_training_clinicians_did_whatever_the_state() -> None:
    train, actor = simulated()[0]["train"], MarginalActor(behaviour().marginal)
    many = STATES[:1].repeat(20_000, 1)
    doses = actor.propose(many, generator())
    logged = train.doses[train.decision]
    for j in range(logged.shape[1]):
        given, meant = doses[:, j], logged[:, j]
        assert float((given <= -1).float().mean()) == pytest.approx(
            float((meant <= -1).float().mean()), abs=0.02
        )
        assert float(given.mean()) == pytest.approx(float(meant.mean()), abs=0.04)
    other = actor.propose(STATES[-1:].repeat(20_000, 1), generator())
    assert torch.equal(doses, other)
    assert not torch.equal(doses, actor.propose(many, generator(1)))


def test_clinicians_without_their_variation_give_the_likeliest_dose_every_time() -> None:
    actor = DenoisedActor(behaviour())
    proposed = actor.propose(STATES, generator())
    assert torch.equal(proposed, actor.propose(STATES, generator(1)))
    likely = behaviour().log_prob(STATES, proposed)
    drawn_doses = behaviour().sample(STATES, generator())
    # dose after dose: a likelier pair may exist, so nearly always
    assert float((likely >= behaviour().log_prob(STATES, drawn_doses)).float().mean()) > 0.9
    assert len(proposed.unique(dim=0)) > 20


def test_a_code_is_a_column_a_level_and_an_unknown_one_is_none() -> None:
    codes = StateCodes.of(LEVELS)
    inputs = codes.inputs(torch.tensor([[0.5, 0.0], [0.5, 1.0], [0.5, 7.0], [0.5, torch.nan]]))
    assert codes.width == inputs.shape[1] == 3
    assert inputs[:, 1:].tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    plain = torch.randn(4, 3)
    assert StateCodes.of(numeric(3)).inputs(plain) is plain


def test_every_combination_of_levels_has_one_code_and_back() -> None:
    levels = DoseLevels.of(LEVELS)
    assert len(levels) == 6
    assert len(levels.levels.unique(dim=0)) == 6
    assert levels.codes(levels.levels).tolist() == list(range(6))
    assert levels.levels[0].tolist() == [-1, -1]
    assert levels.levels[5].tolist() == [1, 1]


def test_a_dose_between_levels_is_no_level() -> None:
    levels = DoseLevels.of(LEVELS)
    with pytest.raises(ModelError, match="fluid: 1 doses are no level"):
        levels.codes(torch.tensor([[0.0, 1.0], [0.5, 1.0]]))
    with pytest.raises(ModelError, match="drug: 1 doses are no level"):
        levels.codes(torch.tensor([[0.0, torch.nan]]))
    with pytest.raises(ModelError, match="a0: a continuous dose"):
        DoseLevels.of(numeric(1))


def test_a_protocol_gives_the_dose_of_the_first_line_that_holds() -> None:
    stays, frame = simulated()[0]["validation"], simulated()[1]["validation"]
    made = HISTORY.preparation
    proposed = ProtocolActor.of(HISTORY, PROTOCOL).propose(STATES, generator())
    given = {n: made.doses[n].inverse(proposed[:, j].numpy()) for j, n in enumerate(made.doses)}
    pressure, lactate = (made.states[n].inverse(frame[n].to_numpy()) for n in ("map", "lactate"))
    fluid = np.select([(pressure < 65) & (lactate > 2), pressure < 65], [1000, 500], 0)
    assert np.allclose(given["iv_fluid"], fluid, atol=0.5)
    assert 0 < (fluid == 500).mean() < 1
    assert (fluid == 1000).any()
    before = made.doses["vasopressor"].inverse(frame["vasopressor"].to_numpy())
    before = np.where(stays.step == 0, 0, np.roll(before, 1))
    change = np.select([pressure < 65, pressure > 75], [0.1, -0.05], 0)
    assert np.allclose(given["vasopressor"], np.clip(before + change, 0, 1.5), atol=1e-3)


def test_a_protocol_that_is_not_there_or_cannot_be_followed_is_an_error() -> None:
    with pytest.raises(ModelError, match="names none"):
        ProtocolActor.of(HISTORY, None)
    keeps = Protocol.model_validate({"doses": {"a0": [{"change": 0}]}})
    with pytest.raises(ModelError, match=r"protocol\.doses\.a0: `change` needs"):
        ProtocolActor.of(numeric(1), keeps)
    unknown = STATES[:2].clone()
    unknown[1, HISTORY.place("current")[0]] = torch.nan
    asked = ProtocolActor.of(HISTORY, PROTOCOL).propose(unknown, generator())
    assert asked[0].isfinite().all()
    assert asked[1].isnan().all()


def answering(*answers: list[float]) -> Perceptrons:
    """Networks that answer this whatever they are asked."""
    shape = Shape(len(answers), 3, 4, 6)
    flat = torch.zeros(shape.parameters)
    flat[-6 * len(answers) :] = torch.tensor(answers).flatten()
    return Perceptrons(shape, flat)


def test_the_best_level_is_proposed_and_under_bcq_the_best_of_the_usual_ones() -> None:
    levels, codes, states = DoseLevels.of(LEVELS), StateCodes.of(LEVELS), torch.zeros(2, 2)
    worth = [1.0, 2.0, 6.0, 5.0, 3.0, 4.0]
    best = LevelsActor(answering(worth), levels, codes)
    assert torch.equal(best.propose(states, generator()), levels.levels[[2, 2]])
    # combination 2 is a quarter as usual as the usualest, 3 a half
    usual = torch.tensor([0.05, 0.05, 0.1, 0.2, 0.4, 0.2]).log().tolist()
    kept = LevelsActor(answering(worth, usual), levels, codes, flexibility=0.3)
    assert torch.equal(kept.propose(states, generator()), levels.levels[[3, 3]])
    free = LevelsActor(answering(worth, usual), levels, codes, flexibility=0.2)
    assert torch.equal(free.propose(states, generator()), levels.levels[[2, 2]])


def test_networks_of_another_layout_are_refused() -> None:
    check_fits(NetworkActor(drawn(3, 1)), numeric(3))
    with pytest.raises(ModelError, match="networks of 3 inputs and 1 outputs"):
        check_fits(NetworkActor(drawn(3, 1)), numeric(4))
    levels = LevelsActor(drawn(3, 6), DoseLevels.of(LEVELS), StateCodes.of(LEVELS), 0.3)
    with pytest.raises(ModelError, match="needs 2 of 3 and 6"):
        check_fits(levels, LEVELS)
