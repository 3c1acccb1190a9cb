"""Limits are what the cohort file says, from all that training patients' stays tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ogsrl.policies.limits import limits, logged_shares
from tests.evaluation.ward import Ward, clinicians


def test_without_censoring_the_logged_share_is_the_mean_over_stays() -> None:
    stays = Ward.draw(800, 5).stays
    each = stays.costs.sum(0) / (float(stays.stay.max()) + 1)
    assert list(logged_shares(stays).values()) == pytest.approx(each.tolist(), rel=1e-5)


def test_whose_the_stays_are_changes_nothing() -> None:
    stays = Ward.draw(800, 5).stays
    again = replace(stays, patient=torch.where(stays.patient < 200, 0, stays.patient))
    assert logged_shares(again) == pytest.approx(logged_shares(stays), rel=1e-12)


def test_stays_lost_from_sight_count_for_as_long_as_they_are_seen() -> None:
    ward = Ward.draw(20_000, 6)
    seen = ward.censored(7)
    share, true = logged_shares(seen)["ill"], ward.value(clinicians, "cost:ill")
    plain = float(seen.costs[:, 0].sum()) / (float(seen.stay.max()) + 1)
    assert plain < true - 0.05
    assert share == pytest.approx(true, abs=0.01)


def test_a_relative_limit_is_that_multiple_of_the_share() -> None:
    stays = Ward.draw(300, 8).stays
    shares = logged_shares(stays)
    assert limits(stays) == pytest.approx({name: 0.9 * share for name, share in shares.items()})
