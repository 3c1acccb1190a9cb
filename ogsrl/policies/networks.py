"""Batched perceptrons in one flat vector of parameters, with their gradients written out.

Called by the training loop. Written out because a step of a few matrix products is mostly overhead
otherwise: one vector means one call for the optimiser and one for the targets. While they learn,
large products may take their factors in bfloat16 (sums stay in single precision); who acts never.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

#: Names of the layers' weights and biases, in the order in which they lie.
LAYERS = ("w1", "b1", "w2", "b2", "w3", "b3")
#: A product with fewer columns than this gains nothing by shorter factors.
LARGE = 64


@dataclass(frozen=True)
class Shape:
    """So many networks side by side: inputs, two hidden layers, outputs."""

    networks: int
    inputs: int
    hidden: int
    outputs: int

    @property
    def sizes(self) -> Mapping[str, tuple[int, int, int]]:
        """Shape of each layer's tensors."""
        n, i, h, o = self.networks, self.inputs, self.hidden, self.outputs
        shapes = ((n, i, h), (n, 1, h), (n, h, h), (n, 1, h), (n, h, o), (n, 1, o))
        return dict(zip(LAYERS, shapes, strict=True))

    @property
    def parameters(self) -> int:
        """Numbers in all."""
        return sum(math.prod(size) for size in self.sizes.values())


@dataclass
class _Kept:
    """What a forward pass leaves for the backward one."""

    x: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    codes: torch.Tensor | None = None
    h1: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))
    h2: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))


@contextmanager
def shorter(on: bool) -> Iterator[None]:
    """Factors of products in bfloat16 where the processor has instructions for it."""
    if not on:
        yield
        return
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


