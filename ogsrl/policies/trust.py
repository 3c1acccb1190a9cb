"""The largest gain within a trust region under linear constraints: one step of CPO.

Called by the guarded CPO. Vectors and a curvature in, a direction out; it knows no policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, combinations

import torch

from ogsrl.errors import ModelError

Product = Callable[[torch.Tensor], torch.Tensor]
#: More constraints than this have too many sets of binding ones to be tried in turn.
MOST = 12
#: How far, in units of the trust region, a constraint may be missed by rounding.
SLACK = 1e-6


@dataclass(frozen=True)
class TrustStep:
    """A step.

    Attributes:
        direction: d.
        multipliers: nu_j, above 0 where a constraint binds; 0 where there is no feasible step.
        feasible: Whether a step within the region meets all constraints; if not, d is the one that
            lowers what is broken fastest.
    """

    direction: torch.Tensor
    multipliers: torch.Tensor
    feasible: bool


def trust_step(
    gain: torch.Tensor, slopes: torch.Tensor, excess: torch.Tensor, solve: Product, radius: float
) -> TrustStep:
    r"""The greatest gain for which all constraints are met.

        max_d g d   subject to   b_j d + c_j <= 0,   d H d / 2 <= radius

    Its conditions are d = H^-1 (g - B nu) / l, nu >= 0, b_j d + c_j = 0 wherever nu_j > 0; each
    set of binding constraints is tried (Achiam et al. 2017, arXiv 1705.10528, for one of them).

    Args:
        gain: g.
        slopes: (constraints, parameters) b_j.
        excess: (constraints,) c_j, how far each is broken now; below 0 where it is met.
        solve: v -> H^-1 v.
        radius: Of the region.
    """
    if len(slopes) > MOST:
        raise ModelError(f"cpo: {len(slopes)} constraints, at most {MOST} can be held at once")
    own = solve(gain)
    turned = torch.stack([solve(b) for b in slopes]) if len(slopes) else slopes
    q = float(gain.double() @ own.double())
    r = slopes.double() @ own.double()
    s = slopes.double() @ turned.double().T
    s = (s + s.T) / 2
    c = excess.double()
    found = _binding(q, r, s, c, radius)
    if found is None:
        return TrustStep(_recovery(turned, s, c, radius), torch.zeros_like(excess), False)
    length, across = found.length, (found.length * found.steep + found.back).to(own.dtype)
    return TrustStep(length * own - across @ turned, found.multipliers.to(excess.dtype), True)


@dataclass(frozen=True)
class _Binding:
    """d = length H^-1 (g - B steep) - H^-1 B back, and nu."""

    length: float
    steep: torch.Tensor
    back: torch.Tensor
    multipliers: torch.Tensor


def _binding(
    q: float, r: torch.Tensor, s: torch.Tensor, c: torch.Tensor, radius: float
) -> _Binding | None:
    m = len(c)
    for chosen in chain.from_iterable(combinations(range(m), k) for k in range(m + 1)):
        on = list(chosen)
        back, steep = torch.zeros(m).double(), torch.zeros(m).double()
        if on:
            part = s[on][:, on]
            if float(torch.linalg.cond(part)) > 1 / SLACK:
                continue
            back[on] = torch.linalg.solve(part, c[on])
            steep[on] = torch.linalg.solve(part, r[on])
        left = 2 * radius - float(back @ s @ back)
        if left < 0:
            continue
        across = max(q - float(steep @ r), 0.0)
        length = (left / across) ** 0.5 if across > 0 else 0.0
        moved = length * (r - s @ steep) - s @ back
        nu = steep + back / length if length > 0 else back
        if bool((moved + c <= SLACK).all()) and bool((nu >= -SLACK).all()):
            return _Binding(length, steep, back, nu.clip(min=0))
    return None


def _recovery(
    turned: torch.Tensor, s: torch.Tensor, c: torch.Tensor, radius: float
) -> torch.Tensor:
    """Down the constraints that are broken, each as much as it is."""
    broken = c.clip(min=0)
    steep = float(broken @ s @ broken)
    length = (2 * radius / steep) ** 0.5 if steep > 0 else 0.0
    return -length * (broken.to(turned.dtype) @ turned)


def conjugate_gradient(product: Product, wanted: torch.Tensor, steps: int) -> torch.Tensor:
    """The x with H x = wanted, H told by products; exact after as many steps as H has values."""
    found, left = torch.zeros_like(wanted), wanted.clone()
    along = left.clone()
    size = left @ left
    for _ in range(steps):
        if not float(size) > 0:
            break
        turned = product(along)
        length = size / (along @ turned)
        found += length * along
        left -= length * turned
        size, before = left @ left, size
        along = left + size / before * along
    return found
