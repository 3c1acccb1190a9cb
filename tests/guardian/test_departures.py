"""Departures leave the data in the way that they say, and in no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ogsrl.guardian.departures import Departure, Seen, column, panel
from ogsrl.guardian.protocol import Rows
from ogsrl.preparation.history import History
from tests.guardian.cohorts import numeric, planted, rows, simulated

NAMES = {
    "random_doses": "dose",
    "another_patients_dose": "dose",
    "flipped_doses": "dose",
    "never_seen_combinations": "dose",
    "high_doses_to_wet_and_hypoxic": "dose",
    "sicker_than_seen": "state",
    "permuted_columns": "state",
    "new_site": "state",
    "sensor_noise": "noise",
}


@pytest.fixture(scope="module")
def history() -> History:
    return simulated()[0]["train"].history


@pytest.fixture(scope="module")
def cases() -> Rows:
    return Rows.of(simulated()[0]["validation"])


@pytest.fixture(scope="module")
def train() -> Rows:
    return Rows.of(simulated()[0]["train"])


@pytest.fixture(scope="module")
def departures(train: Rows, history: History) -> dict[str, Departure]:
    return {departure.name: departure for departure in panel(train, history)}


def applied(departure: Departure, cases: Rows, seed: int = 0) -> Rows:
    assert departure.apply is not None, departure.missing
    return departure.apply(cases, torch.Generator().manual_seed(seed))


def test_the_panel_holds_every_departure_and_a_simulated_cohort_can_have_each(
    departures: dict[str, Departure],
) -> None:
    assert {name: d.kind for name, d in departures.items()} == NAMES
    assert all(d.apply is not None for d in departures.values())


@pytest.mark.parametrize("name", list(NAMES))
def test_departures_are_pure(name: str, departures: dict[str, Departure], cases: Rows) -> None:
    states, doses = cases.states.clone(), cases.doses.clone()
    one, two = (applied(departures[name], cases) for _ in range(2))
    assert torch.equal(cases.states, states)
    assert torch.equal(cases.doses, doses)
    assert torch.equal(one.states, two.states)
    assert torch.equal(one.doses, two.doses)
    assert len(one) == len(one.patient) == len(one.doses) > 20
    assert torch.isfinite(one.states).all()
    assert one.doses.abs().max() <= 1


@pytest.mark.parametrize("name", [n for n, kind in NAMES.items() if kind == "dose"])
def test_departures_in_dose_leave_the_patient_as_she_is(
    name: str, departures: dict[str, Departure], cases: Rows
) -> None:
    made = applied(departures[name], cases)
    known = {tuple(state) for state in cases.states[:, :30].tolist()}
    assert all(tuple(state) in known for state in made.states[:, :30].tolist())


def test_flipped_doses_flip(
    departures: dict[str, Departure], cases: Rows, history: History
) -> None:
    made = applied(departures["flipped_doses"], cases)
    given = list(history.preparation.doses.values())
    for j, transform in enumerate(given):
        before = transform.inverse(cases.doses[:, j].numpy())
        after = transform.inverse(made.doses[:, j].numpy())
        assert (after[before == 0] == transform.high).all()
        order = np.argsort(before, kind="stable")
        assert (np.diff(after[order]) <= 1e-6).all()


def test_another_patients_dose_is_of_another_patient(departures: dict[str, Departure]) -> None:
    history_rows = rows(np.zeros((60, 1)), np.repeat([-0.5, 0.5], 30)[:, None], patients=60)
    made = Rows(history_rows.states, history_rows.doses, torch.arange(60) // 30)
    apply = departures["another_patients_dose"].apply
    assert apply is not None
    assert torch.equal(apply(made, torch.Generator().manual_seed(1)).doses, -made.doses)


def test_combinations_never_seen_were_never_seen(
    departures: dict[str, Departure], cases: Rows, train: Rows, history: History
) -> None:
    made = applied(departures["never_seen_combinations"], cases)

    def bands(doses: torch.Tensor) -> set[tuple[int, ...]]:
        return {tuple(row) for row in ((doses + 1) / 2 * 10).ceil().long().tolist()}

    assert not bands(made.doses) & bands(train.doses)


def test_every_dose_of_a_departure_can_be_given(
    departures: dict[str, Departure], cases: Rows, history: History
) -> None:
    for departure in departures.values():
        made = applied(departure, cases)
        for j, (name, transform) in enumerate(history.preparation.doses.items()):
            action = history.preparation.cohort.actions[name]
            given = transform.inverse(made.doses[:, j].numpy())
            assert action.increment is not None
            parts = given / action.increment
            assert np.abs(parts - parts.round()).max() < 1e-3, departure.name


def test_high_doses_go_to_the_wet_and_hypoxic(
    departures: dict[str, Departure], cases: Rows, train: Rows, history: History
) -> None:
    made = applied(departures["high_doses_to_wet_and_hypoxic"], cases)
    oxygen = history.preparation.states["spo2"].inverse(column(made, history, "spo2").numpy())
    assert oxygen.max() < 92
    third = torch.quantile(column(train, history, "fluid_total"), 2 / 3)
    assert column(made, history, "fluid_total").min() >= third - 1e-6
    assert made.doses[:, 0].min() >= 0.7


def test_the_sicker_are_sicker_than_every_training_row(
    departures: dict[str, Departure], cases: Rows, train: Rows, history: History
) -> None:
    seen = Seen.of(train, history)
    made = applied(departures["sicker_than_seen"], cases)
    sicker = (seen.harm(made) > seen.harm(train).max()).double().mean()
    assert sicker > 0.9  # those few whom plausible ranges hold back are not
    for name in seen.directions:
        made_of = history.preparation.states[name]
        values = made_of.inverse(column(made, history, name).numpy())
        assert values.min() >= made_of.low - 1e-3
        assert values.max() <= made_of.high + 1e-3


def test_permuted_columns_keep_each_columns_values(
    departures: dict[str, Departure], cases: Rows, history: History
) -> None:
    made = applied(departures["permuted_columns"], cases)
    for name in history.preparation.cohort.guardian.columns:
        before, after = (column(x, history, name).sort().values for x in (cases, made))
        assert torch.equal(before, after)
    pressure, lactate = (column(cases, history, n) for n in ("map", "lactate"))
    shuffled = [column(made, history, n) for n in ("map", "lactate")]
    assert abs(torch.corrcoef(torch.stack([pressure, lactate]))[0, 1]) > 0.2
    assert abs(torch.corrcoef(torch.stack(shuffled))[0, 1]) < 0.1


def test_noise_touches_sensors_alone(
    departures: dict[str, Departure], cases: Rows, history: History
) -> None:
    made = applied(departures["sensor_noise"], cases)
    moved = {
        name
        for name in history.preparation.cohort.guardian.columns
        if not torch.equal(column(made, history, name), column(cases, history, name))
    }
    assert {"map", "heart_rate", "lactate"} <= moved
    assert not moved & {"age", "ventilated", "fluid_total"}
    assert torch.equal(made.doses, cases.doses)


def test_a_new_site_is_off_by_the_same_for_all_its_patients(
    departures: dict[str, Departure], cases: Rows, history: History
) -> None:
    made = applied(departures["new_site"], cases)
    shift = column(made, history, "heart_rate") - column(cases, history, "heart_rate")
    found, counts = torch.unique((shift * 1e3).round(), return_counts=True)
    most = counts.sort(descending=True).values[:30].sum() / counts.sum()
    assert len(found) > 5
    assert most > 0.95  # 24 sites, rounding, and a few at a plausible limit


@pytest.mark.parametrize("kind", ["continuous", "ordinal"])
def test_what_a_cohort_lacks_is_named(kind: str) -> None:
    if kind == "continuous":
        history, size = numeric(2), 2
        made = rows(np.random.default_rng(0).normal(size=(400, 2)), np.zeros((400, 1)))
    else:
        history, size = (
            planted(
                {"ward": {"kind": "categorical", "levels": ["a", "b"]}},
                {"drug": {"kind": "ordinal", "levels": ["no", "yes"]}},
            ),
            1,
        )
        made = rows(np.arange(400)[:, None] % 2, (np.arange(400)[:, None] // 2 % 2) * 2.0 - 1)
    found = {departure.name: departure for departure in panel(made, history)}
    assert set(found) == set(NAMES)
    wet = found["high_doses_to_wet_and_hypoxic"]
    assert wet.apply is None
    assert "running total" in wet.missing
    assert "spo2" in wet.missing
    assert found["sicker_than_seen"].apply is None
    if kind == "ordinal":
        assert found["never_seen_combinations"].apply is None
        assert found["sensor_noise"].missing == "a guarded numeric observation"
        levels = set(applied(found["random_doses"], made).doses.flatten().tolist())
        assert levels == {-1.0, 1.0}
    for departure in found.values():
        if departure.apply is not None:
            assert applied(departure, made).states.shape[1] == size
