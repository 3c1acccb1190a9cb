"""What every guardian must pass; a member's tests inherit `GuardianHarness` and say who it is.

Planted patients: four correlated columns, a binary one, and two doses that follow the state and
are often none. A member of other needs replaces `history` and `draw`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

from ogsrl.errors import ModelError, SupportError
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.conformal import shares_above
from ogsrl.guardian.members import GUARDIANS
from ogsrl.guardian.protocol import Guardian, Rows
from ogsrl.guardian.shortage import Shortage
from ogsrl.modeldir import load_model, save_model
from ogsrl.preparation import ColumnTransform
from ogsrl.preparation.history import History
from tests.guardian.cohorts import planted, rows

ALPHA = 0.1
STEPS = 6


def doctor_history() -> History:
    """Four numeric columns, one binary, one that no guardian reads, and two doses."""
    columns = {f"x{i}": {"plausible": [-100, 100]} for i in range(4)}
    return planted(
        {**columns, "v": {"kind": "binary"}, "unread": {"plausible": [-100, 100]}},
        {"fluid": {"bounds": [-1, 1]}, "pressor": {"bounds": [-1, 1]}},
        guardian={"columns": [*columns, "v"]},
    )


def doctor_rows(patients: int, rng: np.random.Generator) -> Rows:
    """Patients of `STEPS` decisions; sicker patients get more of both doses."""
    self = np.repeat(rng.normal(size=(patients, 4)), STEPS, axis=0)
    x = 0.7 * self + 0.7 * rng.normal(size=(patients * STEPS, 4))
    x[:, 1] += 0.6 * x[:, 0]
    v = np.where(x[:, 2] + rng.normal(size=len(x)) > 0.5, 1.0, -1.0)
    fluid = np.tanh(0.8 * x[:, 0] + 0.3 * rng.normal(size=len(x)) - 0.2)
    pressor = np.tanh(0.7 * x[:, 1] + 0.3 * rng.normal(size=len(x)) - 0.5)
    doses = np.stack([np.where(fluid < -0.6, -1, fluid), np.where(pressor < -0.6, -1, pressor)], 1)
    states = np.column_stack([x, v, rng.normal(size=len(x))])
    made = rows(states, doses)
    number = torch.arange(len(states)) // STEPS
    return replace(made, patient=number, stay=number.clone())


@dataclass(frozen=True)
class Made:
    """A guardian with the patients around it."""

    history: History
    train: Rows
    calibration: Rows
    fresh: Rows
    fitted: Guardian

    @cached_property
    def guardian(self) -> Guardian:
        """Calibrated."""
        return calibrated(self.fitted, self.calibration)


def calibrated(guardian: Guardian, part: Rows, alpha: float = ALPHA) -> Guardian:
    return guardian.calibrate(part.states, part.doses, part.patient, alpha)


def _less(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same without one of its keys, each in turn; names of all columns are not read back."""
    for key, value in config.items():
        if key != "state_names":
            yield {k: v for k, v in config.items() if k != key}
        if isinstance(value, dict) and key != "power":
            yield from ({**config, key: less} for less in _less(value))


