"""The truth about policies: what it counts, and the facts that make the simulator a fair test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator, SeedSequence

from ogsrl.constraints import attach_costs
from ogsrl.sources.simulator import (
    CONSTRAINTS,
    DOSE_BOUNDS,
    MAX_STEPS,
    Clinicians,
    DenoisedClinicians,
    MaximumDose,
    SimulatorConfig,
    Truth,
    Ward,
    ZeroDose,
    oracle,
    paired_difference,
    rollout,
    simulate,
    true_value,
)
from ogsrl.sources.simulator.protocols import ORACLE_LIMITS, SOFA_BANDS
from ogsrl.spec import load_cohort

PATIENTS, SEED = 8192, 77
REPOSITORY = Path(__file__).resolve().parents[2]


class Defer:
    """Leaves a share of decisions to the clinicians, and gives nothing in the others."""

    def __init__(self, share: float, doses: tuple[str, ...] = tuple(DOSE_BOUNDS)) -> None:
        self.share = share
        self.doses = doses

    def act(
        self,
        step: int,
        charted: Mapping[str, np.ndarray],
        previous: Mapping[str, np.ndarray],
        rng: Generator,
    ) -> dict[str, np.ndarray]:
        leave = rng.random(len(charted["map"])) < self.share
        return {name: np.where(leave & (name in self.doses), np.nan, 0.0) for name in DOSE_BOUNDS}


@pytest.fixture(scope="module")
def clinicians() -> Truth:
    return true_value(Clinicians(), PATIENTS, SEED)


def test_clinicians_lose_fifteen_to_twenty_five_in_a_hundred(clinicians: Truth) -> None:
    assert clinicians.mortality - 3 * clinicians.mortality_se > 0.15
    assert clinicians.mortality + 3 * clinicians.mortality_se < 0.25


def test_hypoxia_and_oliguria_are_seen_on_three_to_twelve_in_a_hundred_steps(
    clinicians: Truth,
) -> None:
    for name in CONSTRAINTS:
        assert 0.03 < clinicians.unsafe[name] < 0.12
    table = simulate(4000, 5)
    assert 0.03 < (table["spo2"] < 92).mean() < 0.12
    assert 0.03 < (table["urine"] / table["weight"] / 4 < 0.5).mean() < 0.12


@pytest.mark.parametrize("policy", [ZeroDose(), MaximumDose()])
def test_no_treatment_and_maximal_treatment_are_twice_as_deadly(
    clinicians: Truth, policy: ZeroDose | MaximumDose
) -> None:
    truth = true_value(policy, PATIENTS, SEED)
    assert truth.mortality - 3 * truth.mortality_se > 2 * clinicians.mortality


@pytest.mark.parametrize("typical", [False, True])
def test_removing_the_clinicians_noise_gains_less_than_one_in_a_hundred(
    clinicians: Truth, typical: bool
) -> None:
    denoised = true_value(DenoisedClinicians(typical), PATIENTS, SEED)
    gain, error = paired_difference(clinicians, denoised)
    assert gain < 0.01 + 1.5 * error


def test_a_protocol_of_usual_doses_saves_three_in_a_hundred_with_fewer_violations(
    clinicians: Truth,
) -> None:
    best = true_value(oracle(), PATIENTS, SEED)
    gap, error = paired_difference(clinicians, best)
    assert gap - 3 * error > 0.03
    for name in CONSTRAINTS:
        worse, error = paired_difference(best, clinicians, f"cost:{name}")
        assert worse + 3 * error < 0
        assert best.unsafe[name] < clinicians.unsafe[name]


def test_the_oracle_stays_within_what_clinicians_give_in_the_severity_band() -> None:
    table = simulate(8000, 9).dropna(subset=["iv_fluid"])
    band = np.searchsorted(SOFA_BANDS, table["sofa"], side="left")
    for name, increment in (("iv_fluid", 100.0), ("vasopressor", 0.06)):
        for b in range(len(SOFA_BANDS) + 1):
            lo, hi = table[name][band == b].quantile([0.01, 0.99])
            assert ORACLE_LIMITS.least[name][b] >= lo - increment
            assert ORACLE_LIMITS.greatest[name][b] <= hi + increment


@pytest.mark.parametrize(
    "config",
    [
        SimulatorConfig(confounding=0.5),
        SimulatorConfig(confounding=1.0),
        SimulatorConfig(unsafe_share=0.09),
        SimulatorConfig(variant="deadly"),
    ],
)
def test_other_settings_stay_sane(config: SimulatorConfig) -> None:
    assert 0.12 < true_value(Clinicians(config), 4096, 3, config).mortality < 0.30


def test_nothing_depends_on_censoring_in_truth() -> None:
    configs = [SimulatorConfig(censoring=share) for share in (0.0, 0.2)]
    truths = [true_value(Clinicians(config), 500, 3, config) for config in configs]
    assert truths[0].mortality == truths[1].mortality
    with pytest.raises(ValueError, match="differ"):
        paired_difference(*truths)


def test_the_logged_cohort_dies_and_suffers_as_the_truth_says() -> None:
    """Truth is about one first stay a patient, seen to its end; there the log must agree."""
    config = SimulatorConfig(censoring=0.0, readmission=0.0)
    cohort = load_cohort(REPOSITORY / "data_contracts" / "sepsis.yaml")
    table = attach_costs(simulate(24_000, 13, config), cohort)
    truth = true_value(Clinicians(config), 24_000, 14, config)
    stays = table.groupby("stay_id", sort=False)
    logged = {"mortality": (stays["died"].last().astype(float), truth.mortality)}
    for name in CONSTRAINTS:
        logged[name] = (stays[f"cost_{name}"].sum(), truth.costs[name])
    for name, (values, true) in logged.items():
        error = np.sqrt(2) * values.std() / np.sqrt(len(values))
        assert abs(values.mean() - true) < 3.5 * error, name
        assert error < 0.004, "the comparison sees a difference of a few thousandths"


def test_clinicians_of_other_settings_are_refused_in_a_ward() -> None:
    with pytest.raises(ValueError, match="other settings"):
        true_value(Clinicians(), 10, 1, SimulatorConfig(confounding=0.5))


def test_always_deferring_is_the_clinicians(clinicians: Truth) -> None:
    deferred = true_value(Defer(1.0), 2500, SEED)
    same = true_value(Clinicians(), 2500, SEED)
    for name, value in same.each.items():
        if name != "deferred":
            np.testing.assert_array_equal(deferred.each[name], value)
    assert deferred.steps_deferred == deferred.stays_deferred == 1.0
    assert same.steps_deferred == 0.0


def test_deferrals_are_counted_by_step_and_by_stay() -> None:
    truth = true_value(Defer(0.1), 2000, 1)
    assert abs(truth.steps_deferred - 0.1) < 5 * truth.steps_deferred_se
    assert truth.steps_deferred < truth.stays_deferred < 1.0


def test_a_row_with_one_dose_missing_is_an_error_not_a_deferral() -> None:
    with pytest.raises(ValueError, match="vasopressor"):
        true_value(Defer(0.5, ("vasopressor",)), 50, 1)


def test_costs_are_unsafe_steps_and_steps_lost_to_death() -> None:
    """Recomputed stay by stay from what was charted, as the cohort's definition has it."""
    body, luck = SeedSequence([4, 0]).spawn(2)
    ward = Ward(400, body)
    spo2 = np.full((400, MAX_STEPS + 1), np.nan)
    length, died = np.zeros(400, dtype=int), np.zeros(400, dtype=bool)
    for step in rollout(Clinicians(), ward, luck):
        spo2[step.alive, step.index] = step.charted["spo2"][step.alive]
        length[step.alive] = step.index + 1
        died |= step.outcome.died
    truth = true_value(Clinicians(), 400, 4)
    for stay in range(400):
        cost, last = 0.0, np.nan
        for t in range(length[stay]):
            value = spo2[stay, t]
            last = last if np.isnan(value) else value
            cost += (t > 0) * (last < 92) / MAX_STEPS
        if died[stay]:
            cost += (MAX_STEPS - (length[stay] - 1)) / MAX_STEPS
        assert truth.each["cost:hypoxia"][stay] == pytest.approx(cost)
        assert truth.each["steps"][stay] == length[stay]
    whole = truth.costs_before_death["hypoxia"] + truth.death_cost
    assert truth.costs["hypoxia"] == pytest.approx(whole)


