"""Values as cold fits give them, around a truth that is known."""

from __future__ import annotations

import torch

TRUE, PATIENTS, FITS = 0.2, 200, 5


def drawn(
    generator: torch.Generator,
    *,
    people: float = 0.3,
    seeds: float = 0.02,
    data: float = 0.0,
    resampled: bool = False,
    networks: int = 1,
) -> torch.Tensor:
    """(fits x networks, patients): patients differ, networks differ, all share what data leave.

    Args:
        generator: Draws them.
        people: Deviation of patients.
        seeds: Of networks.
        data: Of what one cohort says from what another would.
        resampled: Whether fits differ by as much again, each with a bootstrap sample of its own.
        networks: Of a fit.
    """
    shared = data * torch.randn((), generator=generator)
    of_patients = people * torch.randn(1, PATIENTS, generator=generator)
    of_networks = seeds * torch.randn(FITS * networks, 1, generator=generator)
    values = TRUE + shared + of_patients + of_networks
    if resampled:
        of_fits = data * torch.randn(FITS, 1, generator=generator)
        values = values + of_fits.repeat_interleave(networks, 0)
    return values
