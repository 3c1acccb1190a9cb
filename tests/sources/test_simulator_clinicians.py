"""The logging clinicians: what they may see, how they differ, and what they do wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng

from ogsrl.sources.simulator import (
    DOSE_BOUNDS,
    Clinicians,
    DenoisedClinicians,
    SimulatorConfig,
    Ward,
    simulate,
)
from ogsrl.sources.simulator.clinicians import BEDSIDE, support, supported, tilted

CONFOUNDED = SimulatorConfig(confounding=1.0)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return simulate(6000, seed=21)


def one_chart(n: int, **values: float) -> dict[str, np.ndarray]:
    """The same row n times."""
    ward = Ward(1, seed=4)
    chart = {**ward.charted, "map": np.array([60.0]), "urine": np.array([150.0])}
    chart |= {name: np.array([value]) for name, value in values.items()}
    return {name: np.repeat(value, n) for name, value in chart.items()}


def ask(config: SimulatorConfig, chart: dict[str, np.ndarray], seed: int = 0) -> pd.DataFrame:
    n = len(chart["map"])
    none = {name: np.zeros(n) for name in DOSE_BOUNDS}
    return pd.DataFrame(Clinicians(config).act(0, chart, none, default_rng(seed)))


def test_without_confounding_the_latent_body_does_not_move_a_dose() -> None:
    ward = Ward(500, seed=1)
    other = ward.copy()
    for organ in ("infection", "damage", "volume", "kidney"):
        setattr(other.latent, organ, getattr(ward.latent, organ) + 5.0)
    doses = [
        Clinicians().act(0, w.charted, w.previous_doses, default_rng(3)) for w in (ward, other)
    ]
    for name in DOSE_BOUNDS:
        np.testing.assert_array_equal(doses[0][name], doses[1][name])
    assert BEDSIDE not in ward.charted


def test_without_confounding_the_latent_body_adds_nothing_to_the_charted_history() -> None:
    """Departures from the mean dose given the chart are unrelated to bedside severity."""
    shift = {}
    for confounding in (0.0, 1.0):
        config = SimulatorConfig(confounding=confounding, unsafe_share=0.0)
        clinicians, mean = Clinicians(config), DenoisedClinicians()
        ward = Ward(20_000, seed=5, config=config)
        left, seen = [], []
        for step in range(3):
            chart = {**ward.charted, BEDSIDE: ward.bedside}
            given = clinicians.act(step, chart, ward.previous_doses, default_rng([step, 1]))
            usual = mean.act(step, chart, ward.previous_doses, default_rng(0))
            left.append((given["iv_fluid"] - usual["iv_fluid"])[ward.alive])
            seen.append(ward.bedside[ward.alive])
            ward.step(given)
        size = sum(len(part) for part in left)
        r = np.corrcoef(np.concatenate(left), np.concatenate(seen))[0, 1]
        shift[confounding] = r * np.sqrt(size)
    assert abs(shift[0.0]) < 4.0
    assert shift[1.0] > 10.0


def test_confounded_clinicians_say_when_they_cannot_see_the_patient() -> None:
    with pytest.raises(ValueError, match="bedside"):
        ask(CONFOUNDED, one_chart(5))


def test_bedside_severity_foretells_death_beyond_the_chart() -> None:
    ward = Ward(4000, seed=2)
    bedside = ward.bedside
    assert (np.abs(bedside) <= 1.0).all()
    died = np.zeros(ward.n, dtype=bool)
    for _ in range(18):
        died |= ward.step({"iv_fluid": np.full(4000, 400.0), "vasopressor": np.zeros(4000)}).died
    assert died[bedside > 0.5].mean() > 1.5 * died[bedside < -0.5].mean()


@pytest.mark.parametrize("bedside", [-1.0, -0.4, 0.0, 1.0])
def test_a_residual_has_the_density_that_gamma_is_computed_from(bedside: float) -> None:
    n = 400_000
    drawn = tilted(0.3, np.full(n, bedside), default_rng(8))
    edges = np.linspace(-2.5, 2.5, 11)
    seen = np.histogram(drawn, edges)[0]
    base = np.histogram(default_rng(9).standard_normal(4 * n), edges)[0] / 4
    said = base * (1.0 + 0.3 * bedside * np.sign(edges[:-1] + edges[1:]))
    assert (np.abs(seen - said) < 5.0 * np.sqrt(said * 1.25)).all()


def test_no_dose_density_is_multiplied_by_more_than_gamma() -> None:
    """The doses' joint frequencies, at every bedside severity, against their mean over it."""
    n = 400_000
    assert SimulatorConfig().gamma == 1.0
    assert SimulatorConfig(confounding=0.5).gamma < CONFOUNDED.gamma
    counts = {}
    for bedside in (-1.0, 0.0, 1.0):
        doses = ask(CONFOUNDED, {**one_chart(n), BEDSIDE: np.full(n, bedside)}, seed=6)
        cells = pd.cut(doses["iv_fluid"], [-1, 0, 400, 800, 1200, 2000]).cat.codes * 10
        cells += pd.cut(doses["vasopressor"], [-1, 0, 0.1, 0.2, 0.4, 1.5]).cat.codes
        counts[bedside] = cells.value_counts()
    table = pd.DataFrame(counts).fillna(0).query("`0.0` > 2000")
    assert len(table) >= 8
    noise = 1.0 + 5.0 / np.sqrt(table.min(axis=1))
    for one in counts:
        ratio = table[one] / table.mean(axis=1)
        assert (ratio < CONFOUNDED.gamma * noise).all()
        assert (ratio > 1.0 / CONFOUNDED.gamma / noise).all()
    assert (table[1.0] / table[-1.0]).max() > 1.5