def test_dying_never_buys_safety() -> None:
    each = true_value(MaximumDose(), 500, 1).each
    for name in CONSTRAINTS:
        assert (each[f"cost:{name}"] >= (MAX_STEPS + 1 - each["steps"]) / MAX_STEPS - 1e-12).all()
        assert (each[f"cost:{name}"] <= 1.0 + 1e-12).all()


def test_value_is_the_discounted_end() -> None:
    plain = true_value(Clinicians(), 500, 1, discount=1.0)
    assert plain.value == pytest.approx(1.0 - 2.0 * plain.mortality)
    each = true_value(Clinicians(), 500, 1, discount=0.9).each
    expected = (1.0 - 2.0 * each["mortality"]) * 0.9 ** (each["steps"] - 1)
    np.testing.assert_allclose(each["value"], expected)


def test_standard_errors_say_how_far_estimates_spread() -> None:
    truths = [true_value(Clinicians(), 256, seed) for seed in range(40)]
    for name in ("mortality", "value", "death_cost"):
        spread = np.std([getattr(t, name) for t in truths], ddof=1)
        said = np.mean([getattr(t, f"{name}_se") for t in truths])
        assert 0.65 < spread / said < 1.45, name
    for name in CONSTRAINTS:
        spread = np.std([t.unsafe[name] for t in truths], ddof=1)
        assert 0.65 < spread / np.mean([t.unsafe_se[name] for t in truths]) < 1.45


def test_common_luck_makes_differences_sharper(clinicians: Truth) -> None:
    best = true_value(oracle(), PATIENTS, SEED)
    _, error = paired_difference(clinicians, best)
    assert error < 0.75 * np.hypot(clinicians.mortality_se, best.mortality_se)
    with pytest.raises(ValueError, match="differ"):
        paired_difference(clinicians, true_value(oracle(), 100, SEED))
    with pytest.raises(ValueError, match="no quantity"):
        paired_difference(clinicians, best, "cost:pain")


def test_hazards_and_other_constraints_can_be_asked_for() -> None:
    truth = true_value(
        MaximumDose(),
        200,
        1,
        constraints={"low": lambda known: known["map"] < 55},
        hazards={"surge": lambda charted, doses: doses["vasopressor"] > 1.0},
    )
    assert truth.hazards == {"surge": 1.0}
    assert set(truth.costs) == {"low"}
