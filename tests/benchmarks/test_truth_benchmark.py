"""Truth in the simulator: shortcuts fail, and finished parts are not done again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import _truth_measure, truth
from benchmarks._truth_cohorts import HARDER, Place, make
from benchmarks._truth_figures import SeedResult, default_figures, gap
from benchmarks._truth_measure import Named, Patients, margins, measured, table
from benchmarks._truth_training import Trained
from benchmarks.truth import QUICK, references, seed_result
from ogsrl.policies.deployed import Deployed
from ogsrl.sources.simulator import MaximumDose, Truth, ZeroDose, paired_difference
from pipelines import ingest
from pipelines.stage import Stage

PATIENTS = Patients(1_500, 77)
#: Treatment that is known to be better than the clinicians', if only the guardian lets it.
M_ORACLE = 0.14


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("truth")


@pytest.fixture(scope="module")
def place(work: Path) -> Place:
    return make(work / "cohorts", QUICK.options, 0, QUICK.changes)


@pytest.fixture(scope="module")
def clinicians(place: Place, work: Path) -> Truth:
    return measured(references(place)[0], place, PATIENTS, work / "parts")


class Drawn:
    """Copies the clinicians: a draw of their fitted policy."""

    def __init__(self, place: Place) -> None:
        self.behaviour = place.behaviour

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self.behaviour.sample(states, generator)


def always_defers(place: Place) -> Trained:
    nobody = Deployed.of(None, place.guardian, place.history)
    return Trained("ogsrl", 0, nobody, "nobody", "none", False, {"hypoxia": 0.0, "refusal": 1.0})


def copies(place: Place, guarded: bool = True) -> Trained:
    guardian = place.guardian if guarded else None
    copy = Deployed.of(Drawn(place), guardian, place.history)
    return Trained("bc", 0, copy, f"copy {guarded}", "final", False, {})


def result(
    trained: Trained, place: Place, work: Path, clinicians: Truth
) -> tuple[SeedResult, Truth]:
    found = measured(truth.named(trained), place, PATIENTS, work / "parts")
    return seed_result(trained, found, clinicians, place), found


def test_who_always_defers_closes_nothing_and_breaks_every_limit(
    place: Place, work: Path, clinicians: Truth
) -> None:
    found, measured_as = result(always_defers(place), place, work, clinicians)
    over = margins(measured_as, clinicians, place.cohort, place.max_refusal)
    assert found.mortality == clinicians.mortality
    assert gap(found.mortality, clinicians.mortality, M_ORACLE) == 0
    assert found.steps_deferred == 1
    assert not found.within_limits
    assert set(over.broken) == set(place.cohort.constraints)
    assert over.refusal > 0
    figures = default_figures([found] * 2, [found] * 2, clinicians.mortality, M_ORACLE)
    assert figures["gap_closed"] == 0
    assert figures["seeds_feasible"] == 0


def test_the_clinicians_own_doses_close_next_to_nothing(
    place: Place, work: Path, clinicians: Truth
) -> None:
    found, _ = result(copies(place), place, work, clinicians)
    assert abs(gap(found.mortality, clinicians.mortality, M_ORACLE)) < 0.4


@pytest.mark.parametrize("shortcut", [ZeroDose(), MaximumDose()], ids=["no dose", "every dose"])
def test_a_policy_that_kills_is_not_feasible_however_few_steps_it_leaves(
    shortcut: ZeroDose | MaximumDose, place: Place, work: Path, clinicians: Truth
) -> None:
    name = type(shortcut).__name__
    found = measured(Named(name, shortcut, name), place, PATIENTS, work / "parts")
    over = margins(found, clinicians, place.cohort, place.max_refusal)
    assert found.mortality > clinicians.mortality + 0.1
    assert set(over.broken) == set(place.cohort.constraints)
    # the dead have no low saturation: only the steps lost to death tell
    if name == "ZeroDose":
        assert found.costs_before_death["hypoxia"] < clinicians.costs_before_death["hypoxia"]


def test_limits_are_nine_tenths_of_the_clinicians_own_cost(place: Place, clinicians: Truth) -> None:
    over = margins(clinicians, clinicians, place.cohort, place.max_refusal)
    for name, excess in over.constraints.items():
        assert excess == pytest.approx(0.1 * clinicians.costs[name])
    assert over.refusal == -place.max_refusal


def test_a_part_that_was_finished_is_read_and_says_the_same(
    place: Place, work: Path, clinicians: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*_: object) -> Truth:
        raise AssertionError("measured again")

    monkeypatch.setattr(_truth_measure, "truth_of", again)
    read = measured(references(place)[0], place, PATIENTS, work / "parts")
    for name, each in clinicians.each.items():
        assert np.array_equal(read.each[name], each)
    assert (read.costs, read.mortality_se) == (clinicians.costs, clinicians.mortality_se)
    assert paired_difference(read, clinicians) == (0, 0)
    with pytest.raises(AssertionError, match="measured again"):
        measured(references(place)[0], place, Patients(1_500, 78), work / "parts")


def test_stages_that_were_finished_are_not_run_again(
    place: Place, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(_: Stage) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(ingest, "run", again)
    assert make(work / "cohorts", QUICK.options, 0, QUICK.changes).root == place.root
    for changed in HARDER.values():
        with pytest.raises(AssertionError, match="run again"):
            make(work / "cohorts", {**QUICK.options, **changed}, 0, QUICK.changes)


def test_the_table_shows_no_patient_and_every_policy(
    place: Place, work: Path, clinicians: Truth
) -> None:
    found, deferring = result(always_defers(place), place, work, clinicians)
    text = table({"clinicians": clinicians, "nobody": deferring}, clinicians, {"nobody": 0.0123})
    lines = text.splitlines()
    assert ["+0.0123" in line for line in lines] == [False, False, True]
    assert [line.split()[0] for line in lines] == ["policy", "clinicians", "nobody"]
    assert f"{found.mortality:.4f}" in lines[2]


def test_the_quick_benchmark_writes_every_figure_of_the_issue(
    place: Place, work: Path, tmp_path: Path
) -> None:
    def train(where: Place, algorithms: Mapping[str, Sequence[int]]) -> Iterator[Trained]:
        assert where.root == place.root
        for name, seeds in algorithms.items():
            one = always_defers(place) if name == "ogsrl" else copies(place)
            acts, told = one.deployed, one.multipliers
            for s in seeds:
                yield Trained(name, s, acts, f"{one.key} {s}", "final", False, told)

    file = tmp_path / "truth.json"
    flags = ["--quick", "--json", str(file), "--work", str(work), "--processes", "1"]
    truth.main(flags, train, once=["td3bc"])
    written = json.loads(file.read_text())
    figures = written["figures"]
    asked = {"oracle_gap", "gap_closed", "gap_closed_lo", "seeds_feasible", "multipliers_active"}
    asked |= {"steps_deferred", "gain_over_bc_in_se", "mortality_td3bc_0", "gain_se_bc_1"}
    asked |= {"mortality_ogsrl_0_bare_actor", "oracle_methods_differ"}
    assert set(figures) >= asked
    assert all(isinstance(value, float) for value in figures.values())
    assert figures["seeds_feasible"] == 0
    assert figures["gap_closed"] <= 0.01
    assert str(work) not in file.read_text()
