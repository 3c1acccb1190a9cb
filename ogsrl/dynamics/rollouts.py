"""What the ensemble expects several steps ahead under doses that are given.

Called by the report and the benchmark. It draws rows, but lets nobody's stay end: a row k steps
on exists only for those who stayed, so each draw weighs as much as it is likely to have stayed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ogsrl.dynamics.ensemble import Dynamics

_ROWS = 40_000  # rolled out at once


@torch.no_grad()
def expected_ahead(
    dynamics: Dynamics,
    states: torch.Tensor,
    doses: torch.Tensor,
    horizons: Sequence[int],
    generator: torch.Generator,
    particles: int,
) -> dict[int, torch.Tensor]:
    """Mean scaled numeric values after each number of steps, given that the stay goes on.

    Particles come in pairs of opposite noise, whose mean errs far less than two draws (antithetic).

    Args:
        dynamics: The ensemble; each particle belongs to one member.
        states: Where each row starts.
        doses: (rows, steps, doses) scaled doses of each step.
        horizons: After how many steps.
        generator: Everything is drawn with it.
        particles: Draws a row; taken as a multiple of twice the members.
    """
    share = max(1, particles // (2 * dynamics.members)) * 2 * dynamics.members
    size = max(1, _ROWS // share)
    parts = [
        _ahead(dynamics, s, d, horizons, generator, share)
        for s, d in zip(torch.split(states, size), torch.split(doses, size), strict=True)
    ]
    return {steps: torch.cat([part[steps] for part in parts]) for steps in horizons}


def _ahead(
    dynamics: Dynamics,
    states: torch.Tensor,
    doses: torch.Tensor,
    horizons: Sequence[int],
    generator: torch.Generator,
    particles: int,
) -> dict[int, torch.Tensor]:
    rows = len(states)
    numeric = [dynamics.layout.current[name] for name in dynamics.layout.numeric]
    member = (torch.arange(particles // 2) % dynamics.members).repeat(2).repeat(rows)
    now = states.repeat_interleave(particles, dim=0)
    weight = torch.ones(rows * particles)
    found = {}
    for step in range(max(horizons)):
        dose = doses[:, step].repeat_interleave(particles, dim=0)
        half = torch.randn((rows, particles // 2, len(numeric)), generator=generator)
        noise = torch.cat([half, -half], dim=1).reshape(rows * particles, len(numeric))
        drawn = dynamics.step(now, dose, generator, member, ensemble=False, noise=noise)
        weight = weight * (1 - drawn.p_death - drawn.p_discharge).clip(min=0)
        if step + 1 in horizons:
            expected = drawn.expected[:, numeric].reshape(rows, particles, -1)
            share = weight.reshape(rows, particles, 1) + 1e-12
            found[step + 1] = (expected * share).sum(1) / share.sum(1)
        now = drawn.states
    return found
