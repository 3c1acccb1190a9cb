"""The behaviour benchmark writes every figure that the work package names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks import behaviour
from benchmarks._clinicians import LEVELS, dose_shares, first_pressor, mass_below
from ogsrl.sources.simulator import SimulatorConfig, simulate


def test_the_quick_benchmark_writes_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "behaviour.json"
    figures = behaviour.main(["--quick", "--json", str(file)])
    named = {
        *("ratio_min", "ratio_max", "ratio_steps_share", "gain_over_persistence"),
        *("gain_over_persistence_lo", "behaviour_ece", "fit_s"),
        *(f"marginal_mass_below_1_in_{n}" for n in ("20000", "1e6", "1e12")),
    }
    assert named <= set(figures)
    written = json.loads(file.read_text())["figures"]
    assert set(written) == set(figures)
    assert written["gain_over_persistence_lo"] > 0
    assert written["behaviour_ece"] < 0.15


def test_the_written_down_first_vasopressor_is_the_one_that_clinicians_give() -> None:
    config = SimulatorConfig()
    table = simulate(20_000, 11, config)
    first = table[(table["step"] == 0) & table["vasopressor"].notna()]
    chances = first_pressor(first, config)
    assert chances.shape == (len(first), LEVELS)
    assert chances.min() >= 0
    assert np.abs(chances.sum(1) - 1).max() < 1e-12
    given = np.abs(chances.mean(0) - dose_shares(first["vasopressor"]))
    assert given.max() < 0.005  # of all patients
    low, high = first["map"] < 55, first["map"] > 75
    for group in (low, high):  # and of those whom clinicians treat otherwise
        some = group.to_numpy()
        assert abs(chances[some, 0].mean() - (first["vasopressor"][group] == 0).mean()) < 0.015
    assert chances[low, 0].mean() < chances[high, 0].mean() - 0.3


def test_a_marginal_that_is_what_such_patients_get_has_no_rare_mass() -> None:
    config = SimulatorConfig()
    table = simulate(500, 12, config)
    first = table[table["step"] == 0]
    chances = first_pressor(first, config)
    own = float(np.mean([mass_below(row[None], row, 1 / 20_000) for row in chances]))
    anyone = mass_below(chances, dose_shares(table["vasopressor"]), 1 / 20_000)
    assert own < 0.002
    assert anyone > 0.03
