"""Of fewer than ten patients nothing is told, not even by what two numbers come to together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from ogsrl.audit.rows import with_rows
from ogsrl.guardian.cells import distinct_patients
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.query.answer import ask
from ogsrl.query.evidence import Evidence
from ogsrl.query.model import Model
from ogsrl.sources.simulator import simulate

#: A dose that one patient alone was given: an amount, or the code of a level.
PLANTED = (0.07313, 3.0)


@pytest.fixture(scope="module")
def stays(model: Model) -> StayTensors:
    """Of 600 patients."""
    preparation = model.history.preparation
    known = simulate(600, 1)
    return stay_tensors(preparation.apply(known), preparation)


def fitted(stays: StayTensors, given: torch.Tensor) -> Evidence:
    """Evidence of these doses, in the same cells every time."""
    made = Evidence.fit(replace(stays, given=given), torch.Generator().manual_seed(0))
    assert made is not None
    return made


def of_one(stays: StayTensors) -> torch.Tensor:
    """A decision of one patient."""
    rows = torch.zeros(len(stays.given), dtype=torch.bool)
    rows[int(stays.decision.nonzero()[40])] = True
    return rows


@pytest.mark.parametrize("dose", PLANTED)
def test_the_dose_of_one_patient_is_neither_saved_nor_answered(
    model: Model, rows: pd.DataFrame, stays: StayTensors, tmp_path: Path, dose: float
) -> None:
    given = torch.full_like(stays.given, 2.0)
    given[:, 1] = 0
    given[of_one(stays), 1] = dose
    made = fitted(stays, given)
    made.save(tmp_path)
    saved = load_file(tmp_path / "weights.safetensors")
    for name in ("given", "mean"):
        told = torch.from_numpy(saved[name])[:, 1]
        assert int(told.isnan().sum()) == 1, name
        assert bool((told[~told.isnan()] == 0).all())  # nobody is nobody's secret
        assert saved[name][:, 0].tolist() == [1.0 if name == "given" else 2.0] * len(told)
    # every patient asked about is in the planted cell
    one = int(torch.from_numpy(saved["given"])[:, 1].isnan().nonzero())
    alone = {name: getattr(made, name)[[one]] for name in ("centers", "patients", "given", "mean")}
    asked = replace(model, evidence=replace(made, **alone, died=made.died[[one]]))
    answers = ask(asked, rows.head(20), similar=True)
    assert answers[["similar_given_vasopressor", "similar_mean_vasopressor"]].isna().all().all()
    assert set(answers["similar_mean_iv_fluid"]) == {2.0}


def test_one_step_without_a_dose_that_all_others_got_is_not_told(stays: StayTensors) -> None:
    given = torch.full_like(stays.given, 2.0)
    given[of_one(stays), 0] = 0
    made = fitted(stays, given)
    for told in (made.given, made.mean):
        assert told.isnan().sum(0).tolist() == [1, 0]


def test_of_ten_patients_it_is_told_and_of_nine_it_is_not(stays: StayTensors) -> None:
    nothing = torch.zeros_like(stays.given)
    cells = fitted(stays, nothing)
    near = cells.of(stays.states)
    x = (stays.states[:, cells.layout.places] - cells.center) / cells.width
    here = (torch.cdist(x, cells.centers).argmin(1) == 0) & stays.decision
    people = torch.unique(stays.patient[here])
    assert len(people) >= 20  # else too few had a step without it
    assert not bool(near.given.isnan().any())
    for count in (9, 10):
        some = here & torch.isin(stays.patient, people[:count])
        made = fitted(stays, torch.where(some[:, None], 0.5, nothing))
        told = made.given[0, 1]
        assert bool(told.isnan()) == (count < 10)
        assert bool(made.mean[0, 1].isnan()) == (count < 10)
    assert float(made.mean[0, 1] / told) == pytest.approx(0.5)


def test_every_dose_that_is_told_was_given_to_nobody_or_to_ten(stays: StayTensors) -> None:
    made = fitted(stays, stays.given)
    decided = stays.decision
    x = (stays.states[decided][:, made.layout.places] - made.center) / made.width
    cell = torch.cdist(x, made.centers).argmin(1)
    given, patient = stays.given[decided] > 0, stays.patient[decided]
    for j in range(given.shape[1]):
        told = ~made.given[:, j].isnan()
        assert bool(told.any())
        assert made.mean[:, j].isnan().tolist() == (~told).tolist()
        for which in (given[:, j], ~given[:, j]):
            count = distinct_patients(cell[which], patient[which], len(told))[told]
            assert bool(((count == 0) | (count >= 10)).all())


def test_shares_of_deaths_are_not_taken_for_charted_hundredths(
    model: Model, stays: StayTensors, tmp_path: Path
) -> None:
    made = fitted(stays, stays.given)
    cells = torch.arange(60) % len(made.centers)
    alike = {name: getattr(made, name)[cells] for name in ("centers", "patients", "given", "mean")}
    died = ((torch.arange(60) + 10).double() / 100).round(decimals=2)
    replace(made, **alike, died=died).save(tmp_path)
    charted = pd.DataFrame({"stay_id": [str(k) for k in range(80)]})
    charted["given_oxygen"] = [(k + 5) / 100 for k in range(80)]
    assert with_rows({"evidence": tmp_path}, [charted]) == []
    back = Evidence.load(tmp_path, model.history)
    assert back.died.tolist() == died.tolist()
