"""From logged stays to an estimate: ratios of doses, deferrals, and the ward's exact values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ogsrl.behaviour.doses import DoseGrid
from ogsrl.errors import EstimateError
from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.estimators import cwpdis, dr, pdis, wdr, wis
from ogsrl.evaluation.executed import Executed
from ogsrl.evaluation.fqe import fit_fqe
from ogsrl.evaluation.quantities import quantities
from ogsrl.evaluation.record import Record
from ogsrl.evaluation.records import Layout, fitted_values, records
from ogsrl.evaluation.smoothed import Smoothing, ratios
from ogsrl.preparation.tensors import StayTensors
from tests.evaluation.ward import GIVEN, STEPS, Chance, Ward, WardClinicians, acting, clinicians
from tests.guardian.cohorts import simulated
from tests.policies.clinicians import behaviour

NAMES = ("mortality", "value", "cost:ill", "cost:ever_ill", "refusal")
POLICIES: dict[str, tuple[float | None, Chance]] = {
    "treats": (1.0, lambda t, s: 1.0),
    "does nothing": (-1.0, lambda t, s: 0.0),
    "defers": (None, clinicians),
}
WARD_GRID = DoseGrid("a", "continuous", "identity", -1.0, 1.0, 0.0, 0, ())
FLUID = DoseGrid("fluid", "continuous", "identity", 0.0, 1000.0, 50.0, 0, ())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ward_log_b(stays: StayTensors, layout: Layout) -> torch.Tensor:
    chance = torch.tensor(GIVEN)[(stays.states[layout.row, 0] > 0).long()]
    given = stays.doses[layout.row, 0] > 0
    return torch.where(given, chance, 1 - chance).log()


def of_policy(stays: StayTensors, name: str) -> dict[str, Record]:
    layout = Layout.of(stays)
    deployed = acting(POLICIES[name][0], stays.history)
    executed = Executed.of(deployed, WardClinicians(), stays.states, 2, generator())
    smoothing, wanted = Smoothing([WARD_GRID], 0.2), quantities(stays, NAMES)
    return records(stays, layout, executed, ward_log_b(stays, layout), smoothing, wanted)


@pytest.fixture(scope="module")
def ward() -> Ward:
    return Ward.draw(30_000, 1)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("quantity", NAMES[:-1])
def test_estimates_of_the_ward_are_those_of_backward_induction(
    ward: Ward, policy: str, quantity: str
) -> None:
    record, known = (
        of_policy(ward.stays, policy)[quantity],
        ward.value(POLICIES[policy][1], quantity),
    )
    for estimator in (pdis, wis, cwpdis):
        terms = estimator.terms(record)
        error = float(terms.influence().square().sum().sqrt())
        assert error < 0.1
        assert abs(terms.estimate - known) < 4 * error, estimator.__name__


def test_who_always_defers_has_ratios_of_one_and_refuses_as_long_as_stays_last(ward: Ward) -> None:
    found = of_policy(ward.stays, "defers")
    assert bool((found["mortality"].ratio == 1).all())
    lived = float(found["refusal"].inside.sum()) / len(found["refusal"]) / STEPS
    assert pdis.terms(found["refusal"]).estimate == pytest.approx(lived)
    assert pdis.terms(of_policy(ward.stays, "treats")["refusal"]).estimate == 0


def test_a_death_s_step_is_in_the_record(ward: Ward) -> None:
    record = of_policy(ward.stays, "defers")["mortality"]
    last = record.inside.long().sum(1) - 1
    paid = record.paid[torch.arange(len(record)), last]
    assert float(record.paid.sum()) == float(paid.sum()) > 0


def test_censored_stays_are_left_out_and_counted(ward: Ward) -> None:
    cut = ward.censored(3)
    layout = Layout.of(cut)
    begun = len(torch.unique(cut.stay[cut.decision]))
    assert layout.censored > 1000
    assert len(layout.patient) == begun - layout.censored
    assert not bool(cut.terminal[cut.stay == cut.stay[~cut.decision][0]].any())
    lost = replace(cut, terminal=torch.zeros_like(cut.terminal))
    with pytest.raises(EstimateError, match="known end"):
        Layout.of(lost)


def test_fitted_values_of_the_ward_take_scatter_away(ward: Ward) -> None:
    few, train = Ward.draw(2_000, 5).stays, Ward.draw(4_000, 6).stays
    params = FqeParams(
        fits=1, networks=1, hidden=24, start_steps=100, steps=900, batch_size=256,
        learning_rate=2e-3, dose_weight=1,
    )  # fmt: skip
    deployed = acting(1.0, few.history)
    fqe = fit_fqe(train, {"treats": deployed}, WardClinicians(), params, generator(), names=NAMES)
    layout, smoothing = Layout.of(few), Smoothing([WARD_GRID], 0.2)
    executed = Executed.of(deployed, WardClinicians(), few.states, 2, generator())
    fitted = fitted_values(
        fqe, "treats", few, layout, executed, WardClinicians(), smoothing, generator()
    )
    log_b, wanted = ward_log_b(few, layout), quantities(few, NAMES)
    record = records(few, layout, executed, log_b, smoothing, wanted, fitted)["mortality"]
    known = ward.value(POLICIES["treats"][1], "mortality")
    spread = {
        module: float(module.terms(record).influence().square().sum().sqrt())
        for module in (wis, dr, wdr)
    }
    assert spread[wdr] < spread[wis]
    for estimator in (dr, wdr):
        assert abs(estimator.terms(record).estimate - known) < 4 * spread[estimator]


# doses


def test_the_kernel_is_a_density_of_the_log_dose_between_the_bounds() -> None:
    logs = torch.linspace(math.log(50), math.log(1000), 20_001, dtype=torch.float64)
    doses = FLUID.scaled(logs[1:-1])[:, None].float()
    for centre in (60.0, 400.0, 980.0):
        executed = FLUID.scaled(torch.tensor([centre]).double().log()).float().expand(len(doses), 1)
        density = Smoothing([FLUID], 0.25).log_density(executed, doses).exp()
        assert float(density.mean()) * math.log(20) == pytest.approx(1, abs=1e-3)


def test_zero_and_maximum_are_met_exactly_or_not_at_all() -> None:
    doses = torch.tensor([[-1.0], [1.0], [0.0]])
    found = Smoothing([FLUID], 0.25).log_density(doses.repeat(3, 1), doses.repeat_interleave(3, 0))
    assert torch.isfinite(found).view(3, 3).tolist() == torch.eye(3).bool().tolist()
    assert found[0] == found[4] == 0


def test_drawn_doses_are_spread_as_the_kernel_says() -> None:
    smoothing = Smoothing([FLUID], 0.3)
    executed = FLUID.scaled(torch.tensor([300.0]).double().log()).float().expand(40_000, 1)
    logs = FLUID.log(smoothing.drawn(executed, generator())[:, 0].double())
    assert float(logs.mean()) == pytest.approx(math.log(300), abs=0.01)
    assert float(logs.std()) == pytest.approx(0.3, abs=0.01)
    near = FLUID.scaled(torch.tensor([990.0]).double().log()).float().expand(2_000, 1)
    assert float(smoothing.drawn(near, generator()).max()) <= 1
    kept = torch.tensor([[-1.0], [1.0]])
    assert torch.equal(smoothing.drawn(kept, generator()), kept)


@pytest.mark.parametrize("dose", [-1.0, 0.1, 0.4])
def test_ratios_to_what_clinicians_are_drawn_to_give_average_one(dose: float) -> None:
    b = behaviour()
    stays = simulated()[0]["validation"]
    states = stays.states[stays.decision][:1].expand(60_000, -1)
    logged = b.sample(states, generator(1))
    executed = torch.full((1, len(states), logged.shape[1]), dose)
    refused = torch.zeros(1, len(states), dtype=torch.bool)
    grids = b.known.marginal.grids
    found = ratios(
        Executed(executed, refused), logged, b.log_prob(states, logged), Smoothing(grids, 0.4)
    )
    error = float(found.std()) / len(found) ** 0.5
    assert float(found.mean()) == pytest.approx(1, abs=4 * error + 0.02)


def test_what_b_never_gives_is_believed_of_nobody() -> None:
    executed = Executed(torch.zeros(1, 2, 1), torch.tensor([[False, True]]))
    found = ratios(
        executed, torch.zeros(2, 1), torch.full((2,), -torch.inf), Smoothing([FLUID], 0.2)
    )
    assert found.tolist() == [0.0, 1.0]
