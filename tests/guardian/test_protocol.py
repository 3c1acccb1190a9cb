"""What all guardians share: who they are, what they read, and when they must not answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ogsrl.errors import ModelError, SupportError
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams, Kind
from ogsrl.guardian.members import GUARDIANS
from ogsrl.guardian.protocol import Rows
from ogsrl.preparation.history import History
from tests.guardian.cohorts import planted, simulated
from tests.harness_guardian import calibrated, doctor_history, doctor_rows


def guardian() -> ChristoffelGuardian:
    train, other = (doctor_rows(n, np.random.default_rng(n)) for n in (400, 200))
    layout, generator = Layout.of(doctor_history()), torch.Generator().manual_seed(1)
    return calibrated(  # type: ignore[return-value] # of the kind that it was
        ChristoffelGuardian.fit([train], layout, GuardianParams(degree=1), generator), other
    )


def test_every_kind_that_may_be_asked_for_is_there() -> None:
    assert set(GUARDIANS) == set(get_args(Kind))
    assert GuardianParams().kind in GUARDIANS
    registered = {kind for kind, member in GUARDIANS.items() if not member.holds_rows}
    assert "christoffel" in registered
    assert not registered & {"kde", "neighbours"}  # they hold rows of patients


@pytest.mark.parametrize(
    "wrong", [{"degree": 4}, {"degree": 0}, {"alpha": 0.0}, {"kind": "forest"}, {"level": 0.1}]
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GuardianParams(**wrong)  # type: ignore[arg-type] # which is the point


def test_a_censored_last_row_is_no_decision() -> None:
    tensors = simulated()[0]["train"]
    rows = Rows.of(tensors)
    assert len(rows) == int(tensors.decision.sum()) < len(tensors.states)


def test_the_layout_finds_columns_by_name_wherever_they_lie() -> None:
    one = doctor_history()
    entries = {
        name: {"plausible": [-100, 100]} if name != "v" else {"kind": "binary"}
        for name in ("unread", "x1", "v", "x0", "x3", "x2")
    }
    doses = {name: {"bounds": [-1, 1]} for name in ("fluid", "pressor")}
    two = planted(entries, doses, guardian={"columns": ["x0", "x1", "x2", "x3", "v"]})
    rows = doctor_rows(30, np.random.default_rng(1))
    turned = rows.states[:, [one.names.index(name) for name in two.names]]
    read = [Layout.of(h).read(s, rows.doses) for h, s in ((one, rows.states), (two, turned))]
    assert torch.equal(*read)


def test_a_guardian_read_back_for_another_order_of_columns_answers_the_same(
    tmp_path: Path,
) -> None:
    fitted, rows = guardian(), doctor_rows(50, np.random.default_rng(2))
    fitted.save(tmp_path / "g")
    entries = {
        name: {"plausible": [-100, 100]} if name != "v" else {"kind": "binary"}
        for name in ("unread", "x1", "v", "x0", "x3", "x2")
    }
    doses = {name: {"bounds": [-1, 1]} for name in ("fluid", "pressor")}
    other: History = planted(entries, doses, guardian={"columns": ["x0", "x1", "x2", "x3", "v"]})
    again = ChristoffelGuardian.load(tmp_path / "g", other)
    turned = rows.states[:, [doctor_history().names.index(name) for name in other.names]]
    assert torch.equal(again.score(turned, rows.doses), fitted.score(rows.states, rows.doses))


def test_a_guardian_of_other_columns_says_which(tmp_path: Path) -> None:
    guardian().save(tmp_path / "g")
    columns = {f"x{i}": {"plausible": [-100, 100]} for i in range(4)}
    doses = {name: {"bounds": [-1, 1]} for name in ("fluid", "pressor")}
    with pytest.raises(SupportError, match="x0, x1, x2, x3, v"):
        ChristoffelGuardian.load(tmp_path / "g", planted(columns, doses))


def test_a_directory_of_another_kind_is_not_read(tmp_path: Path) -> None:
    guardian().save(tmp_path / "g")
    with pytest.raises(ModelError, match="christoffel"):
        GUARDIANS["kde"].load(tmp_path / "g", doctor_history())


def test_a_promise_that_no_threshold_keeps_refuses_everything() -> None:
    fitted, other = guardian(), doctor_rows(200, np.random.default_rng(3))
    other.states[other.patient < 100, 4] = 0.0  # half of them of a level never seen
    refusing = calibrated(replace(fitted, threshold=None), other)
    assert refusing.status == "too_many_refused"
    fresh = doctor_rows(50, np.random.default_rng(4))
    assert not refusing.supported(fresh.states, fresh.doses).any()
    assert set(refusing.rules(fresh.states, fresh.doses)) == {"too_many_refused"}


def test_no_message_shows_a_value_of_a_patient() -> None:
    fitted, rows = guardian(), doctor_rows(200, np.random.default_rng(3))
    rows.states[7, 1] = 77.125
    rows.states[8, 2] = torch.nan
    layout, generator = Layout.of(doctor_history()), torch.Generator().manual_seed(1)
    messages = []
    for call in (
        lambda: ChristoffelGuardian.fit([rows], layout, GuardianParams(), generator),
        lambda: fitted.score(rows.states[:, :3], rows.doses),
        lambda: fitted.score(rows.states, rows.doses[:5]),
    ):
        with pytest.raises(SupportError) as caught:
            call()
        messages.append(str(caught.value))
    assert not any("77" in message or "125" in message for message in messages)
