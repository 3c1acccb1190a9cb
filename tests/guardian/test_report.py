"""The report tells a good guardian from degenerate ones, and tells of no few patients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ogsrl.figures.guardian import FIGURES, refuses_everything
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.conformal import Threshold
from ogsrl.guardian.false_support import deadly
from ogsrl.guardian.members import GUARDIANS
from ogsrl.guardian.protocol import Cases, Guardian, LogDensity, Rows, Shards
from ogsrl.guardian.region import _middle, _shown, region
from ogsrl.guardian.report import checks, describe, fit_peers
from ogsrl.guardian.shares import group_shares, share
from ogsrl.preparation.groups import bands, subgroups
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from tests.guardian.cohorts import planted, simulated
from tests.harness_guardian import doctor_rows

PARAMS = GuardianParams(degree=1)


@dataclass(frozen=True)
class Degenerate(Guardian):
    """Refuses everything, nothing, or a twentieth of all at random."""

    kind: ClassVar[str] = "degenerate"
    holds_rows: ClassVar[bool] = False

    how: Literal["always", "never", "at random"] = "never"

    @classmethod
    def fit(
        cls,
        batches: Shards,
        layout: Layout,
        params: GuardianParams,
        generator: torch.Generator,
        log_density: LogDensity | None = None,
    ) -> Self:
        return cls(layout, Threshold(params.alpha, 0.5, "ready", 100, 19, 0.05, 0.1), None)

    def ranks(self, cases: Cases) -> dict[str, torch.Tensor]:
        if self.how == "at random":
            return {"luck": (cases.z.double().sum(dim=1) * 1e4).sin().abs().float() ** 223}
        return {"luck": torch.full((len(cases.z),), 1.0 if self.how == "always" else 0.0)}

    def parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {}, {}

    @classmethod
    def from_parts(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        layout: Layout,
        log_density: LogDensity | None,
    ) -> Self:
        return cls(layout, None, None)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def fitted(
    train: StayTensors, calibration: StayTensors, params: GuardianParams = PARAMS
) -> Guardian:
    layout = Layout.of(train.history)
    guardian = ChristoffelGuardian.fit([Rows.of(train)], layout, params, generator())
    rows = Rows.of(calibration)
    return guardian.calibrate(rows.states, rows.doses, rows.patient, PARAMS.alpha)


def described(guardian: Guardian, peers: Mapping[str, Guardian | str] | None = None) -> Any:
    parts, frames = simulated()
    found = describe(
        guardian,
        peers or {},
        Rows.of(parts["train"]),
        parts["validation"],
        frames["validation"],
        generator(),
    )
    return json.loads(json.dumps(found, allow_nan=False))


@pytest.fixture(scope="module")
def good() -> Guardian:
    parts, _ = simulated()
    return fitted(parts["train"], parts["calibration"])


@pytest.fixture(scope="module")
def report(good: Guardian) -> dict[str, Any]:
    parts, _ = simulated()
    train, calibration = Rows.of(parts["train"]), Rows.of(parts["calibration"])
    return described(good, fit_peers(good, train, calibration, PARAMS, generator()))


def passed(report: Mapping[str, Any]) -> dict[str, bool | None]:
    return {check["name"]: check["passed"] for check in report["checks"]}


def degenerate(how: str) -> Any:
    layout = Layout.of(simulated()[0]["train"].history)
    guardian = Degenerate.fit([], layout, PARAMS, generator())
    return described(replace(guardian, how=how))


def test_a_fitted_guardian_passes_every_check(report: dict[str, Any]) -> None:
    assert passed(report) == {"promise": True, "power": True, "rare patients": True}


def test_who_refuses_everything_breaks_the_promise() -> None:
    found = degenerate("always")
    assert found["false_alarm"]["steps"]["estimate"] == 1
    assert passed(found) == {"promise": False, "power": False}


@pytest.mark.parametrize("how", ["never", "at random"])
def test_who_refuses_nothing_or_at_random_has_no_power(how: str) -> None:
    found = degenerate(how)
    assert passed(found) == {"promise": True, "power": False}


def test_false_alarms_are_those_of_the_verdicts(report: dict[str, Any], good: Guardian) -> None:
    validation = simulated()[0]["validation"]
    rows = Rows.of(validation)
    refused = ~good.supported(rows.states, rows.doses)
    people = torch.unique(rows.patient)
    each = [refused[rows.patient == person].double().mean() for person in people]
    steps = report["false_alarm"]["steps"]
    assert steps["estimate"] == pytest.approx(float(torch.stack(each).mean()))
    assert steps["lo"] < steps["estimate"] < steps["hi"]
    assert steps["patients"] == len(people)
    ever = [bool(refused[rows.stay == stay].any()) for stay in torch.unique(rows.stay)]
    assert report["false_alarm"]["stays"]["rows"] == len(ever)


def test_every_subgroup_step_and_length_is_told(report: dict[str, Any]) -> None:
    groups = report["false_alarm"]["groups"]
    assert set(groups) == {"age", "sex", "severity", "site", "step", "length"}
    assert [entry["group"] for entry in groups["sex"]["shares"]] == ["Female: no", "Female: yes"]
    assert len(groups["site"]["shares"]) == 6


def test_no_cell_of_fewer_than_ten_patients_has_a_number(report: dict[str, Any]) -> None:
    def shares(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            own = [value] if "patients" in value and "estimate" in value else []
            return own + [found for part in value.values() for found in shares(part)]
        return (
            [found for part in value for found in shares(part)] if isinstance(value, list) else []
        )

    found = shares(report)
    assert len(found) > 100
    assert min(entry["patients"] for entry in found) >= 10


def test_a_single_small_group_is_not_found_by_subtraction() -> None:
    code = bands("x", "X", np.repeat([0, 1, 2], [60, 40, 5]), "step")
    shown = group_shares(code, np.ones(105, bool), np.arange(105), np.ones(105, bool))
    assert [entry["share"] is None for entry in shown] == [False, True, True]


def test_the_longest_stay_of_one_patient_is_in_no_label() -> None:
    for longest in (8, 9, 13, 15):
        found = bands("x", "X", np.array([0, 1, 3, 5, longest]), "step")
        assert found.groups[-1] == "steps 8 and more"
        assert found.code.tolist() == [0, 1, 2, 3, 4]
    assert bands("x", "X", np.zeros(3, int), "step").groups == ("step 0",)


def test_peers_stand_beside_with_their_own_promise(report: dict[str, Any]) -> None:
    assert set(report["members"]) == set(GUARDIANS)
    assert report["members"]["kde"] == {"status": "ready", "holds_rows": True, "promises": True}
    assert report["members"]["counts"]["status"].startswith("not evaluable: needs one categorical")
    random = report["power"]["departures"]["random_doses"]["power"]
    assert set(random) == {"christoffel", "kde", "neighbours"}
    assert all(value["lo"] > 0.2 for value in random.values())


def test_power_on_doses_is_told_for_each_tenth_of_rarity(report: dict[str, Any]) -> None:
    tenths = report["power"]["by_rarity"]
    assert [tenth["decile"] for tenth in tenths] == list(range(1, 11))
    refused = [tenth["refused"]["estimate"] for tenth in tenths]
    assert refused[-1] > 2 * np.mean(refused[:5])  # the rare are refused more often
    assert tenths[-1]["departures"]["random_doses"]["by_dose"]["estimate"] > 0.2


def test_too_few_patients_is_a_report_and_not_an_error(good: Guardian) -> None:
    rows = Rows.of(simulated()[0]["calibration"])
    few = rows.take(rows.patient < 10)
    short = good.calibrate(few.states, few.doses, few.patient, PARAMS.alpha)
    found = described(short)
    assert (found["status"], found["needed"]) == ("too_few_patients", 19)
    assert found["needed_of"] == "calibration"
    assert found["false_alarm"] is None
    assert found["checks"] == []
    assert "Too few calibration patients: at least 19" in words(refuses_everything(found))


@pytest.mark.parametrize(("patients", "told"), [(8, None), (14, 14)])
def test_fewer_than_ten_calibration_patients_are_not_counted(
    patients: int, told: int | None, good: Guardian, tmp_path: Path
) -> None:
    rows = Rows.of(simulated()[0]["calibration"])
    few = rows.take(torch.isin(rows.patient, torch.unique(rows.patient)[:patients]))
    short = good.calibrate(few.states, few.doses, few.patient, PARAMS.alpha)
    assert described(short)["calibration"] == {"patients": told, "share": 1.0, "spread": 0.0}
    short.save(tmp_path / "g")
    saved = json.loads((tmp_path / "g" / "config.json").read_text(encoding="utf-8"))["config"]
    assert saved["threshold"]["patients"] == told
    assert saved["threshold"]["needed"] == 19


def test_a_guardian_of_few_validation_patients_says_whose_are_lacking(good: Guardian) -> None:
    parts, frames = simulated()
    frame = frames["validation"]
    frame = frame[frame["patient_id"].isin(frame["patient_id"].unique()[:9])]
    frame = frame.reset_index(drop=True)
    validation = stay_tensors(frame, parts["train"].history.preparation)
    found = describe(good, {}, Rows.of(parts["train"]), validation, frame, generator())
    assert (found["status"], found["needed"], found["needed_of"]) == ("ready", 10, "validation")
    assert "Too few validation patients: at least 10" in words(refuses_everything(found))


def test_a_promise_that_no_threshold_keeps_is_drawn_as_that_and_not_as_too_few(
    good: Guardian,
) -> None:
    rows = Rows.of(simulated()[0]["calibration"])
    refusing = good.calibrate(rows.states * torch.nan, rows.doses, rows.patient, PARAMS.alpha)
    found = described(refusing)
    assert (found["status"], found["needed"]) == ("too_many_refused", None)
    told = words(refuses_everything(found))
    assert "no threshold" in told
    assert "oo few" not in told


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.mark.parametrize("name", list(FIGURES))
def test_every_figure_draws_the_report(name: str, report: dict[str, Any]) -> None:
    figure = FIGURES[name](report)
    assert figure.axes
    assert FIGURES[name]({**report, "region": None}).axes


def test_the_region_is_of_typical_patients_and_refuses_something(report: dict[str, Any]) -> None:
    region = report["region"]
    assert [axis["dose"] for axis in region["axes"]] == ["iv_fluid", "vasopressor"]
    for patient in region["patients"]:
        assert patient["patients"] >= 10
        assert 0.05 < patient["share_supported"] < 0.95


def sick_history() -> History:
    columns = {f"x{i}": {"plausible": [-100, 100], "harm": "high"} for i in range(4)}
    return planted(
        {**columns, "v": {"kind": "binary"}, "unread": {"plausible": [-100, 100]}},
        {"fluid": {"bounds": [-1, 1]}, "pressor": {"bounds": [-1, 1]}},
        guardian={"columns": [*columns, "v"]},
    )


@pytest.mark.parametrize("patients", [100, 101])  # medians of an odd number are values
def test_a_typical_patient_has_no_value_of_a_validation_patient(patients: int) -> None:
    train, asked = (doctor_rows(n, np.random.default_rng(n)) for n in (800, patients))
    history = sick_history()
    layout = Layout.of(history)
    guardian = ChristoffelGuardian.fit([train], layout, GuardianParams(degree=1), generator())
    guardian = guardian.calibrate(train.states, train.doses, train.patient, 0.05)
    found = region(guardian, asked, history, train)
    assert found is not None
    assert len(found["patients"]) == 3
    sick = {}
    for patient in found["patients"]:
        state = patient["state"]
        assert state.pop("v") in (0, 1)
        for place, (name, value) in enumerate(state.items()):
            assert name == f"x{place}"
            assert value == float(f"{value:.2g}")
            assert float((asked.states[:, place] - value).abs().min()) > 1e-6
        sick[patient["name"]] = sum(state.values())
    assert sick["least sick tenth"] < sick["typical"] - 1 < sick["sickest tenth"] - 2


def test_a_patient_of_many_steps_does_not_make_the_typical_one() -> None:
    history = sick_history()
    states = torch.zeros(40 + 400, len(history.names))
    states[40:, 0], states[:, 4] = 8.0, -1.0
    states[40:, 4] = 1.0  # one patient of 400 steps, among 40 of one
    number = torch.cat([torch.arange(40), torch.full((400,), 40)])
    band = Rows(states, torch.zeros(len(states), 2), number)
    columns = Layout.of(history).columns
    middle = _middle(band, history, columns)
    assert float(middle[0]) == pytest.approx(8 / 41)
    assert float(middle[4]) == -1.0
    assert _shown(middle, band, history, columns)["v"] == 0
    few = band.take(torch.arange(31, 41))  # nine have the one level, one the other
    assert "v" not in _shown(_middle(few, history, columns), few, history, columns)


def test_where_unsupported_doses_kill_supported_doses_rarely_do(report: dict[str, Any]) -> None:
    history = simulated()[0]["train"].history
    fit = partial(fitted, params=GuardianParams(degree=2))
    found = deadly(fit, history, 2_000, np.random.default_rng(4))
    assert found["status"] == "ready"
    asks = found["asks"]
    assert asks["logged"]["kills"]["estimate"] == 0
    assert asks["random"]["kills"]["estimate"] > 0.7
    assert asks["random"]["fatal_refused"]["estimate"] > 0.6
    judged = passed({"checks": checks({**report, "truth": {"deadly": found}})})
    assert judged["deadly variant"] is True  # .33 to .42 of all over seeds; at most .5 is asked


def test_a_guardian_that_supports_deadly_doses_fails_the_check(report: dict[str, Any]) -> None:
    def variant(kills: float) -> dict[str, Any]:
        random = {"kills": {"estimate": 0.9}, "supported_kills": {"estimate": kills}}
        truth = {"deadly": {"status": "ready", "asks": {"random": random}}}
        return {**report, "truth": truth}

    assert passed({"checks": checks(variant(0.9))})["deadly variant"] is False
    assert passed({"checks": checks(variant(0.2))})["deadly variant"] is True


def test_shares_of_patients_who_all_agree_have_an_interval() -> None:
    found = share(np.zeros(200, bool), np.arange(200) // 2)
    assert found is not None
    assert found["estimate"] == found["lo"] == 0
    assert 0.03 < found["hi"] < 0.04  # 100 patients, one-sided 97.5 %


def dashes(figure: Figure) -> int:
    return sum(line.get_linestyle() == "--" for axes in figure.axes for line in axes.lines)


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_promise_that_was_made_is_drawn(name: str, report: dict[str, Any]) -> None:
    assert dashes(FIGURES[name](report)) == (0 if name == "guardian_region" else 1)


def test_a_site_of_few_patients_is_not_named() -> None:
    tensors, frames = simulated()
    frame = frames["validation"].copy()
    few = frame["patient_id"].isin(frame["patient_id"].unique()[:4])
    frame.loc[few, "site"] = "a site of four"
    (found,) = [
        g
        for g in subgroups(frame, tensors["train"].history.preparation)
        if "smaller sites" in g.groups
    ]
    assert not any("four" in group for group in found.groups)
