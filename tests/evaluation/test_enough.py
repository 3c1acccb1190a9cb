"""Nothing is said of few patients, nor where few of them died or lived."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ogsrl.evaluation.enough import lacking
from ogsrl.preparation.tensors import StayTensors
from tests.evaluation.ward import Ward


def ended(patients: int, died: int) -> StayTensors:
    """Stays of the ward of which so many end with death."""
    stays = Ward.draw(patients, 0).stays
    dies = stays.terminal & (stays.stay < died)
    paid = torch.where(stays.terminal, torch.where(dies, -1.0, 1.0), stays.rewards)
    return replace(stays, death=dies, rewards=paid)


@pytest.mark.parametrize(
    ("patients", "died", "said"),
    [
        (19, 10, "fewer than 20 patients with a decision and a known end"),
        (20, 10, None),
        (200, 9, "fewer than 10 patients who died"),
        (200, 10, None),
        (200, 0, None),
        (200, 191, "fewer than 10 patients who lived"),
        (200, 200, None),
    ],
)
def test_who_is_too_few(patients: int, died: int, said: str | None) -> None:
    found = lacking(ended(patients, died))
    assert (None if found is None else str(found)) == said


def test_patients_lost_from_sight_do_not_count() -> None:
    lost = Ward.draw(40, 0).censored(0, 0.9)
    assert len(torch.unique(lost.patient[lost.decision])) >= 20
    assert str(lacking(lost)).startswith("fewer than 20 patients")
