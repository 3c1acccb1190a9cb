"""A drawn step is a row as it would be charted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ogsrl.dynamics.chart import Chart
from ogsrl.dynamics.config import TooFewPatients
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.outcomes import outcomes
from ogsrl.dynamics.rollouts import expected_ahead
from ogsrl.dynamics.saved import save_too_few
from ogsrl.errors import ModelError
from ogsrl.modeldir import load_model, save_model
from ogsrl.preparation.history import History
from tests.dynamics.conftest import Line
from tests.dynamics.worlds import MAX_STEPS


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def firsts(line: Line) -> torch.Tensor:
    return line.fresh.states[line.fresh.step == 0]


def test_a_running_sum_is_the_exact_sum_of_doses(line: Line) -> None:
    states, dynamics = firsts(line)[:200], line.dynamics
    transform = dynamics.history.preparation.doses["fluid"]
    column = dynamics.history.preparation.states["total"]
    rng, total = np.random.default_rng(0), np.zeros(len(states))
    for _ in range(MAX_STEPS):
        dose = 50.0 * rng.integers(0, 11, len(states))
        doses = torch.from_numpy(transform.forward(dose))[:, None]
        states = dynamics.step(states, doses, generator()).states
        total += dose
        shown = column.inverse(states[:, dynamics.layout.current["total"]].numpy())
        assert shown.tolist() == total.tolist()


def test_statics_stay_and_constants_stay(line: Line) -> None:
    states = firsts(line)
    drawn = line.dynamics.step(states, torch.zeros(len(states), 1), generator())
    for name in ("age", "still"):
        place = line.dynamics.layout.current[name]
        assert torch.equal(drawn.states[:, place], states[:, place])


def test_what_is_charted_together_is_missing_together_and_carried(line: Line) -> None:
    states = firsts(line)
    drawn = line.dynamics.step(states, torch.zeros(len(states), 1), generator())
    lab, twin = drawn.missing.T
    assert torch.equal(lab, twin)
    assert float(lab.mean()) == pytest.approx(0.5, abs=0.04)
    place = line.dynamics.layout.current["lab"]
    gap = lab > 0
    assert torch.equal(drawn.observed[gap, place], states[gap, place])
    assert float((drawn.observed[~gap, place] != states[~gap, place]).float().mean()) > 0.9


def test_draws_are_rounded_as_charted_and_within_what_was_seen(line: Line) -> None:
    states = firsts(line)
    drawn = line.dynamics.step(states, torch.zeros(len(states), 1), generator())
    i = line.dynamics.layout.numeric.index("lab")
    chart = line.dynamics.fitted.chart
    assert (float(chart.up[i]), float(chart.down[i])) == (1, 10)
    column = line.dynamics.history.preparation.states["lab"]
    place = line.dynamics.layout.current["lab"]
    shown = column.inverse(drawn.observed[drawn.missing[:, 0] == 0, place].numpy())
    np.testing.assert_allclose(shown * 10, np.round(shown * 10), atol=1e-3)
    assert shown.min() >= float(chart.low[i]) - 1e-4
    assert shown.max() <= float(chart.high[i]) + 1e-4


def test_a_saturation_of_91_6_shows_as_92() -> None:
    chart = Chart(*(torch.tensor([value]) for value in (40.0, 100.0, 1.0, 1.0)))
    assert chart.show(torch.tensor([[91.6], [91.4], [101.2]])).tolist() == [[92.0], [91.0], [100.0]]


def test_noise_of_columns_that_move_together_is_drawn_together(line: Line) -> None:
    state = firsts(line)[:1].expand(4000, -1)
    drawn = line.dynamics.step(state, torch.zeros(4000, 1), generator())
    charted = drawn.missing[:, 0] == 0
    both = [line.dynamics.layout.current[name] for name in ("lab", "twin")]
    values = drawn.observed[charted][:, both]
    assert float(torch.corrcoef(values.T)[0, 1]) > 0.9


def test_who_lives_at_the_last_step_reaches_the_horizon(line: Line) -> None:
    states = line.fresh.states[line.fresh.step == MAX_STEPS - 1]
    drawn = line.dynamics.step(states, torch.zeros(len(states), 1), generator())
    assert bool(drawn.ended.all())
    assert float(drawn.horizon.float().mean()) > 0.5
    assert not bool(drawn.discharged.any())
    assert float(drawn.p_discharge.max()) == 0
    earlier = line.dynamics.step(firsts(line), torch.zeros(len(firsts(line)), 1), generator())
    assert not bool(earlier.horizon.any())


def test_ends_come_as_often_as_their_chance_says(line: Line) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    drawn = line.dynamics.step(truth.states, truth.doses, generator())
    died, chance = float(drawn.died.float().mean()), float(drawn.p_death.mean())
    assert died == pytest.approx(chance, rel=0.15)
    assert 0.01 < float(drawn.discharged.float().mean()) < 0.08


def test_a_member_says_the_same_alone_as_among_others(line: Line) -> None:
    states, doses = firsts(line), torch.zeros(len(firsts(line)), 1)
    together = line.dynamics.heads(states, doses)
    for member in range(line.dynamics.members):
        alone = line.dynamics.alone(member).heads(states, doses)
        torch.testing.assert_close(alone.mean[0], together.mean[member])
        torch.testing.assert_close(alone.ends[0], together.ends[member])
    assert float((together.mean[0] - together.mean[1]).abs().max()) > 1e-3


def test_asking_one_member_a_row_draws_what_asking_all_draws(line: Line) -> None:
    states, doses = firsts(line), torch.zeros(len(firsts(line)), 1)
    member = torch.arange(len(states)) % 3
    one = line.dynamics.step(states, doses, generator(), member, ensemble=False)
    every = line.dynamics.step(states, doses, generator(), member)
    torch.testing.assert_close(one.states, every.states, atol=2e-3, rtol=1e-3)
    assert one.unsafe is None
    assert every.unsafe is not None


def test_a_step_ahead_is_the_prediction(line: Line) -> None:
    states, doses = firsts(line)[:50], torch.zeros(50, 1)
    ahead = expected_ahead(line.dynamics, states, doses[:, None], (1,), generator(), 12)[1]
    i = line.dynamics.layout.numeric.index("x")
    predicted = line.dynamics.predict(states, doses)
    expected = predicted.scaled_mean[:, predicted.names.index("x")]
    torch.testing.assert_close(ahead[:, i], expected, atol=2e-3, rtol=0)


def test_saved_and_loaded_dynamics_say_the_same(line: Line, tmp_path: Path) -> None:
    line.dynamics.save(tmp_path / "dynamics")
    loaded = Dynamics.load(tmp_path / "dynamics", line.dynamics.history)
    states, doses = firsts(line), torch.zeros(len(firsts(line)), 1)
    one, other = (d.predict(states, doses) for d in (line.dynamics, loaded))
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.unsafe["low"], other.unsafe["low"])


def test_another_layout_is_refused_at_loading(line: Line, tmp_path: Path) -> None:
    line.dynamics.save(tmp_path / "dynamics")
    longer = History(line.dynamics.history.preparation, 2, True)
    with pytest.raises(ModelError, match="other state columns"):
        Dynamics.load(tmp_path / "dynamics", longer)


def test_too_few_patients_are_a_status_of_the_directory(line: Line, tmp_path: Path) -> None:
    save_too_few(tmp_path / "dynamics", 80)
    with pytest.raises(TooFewPatients, match="80 are needed"):
        Dynamics.load(tmp_path / "dynamics", line.dynamics.history)


@pytest.mark.parametrize("key", ["status", "form", "transforms", "states", "params"])
def test_dynamics_without_a_key_are_refused(line: Line, tmp_path: Path, key: str) -> None:
    line.dynamics.save(tmp_path / "dynamics")
    config, arrays = load_model(tmp_path / "dynamics", "dynamics")
    del config[key]
    save_model(tmp_path / "dynamics", "dynamics", config, arrays)
    with pytest.raises(ModelError, match="not those of this version"):
        Dynamics.load(tmp_path / "dynamics", line.dynamics.history)


@pytest.mark.parametrize("name", ["slopes", "chart.low"])
def test_dynamics_without_an_array_are_refused(line: Line, tmp_path: Path, name: str) -> None:
    line.dynamics.save(tmp_path / "dynamics")
    config, arrays = load_model(tmp_path / "dynamics", "dynamics")
    del arrays[name]
    save_model(tmp_path / "dynamics", "dynamics", config, arrays)
    with pytest.raises(ModelError, match="not those of this version"):
        Dynamics.load(tmp_path / "dynamics", line.dynamics.history)


def test_a_value_that_is_no_number_is_refused_by_name(line: Line) -> None:
    states = firsts(line).clone()
    states[3, line.dynamics.layout.current["lab"]] = float("nan")
    with pytest.raises(ModelError, match=r"^lab: values that are no number"):
        line.dynamics.predict(states, torch.zeros(len(states), 1))
    doses = torch.full((len(states), 1), float("inf"))
    with pytest.raises(ModelError, match="fluid"):
        line.dynamics.step(firsts(line), doses, generator())


def test_a_missing_column_is_refused(line: Line) -> None:
    with pytest.raises(ModelError, match="columns"):
        line.dynamics.predict(firsts(line)[:, 1:], torch.zeros(len(firsts(line)), 1))


def test_another_scaling_or_other_levels_are_refused_at_loading(line: Line, tmp_path: Path) -> None:
    line.dynamics.save(tmp_path / "dynamics")
    made = line.dynamics.history.preparation
    moved = replace(made.states["x"], center=made.states["x"].center + 1)
    other = replace(made, states={**made.states, "x": moved})
    with pytest.raises(ModelError, match="not those it was fitted with"):
        Dynamics.load(tmp_path / "dynamics", History.of(other))