class GuardianHarness:
    """Inherit, and set `kind`."""

    kind: ClassVar[str]
    patients: ClassVar[tuple[int, int, int]] = (800, 400, 600)  # train, calibration, fresh
    params: ClassVar[GuardianParams] = GuardianParams()
    #: Whether the score has a gradient in the doses.
    smooth: ClassVar[bool] = True

    @classmethod
    def history(cls) -> History:
        return doctor_history()

    @classmethod
    def draw(cls, patients: int, rng: np.random.Generator) -> Rows:
        return doctor_rows(patients, rng)

    @classmethod
    def fit(cls, train: Rows, history: History) -> Guardian:
        generator = torch.Generator().manual_seed(5)
        member = GUARDIANS[cls.kind]
        return member.fit([train], Layout.of(history), cls.params, generator)

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls) -> Made:
        history, rng = cls.history(), np.random.default_rng(17)
        train, calibration, fresh = (cls.draw(n, rng) for n in cls.patients)
        return Made(history, train, calibration, fresh, cls.fit(train, history))

    def test_new_patients_are_refused_as_often_as_promised_and_no_more(self, made: Made) -> None:
        guardian, fresh = made.guardian, made.fresh
        assert guardian.status == "ready"
        assert guardian.threshold is not None
        share = 1 - guardian.supported(fresh.states, fresh.doses).double().mean()
        # all patients have as many steps, so the mean of shares is the share of steps
        noise = guardian.threshold.prediction_bound(self.patients[2], 0.9999) - ALPHA
        assert ALPHA - 2 * noise - 0.02 < share <= ALPHA + noise
        # which is what refusing everything, or nothing, fails

    def test_doses_of_other_patients_to_extremes_are_refused_more_often(self, made: Made) -> None:
        fresh = made.fresh
        real = made.guardian.supported(fresh.states, fresh.doses).double().mean()
        flipped = made.guardian.supported(fresh.states, -fresh.doses).double().mean()
        assert flipped < real - 0.2

    def test_a_patient_far_from_all_is_refused_whatever_the_dose(self, made: Made) -> None:
        states = made.fresh.states[:50] + 40 * torch.eye(made.fresh.states.shape[1])[0]
        assert not made.guardian.supported(states, made.fresh.doses[:50]).any()

    def test_what_is_no_number_is_never_supported(self, made: Made) -> None:
        states, doses = made.fresh.states[:9].clone(), made.fresh.doses[:9].clone()
        before = made.guardian.score(states, doses)
        states[0, 0], states[1, 0], doses[2, 0] = torch.nan, torch.inf, -torch.inf
        score = made.guardian.score(states, doses)
        assert (score[:3] == torch.inf).all()
        torch.testing.assert_close(score[3:], before[3:], rtol=1e-5, atol=1e-5)
        assert not made.guardian.supported(states, doses)[:3].any()
        assert made.guardian.rules(states, doses)[:3] == ["not_a_number"] * 3

    def test_a_case_scores_the_same_alone_and_among_others(self, made: Made) -> None:
        states, doses = made.fresh.states[:40], made.fresh.doses[:40]
        together = made.guardian.score(states, doses)
        pairs = zip(states.split(1), doses.split(1), strict=True)
        alone = torch.cat([made.guardian.score(s, a) for s, a in pairs])
        turned = made.guardian.score(states.flip(0), doses.flip(0)).flip(0)
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(turned, together, rtol=1e-4, atol=1e-4)

    def test_no_case_is_an_answer_too(self, made: Made) -> None:
        none = made.fresh.take(torch.zeros(len(made.fresh), dtype=torch.bool))
        assert made.guardian.supported(none.states, none.doses).shape == (0,)

    def test_columns_that_are_not_guarded_change_nothing(self, made: Made) -> None:
        read = made.fitted.layout.places
        states = made.fresh.states[:40].clone()
        others = [i for i in range(states.shape[1]) if i not in read]
        if not others:
            pytest.skip("every column is guarded")
        before = made.guardian.score(states, made.fresh.doses[:40])
        states[:, others] += 5
        assert torch.equal(made.guardian.score(states, made.fresh.doses[:40]), before)

    def test_the_same_patients_give_the_same_bytes(self, made: Made, tmp_path: Path) -> None:
        again = calibrated(self.fit(made.train, made.history), made.calibration)
        made.guardian.save(tmp_path / "one")
        again.save(tmp_path / "two")
        for file in sorted((tmp_path / "one").iterdir()):
            assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name

    def test_what_is_read_back_answers_the_same(self, made: Made, tmp_path: Path) -> None:
        made.guardian.save(tmp_path / "guardian")
        again = GUARDIANS[self.kind].load(tmp_path / "guardian", made.history)
        scores = [g.score(made.fresh.states, made.fresh.doses) for g in (made.guardian, again)]
        assert torch.equal(*scores)
        assert again.threshold == made.guardian.threshold
        assert again.status == "ready"

    def test_a_model_that_lacks_something_is_refused_as_such(
        self, made: Made, tmp_path: Path
    ) -> None:
        made.guardian.save(tmp_path / "whole")
        config, arrays = load_model(tmp_path / "whole", f"guardian:{self.kind}")
        lacking = [(less, arrays) for less in _less(config)]
        lacking += [(config, {n: a for n, a in arrays.items() if n != name}) for name in arrays]
        assert len(lacking) > 10
        for other, held in lacking:
            save_model(tmp_path / "edited", f"guardian:{self.kind}", other, held)
            with pytest.raises(ModelError):
                GUARDIANS[self.kind].load(tmp_path / "edited", made.history)

    def test_identical_patients_are_an_error_and_no_region(self, made: Made) -> None:
        one = made.train.take(made.train.patient == made.train.patient[0])
        number = torch.arange(30).repeat_interleave(len(one))
        same = Rows(one.states.repeat(30, 1), one.doses.repeat(30, 1), number, number)
        row = same.take(torch.zeros(len(same), dtype=torch.int64))
        for rows_ in (same, replace(row, patient=number, stay=number)):
            with pytest.raises(SupportError, match="all patients are the same"):
                self.fit(rows_, made.history)

    def test_rows_scaled_otherwise_are_not_asked_about(self, made: Made, tmp_path: Path) -> None:
        made.guardian.save(tmp_path / "guardian")
        preparation = made.history.preparation
        name = made.fitted.layout.columns[0]
        other: ColumnTransform = replace(preparation.states[name], center=0.25)
        moved = replace(preparation, states={**preparation.states, name: other})
        elsewhere = replace(made.history, preparation=moved)
        with pytest.raises(SupportError, match=f"{name}: scaled otherwise"):
            GUARDIANS[self.kind].load(tmp_path / "guardian", elsewhere)

    def test_a_changed_column_order_changes_nothing(self, made: Made) -> None:
        names = [*made.history.names, *made.fitted.layout.doses]
        values = torch.cat([made.fresh.states[:30], made.fresh.doses[:30]], dim=1).numpy()
        frame = pd.DataFrame(values, columns=names)
        frame["stay_id"], frame["step"] = [f"s{i}" for i in range(30)], 0
        scores = made.guardian.score_frame(frame, made.history)
        turned = made.guardian.score_frame(frame[frame.columns[::-1]], made.history)
        assert np.array_equal(scores, turned)
        direct = made.guardian.score(made.fresh.states[:30], made.fresh.doses[:30])
        np.testing.assert_array_equal(scores, direct.numpy())

    def test_a_missing_column_is_named(self, made: Made) -> None:
        names = [*made.history.names, *made.fitted.layout.doses]
        frame = pd.DataFrame(np.zeros((1, len(names))), columns=names)
        frame["stay_id"], frame["step"] = "s", 0
        read = made.fitted.layout
        for name in (read.doses[0], read.columns[0], made.history.names[-1], "stay_id", "step"):
            with pytest.raises(SupportError, match=f"{name}: the column is missing"):
                made.guardian.score_frame(frame.drop(columns=name), made.history)

    def test_states_of_another_layout_are_not_scored(self, made: Made) -> None:
        with pytest.raises(SupportError, match="states"):
            made.guardian.score(made.fresh.states[:, 1:], made.fresh.doses)
        with pytest.raises(SupportError, match="doses"):
            made.guardian.score(made.fresh.states, made.fresh.doses[:, :0])

    def test_too_few_calibration_patients_refuse_everything_and_say_so(self, made: Made) -> None:
        few = made.calibration.take(made.calibration.patient < 8)
        guardian = calibrated(made.fitted, few)
        assert guardian.status == "too_few_patients"
        assert guardian.lacking == Shortage("calibration", 10)
        assert guardian.threshold is not None
        assert guardian.threshold.patients is None  # eight are not counted
        assert not guardian.supported(made.fresh.states, made.fresh.doses).any()
        assert set(guardian.rules(made.fresh.states[:3], made.fresh.doses[:3])) == {
            "too_few_patients"
        }

    def test_too_few_training_patients_refuse_everything_and_leave_nothing_of_them(
        self, made: Made, tmp_path: Path
    ) -> None:
        for patients in (2, 9):
            few = made.train.take(made.train.patient < patients)
            guardian = calibrated(self.fit(few, made.history), made.calibration)
            assert guardian.status == "too_few_patients"
            lacking = guardian.lacking
            assert lacking is not None
            assert lacking.part == "training"
            assert lacking.needed >= 10
            guardian.save(tmp_path / str(patients))
            again = GUARDIANS[self.kind].load(tmp_path / str(patients), made.history)
            assert again.lacking == lacking
            for one in (guardian, again):
                assert not one.supported(made.fresh.states, made.fresh.doses).any()
                assert not one.supported(few.states, few.doses).any()
                rules = one.rules(made.fresh.states[:3], made.fresh.doses[:3])
                assert set(rules) == {"too_few_patients"}
            told = again.explain(few.states[:3], few.doses[:3], made.history.preparation)
            assert not told.cases["supported"].any()
        for file in sorted((tmp_path / "2").iterdir()):  # whoever they were, and however many
            assert file.read_bytes() == (tmp_path / "9" / file.name).read_bytes(), file.name

    def test_no_verdict_before_calibration(self, made: Made) -> None:
        assert made.fitted.status == "uncalibrated"
        with pytest.raises(SupportError, match="not calibrated"):
            made.fitted.supported(made.fresh.states, made.fresh.doses)

    def test_a_stricter_promise_refuses_less(self, made: Made) -> None:
        strict = calibrated(made.fitted, made.calibration, 0.02)
        loose = calibrated(made.fitted, made.calibration, 0.3)
        shares = [
            float(shares_above(g.score(made.fresh.states, made.fresh.doses), made.fresh.patient,
                               g.threshold.value if g.threshold else None).mean())
            for g in (strict, made.guardian, loose)
        ]  # fmt: skip
        assert shares[0] < shares[1] < shares[2]

    def test_the_nearest_inside_is_inside(self, made: Made) -> None:
        fresh = made.fresh.take(torch.arange(60))
        told = made.guardian.explain(fresh.states, -fresh.doses, made.history.preparation)
        supported = made.guardian.supported(fresh.states, -fresh.doses)
        assert told.cases["supported"].tolist() == supported.tolist()
        assert told.cases["rule"].isna().tolist() == supported.tolist()
        assert set(told.moves["case"]) == set((~supported).nonzero().squeeze(1).tolist())
        layout, preparation = made.fitted.layout, made.history.preparation
        reached = told.moves.dropna(subset="inside")
        assert len(reached) > 0
        for move in reached.head(40).itertuples():
            states, doses = fresh.states[[move.case]].clone(), -fresh.doses[[move.case]]
            inside = np.array([move.inside])
            if move.kind == "dose":
                place = layout.doses.index(move.column)
                doses[0, place] = float(preparation.doses[move.column].forward(inside)[0])
            else:
                place = layout.state_names.index(move.column)
                states[0, place] = float(preparation.states[move.column].forward(inside)[0])
            assert made.guardian.score(states, doses) <= made.guardian.threshold.value + 1e-4

    def test_the_score_rises_outward_and_its_gradient_says_so(self, made: Made) -> None:
        if not self.smooth:
            pytest.skip("levels have no gradient")
        out = made.fresh.take(~made.guardian.supported(made.fresh.states, -made.fresh.doses))
        doses = (-out.doses).requires_grad_()
        score = made.guardian.score(out.states, doses)
        (slope,) = torch.autograd.grad(score.sum(), doses)
        assert torch.isfinite(slope).all()
        moved = slope.norm(dim=1) > 0
        assert moved.double().mean() > 0.3
        step = 1e-3 * slope / slope.norm(dim=1, keepdim=True).clip(min=1e-12)
        with torch.no_grad():
            inward = made.guardian.score(out.states, doses - step)
        assert (inward[moved] <= score[moved] + 1e-4).double().mean() > 0.95