def test_confounding_biases_the_naive_effect_of_fluid_on_death() -> None:
    """Adjusted for the chart, fluid looks deadlier than it is to analysts who cannot see u."""
    effect = {}
    for confounding in (0.0, 1.0):
        table = simulate(8000, 3, SimulatorConfig(confounding=confounding))
        stays = table.groupby("stay_id")
        died = table["stay_id"].map(stays["died"].last().astype("Float64")).astype(float)
        names = ["age", "comorbidity", "map", "spo2", "urine", "cvp", "sofa", "lactate", "step"]
        chart = table.groupby("stay_id")[names].ffill()
        chart = (chart - chart.mean()) / chart.std()
        rows = died.notna() & table["iv_fluid"].notna()
        columns = [np.ones(rows.sum()), *chart[rows].fillna(0).to_numpy().T]
        design = np.column_stack([*columns, table["iv_fluid"][rows] / 1000])
        effect[confounding] = np.linalg.lstsq(design, died[rows].to_numpy(), rcond=None)[0][-1]
    assert effect[1.0] > 1.4 * effect[0.0] > 0


def test_sites_practise_differently_on_the_same_chart(table: pd.DataFrame) -> None:
    mean = table.groupby("site")[list(DOSE_BOUNDS)].mean()
    assert mean["iv_fluid"]["A"] > 1.2 * mean["iv_fluid"]["F"]
    assert mean["vasopressor"]["A"] < 0.8 * mean["vasopressor"]["F"]
    n = 20_000
    liberal, strict = (ask(SimulatorConfig(), one_chart(n, site=s)) for s in (0.0, 5.0))
    assert liberal["iv_fluid"].mean() > strict["iv_fluid"].mean() + 50


def test_persons_keep_their_habits_for_a_shift() -> None:
    n = 4000
    chart = one_chart(n, cvp=8.0)
    none = {name: np.zeros(n) for name in DOSE_BOUNDS}
    clinicians, doses = Clinicians(SimulatorConfig(unsafe_share=0.0)), []
    for step in range(6):
        chart["step"] = np.full(n, float(step))
        doses.append(clinicians.act(step, chart, none, default_rng(step))["iv_fluid"])
    assert np.corrcoef(doses[3], doses[5])[0, 1] > 0.2
    assert abs(np.corrcoef(doses[2], doses[3])[0, 1]) < 0.08


def test_clinicians_go_on_filling_the_full_and_start_vasopressors_late(table: pd.DataFrame) -> None:
    full = (table["cvp"] >= 13) & (table["pf_ratio"] < 200)
    assert table["iv_fluid"][full].mean() > 300
    fresh = table.groupby("stay_id")["vasopressor"].shift().fillna(0.0) == 0.0
    started = table["vasopressor"][fresh] > 0
    pressure = table["map"][fresh]
    assert started[pressure.between(62, 65)].mean() < 0.3
    assert started[pressure < 50].mean() > 0.6


def test_fluid_rises_with_low_pressure_and_oliguria() -> None:
    n = 20_000
    usual = ask(SimulatorConfig(), one_chart(n, map=75.0, urine=400.0))["iv_fluid"].mean()
    low = ask(SimulatorConfig(), one_chart(n, map=55.0, urine=400.0))["iv_fluid"].mean()
    dry = ask(SimulatorConfig(), one_chart(n, map=75.0, urine=50.0))["iv_fluid"].mean()
    assert low > usual + 100
    assert dry > usual + 50


@pytest.mark.parametrize("share", [0.0, 0.03, 0.09])
def test_unsafe_acts_are_as_rare_as_set(share: float) -> None:
    n = 50_000
    chart = one_chart(n, map=85.0, urine=400.0, cvp=8.0)
    surge = (ask(SimulatorConfig(unsafe_share=share), chart)["vasopressor"] >= 0.5).mean()
    assert abs(surge - share / 3) < 5 * np.sqrt(share / 3 / n) + 1e-4


def test_the_denoised_clinicians_give_the_mean_or_the_median_dose() -> None:
    n = 200_000
    chart = one_chart(n)
    chart["site"] = default_rng(0).integers(0, 6, n).astype(float)
    none = {name: np.zeros(n) for name in DOSE_BOUNDS}
    doses = ask(SimulatorConfig(unsafe_share=0.0), chart)
    mean = DenoisedClinicians().act(0, chart, none, default_rng(0))
    middle = DenoisedClinicians(typical=True).act(0, chart, none, default_rng(0))
    for name, tolerance in (("iv_fluid", 10.0), ("vasopressor", 0.004)):
        assert abs(doses[name].mean() - mean[name][0]) < tolerance
        assert abs(doses[name].median() - middle[name][0]) < 2.5 * tolerance


def test_in_the_deadly_variant_clinicians_stay_inside_the_support_and_others_die() -> None:
    config = SimulatorConfig(variant="deadly", unsafe_share=0.3)
    ward, clinicians = Ward(3000, 1, config), Clinicians(config)
    for step in range(6):
        doses = clinicians.act(step, ward.charted, ward.previous_doses, default_rng(step))
        assert supported(ward.known, ward.previous_doses, doses)[ward.alive].all()
        greatest = support(ward.known, ward.previous_doses)["vasopressor"][1]
        reckless = ward.copy()
        over = {**doses, "vasopressor": np.full(3000, 1.5)}
        outcome = reckless.step(over)
        assert outcome.died[ward.alive & (greatest < 1.5)].all()
        ward.step(doses)
    assert ward.alive.mean() > 0.85