class Stack:
    r"""Networks side by side on the same rows, to be asked.

        h1 = relu(x W1 + b1), h2 = relu(h1 W2 + b2), y = h2 W3 + b3

    `forward` keeps what the gradients need; both work on (networks, rows, columns). Codes,
    (networks, rows, codes), say which input after those of x is 1, all others being 0 and never
    written out; below 0: none. Only the parameters' gradients know of them.

    Attributes:
        half: Whether large products of `forward` and the gradients take factors in bfloat16.
    """

    def __init__(self, shape: Shape, at: Mapping[str, torch.Tensor]) -> None:
        """Networks whose parameters these are; they are used, not copied."""
        self.shape = shape
        self.half = False
        self._at = at
        self._kept = _Kept()

    def some(self, which: slice) -> Stack:
        """Some of these networks, which go on following them."""
        at = {name: view[which] for name, view in self._at.items()}
        made = Stack(replace(self.shape, networks=len(at["w1"])), at)
        made.half = self.half
        return made

    def forward(self, x: torch.Tensor, codes: torch.Tensor | None = None) -> torch.Tensor:
        """Answers (networks, rows, outputs) to (rows, inputs), or to rows of each network's own."""
        kept = self._kept
        kept.x = self._of_each(x)
        kept.codes = None if codes is None else self._of_each(codes)
        kept.h1, kept.h2, answers = self._through(kept.x, kept.codes, self.half)
        return answers

    def answer(
        self, x: torch.Tensor, codes: torch.Tensor | None = None, *, half: bool = False
    ) -> torch.Tensor:
        """The same answers, bit for bit, leaving alone what the gradients need."""
        codes = None if codes is None else self._of_each(codes)
        return self._through(self._of_each(x), codes, half)[2]

    def _through(
        self, x: torch.Tensor, codes: torch.Tensor | None, half: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Both hidden layers, and the answers."""
        p = self._at
        with shorter(half and self.shape.inputs >= LARGE):
            h1 = torch.baddbmm(p["b1"], x, p["w1"][:, : x.shape[-1]])
        if codes is not None:
            for place, known in self._places(codes, x.shape[-1]):
                rows = torch.nn.functional.embedding(place, p["w1"].flatten(0, 1))
                h1 += (rows if known is None else rows * known).view_as(h1)
        h1 = h1.relu_()
        with shorter(half):
            h2 = torch.baddbmm(p["b2"], h1, p["w2"]).relu_()
        if self.shape.outputs == 1:  # cheaper than a product with one column
            return h1, h2, (h2 * p["w3"].transpose(1, 2)).sum(2, keepdim=True).add_(p["b3"])
        return h1, h2, torch.baddbmm(p["b3"], h2, p["w3"])

    def backward_to_last(self, slope: torch.Tensor, columns: int) -> torch.Tensor:
        """Gradient of sum(slope * answers) in the last so many inputs, (rows, columns)."""
        _, d1 = self._deltas(slope)
        w1 = self._at["w1"][:, -columns:]
        with shorter(self.half and columns >= LARGE):
            return torch.bmm(d1, w1.transpose(1, 2)).sum(0)

    def _of_each(self, x: torch.Tensor) -> torch.Tensor:
        """(networks, rows, inputs), not copied."""
        return x.expand(self.shape.networks, *x.shape[-2:])

    def _places(
        self, codes: torch.Tensor, after: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Of each code: its row among all networks' first weights; where some are none, which."""
        first = torch.arange(self.shape.networks, device=codes.device)[:, None] * self.shape.inputs
        for code in codes.unbind(-1):
            known = code >= 0
            all_known = bool(known.all())
            place = first + after + (code if all_known else code * known)
            yield place.flatten(), None if all_known else known.flatten()[:, None]

    def _deltas(self, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p, kept, back = self._at, self._kept, self._at["w3"].transpose(1, 2)
        out = slope * back if self.shape.outputs == 1 else torch.bmm(slope, back)
        d2 = _where_on(out, kept.h2)
        with shorter(self.half):
            d1 = _where_on(torch.bmm(d2, p["w2"].transpose(1, 2)), kept.h1)
        return d2, d1


class Perceptrons(Stack):
    """A stack that learns: its parameters are one vector, and so is their gradient."""

    def __init__(self, shape: Shape, flat: torch.Tensor) -> None:
        """Networks whose parameters are this vector; it is used, not copied."""
        super().__init__(shape, _views(flat, shape))
        self.flat = flat
        self.gradient = torch.zeros_like(flat)
        self._grad = _views(self.gradient, shape)

    @classmethod
    def drawn(cls, shape: Shape, generator: torch.Generator) -> Perceptrons:
        """Uniform within one over the root of the inputs of each layer."""
        made = cls(shape, torch.empty(shape.parameters))
        for name, view in made._at.items():
            inputs = shape.inputs if name[1] == "1" else shape.hidden
            bound = 1 / math.sqrt(inputs)
            view.copy_((2 * torch.rand(view.shape, generator=generator) - 1) * bound)
        return made

    def repeated(self, times: int) -> Perceptrons:
        """All of these networks so many times over, each time after the one before."""
        shape = replace(self.shape, networks=times * self.shape.networks)
        made = Perceptrons(shape, self.flat.new_empty(shape.parameters))
        for name, view in made._at.items():
            view.copy_(self._at[name].repeat(times, 1, 1))
        return made

    def twin(self) -> Perceptrons:
        """Networks of the same numbers, on their own."""
        made = Perceptrons(self.shape, self.flat.clone())
        made.half = self.half
        return made

    def backward(self, slope: torch.Tensor) -> None:
        """Gradient of sum(slope * answers) in the parameters, into `gradient`."""
        g, kept = self._grad, self._kept
        d2, d1 = self._deltas(slope)
        torch.sum(slope, 1, keepdim=True, out=g["b3"])
        torch.bmm(kept.h2.transpose(1, 2), slope, out=g["w3"])
        torch.sum(d2, 1, keepdim=True, out=g["b2"])
        torch.sum(d1, 1, keepdim=True, out=g["b1"])
        with shorter(self.half):
            torch.bmm(kept.h1.transpose(1, 2), d2, out=g["w2"])
        with shorter(self.half and self.shape.inputs >= LARGE):
            torch.bmm(kept.x.transpose(1, 2), d1, out=g["w1"][:, : kept.x.shape[-1]])
        if kept.codes is not None:
            width, d1 = kept.x.shape[-1], d1.flatten(0, 1)
            g["w1"][:, width:].zero_()
            for place, known in self._places(kept.codes, width):
                slopes = d1 if known is None else d1 * known
                g["w1"].flatten(0, 1).index_add_(0, place, slopes)

    def along(self, direction: torch.Tensor) -> torch.Tensor:
        """How the last answers of `forward` change along a direction of the parameters."""
        p, d, kept = self._at, _views(direction, self.shape), self._kept
        d1 = torch.baddbmm(d["b1"], kept.x, d["w1"]).mul_(kept.h1 > 0)
        d2 = torch.baddbmm(d["b2"], d1, p["w2"]).baddbmm_(kept.h1, d["w2"]).mul_(kept.h2 > 0)
        return torch.baddbmm(d["b3"], d2, p["w3"]).baddbmm_(kept.h2, d["w3"])


def _where_on(slope: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """What passes back through a relu, in place: one pass, where a mask would be three."""
    torch.ops.aten.threshold_backward.grad_input(slope, hidden, 0, grad_input=slope)
    return slope


def _views(flat: torch.Tensor, shape: Shape) -> dict[str, torch.Tensor]:
    pieces = torch.split(flat, [math.prod(size) for size in shape.sizes.values()])
    return {
        name: piece.view(size)
        for piece, (name, size) in zip(pieces, shape.sizes.items(), strict=True)
    }


class Adam:
    """Adam on one flat vector, fused; its state is plain tensors for a checkpoint."""

    def __init__(self, networks: Perceptrons, learning_rate: float) -> None:
        """For these networks; `learning_rate` may be changed between steps."""
        self.networks = networks
        self.learning_rate = learning_rate
        self.first = torch.zeros_like(networks.flat)
        self.second = torch.zeros_like(networks.flat)
        self.steps = torch.zeros(())

    def step(self) -> None:
        """One step down the gradient that lies in the networks."""
        self.steps += 1
        torch._fused_adam_(
            [self.networks.flat],
            [self.networks.gradient],
            [self.first],
            [self.second],
            [],
            [self.steps],
            lr=self.learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What a checkpoint must hold."""
        yield from (("first", self.first), ("second", self.second), ("steps", self.steps))
