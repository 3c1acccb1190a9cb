"""Fitted Q evaluation finds values that are known, for whoever acts."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from ogsrl.errors import ModelError
from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.fqe import WHOLE, Fqe, Sampling, first_decisions, fit_fqe
from ogsrl.evaluation.quantities import deaths, quantities, to_go
from ogsrl.preparation.tensors import StayTensors
from tests.evaluation.ward import STEPS, Chance, Ward, WardClinicians, acting, clinicians
from tests.guardian.cohorts import numeric, planted

SMALL = FqeParams(
    fits=2,
    networks=1,
    hidden=24,
    start_steps=100,
    steps=900,
    batch_size=256,
    learning_rate=2e-3,
    dose_weight=1,
)
NAMES = ("mortality", "value", "cost:ill", "cost:ever_ill", "refusal")
#: Who acts: name -> dose and chance of it by step and state.
POLICIES: dict[str, tuple[float | None, Chance]] = {
    "treats": (1.0, lambda t, s: 1.0),
    "does nothing": (-1.0, lambda t, s: 0.0),
    "defers": (None, clinicians),
}


@pytest.fixture(scope="module")
def ward() -> Ward:
    return Ward.draw(5_000, 1)


def fitted(
    stays: StayTensors,
    seed: int = 0,
    params: FqeParams = SMALL,
    sampling: Sampling = WHOLE,
) -> Fqe:
    policies = {name: acting(dose, stays.history) for name, (dose, _) in POLICIES.items()}
    generator = torch.Generator().manual_seed(seed)
    who = WardClinicians()
    return fit_fqe(stays, policies, who, params, generator, names=NAMES, sampling=sampling)


@pytest.fixture(scope="module")
def fqe(ward: Ward) -> Fqe:
    return fitted(ward.stays)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("quantity", NAMES[:-1])
def test_values_are_those_of_backward_induction(
    ward: Ward, fqe: Fqe, policy: str, quantity: str
) -> None:
    known = ward.value(POLICIES[policy][1], quantity)
    tolerance = 0.03 if quantity == "value" else 0.015  # value spans two units
    for fit in fqe.first_values[policy][quantity].mean(1).tolist():
        assert fit == pytest.approx(known, abs=tolerance)


def test_policies_are_further_apart_than_the_tolerance(ward: Ward) -> None:
    for quantity in NAMES[:-1]:
        low, high = sorted(ward.value(POLICIES[n][1], quantity) for n in list(POLICIES)[:2])
        assert high - low > 0.1, quantity


def test_who_always_defers_has_the_clinicians_observed_mean(ward: Ward, fqe: Fqe) -> None:
    stays = float(ward.stays.stay.max()) + 1
    seen = {
        "mortality": float(deaths(ward.stays).sum()) / stays,
        "cost:ill": float(ward.stays.costs[:, 0].sum()) / stays,
        "cost:ever_ill": float(ward.stays.costs[:, 1].sum()) / stays,
        "refusal": len(ward.stays.step) / STEPS / stays,
    }
    for quantity, mean in seen.items():
        value = fqe.first_values["defers"][quantity]
        assert float(value.mean()) == pytest.approx(mean, abs=0.015), quantity


def test_who_never_defers_refuses_nothing(fqe: Fqe) -> None:
    assert float(fqe.first_values["treats"]["refusal"].max()) < 0.01


def test_refusals_are_counted_where_they_happen() -> None:
    # no dose is a hazard for the ill: there the clinicians act
    hazard = {"untreated": {"expression": "x > 0 and a < 0"}}
    ward = Ward.draw(4_000, 2, hazards=hazard)
    found = fitted(ward.stays).first_values["does nothing"]

    def chance(t: int, s: int) -> float:
        return clinicians(t, s) if s else 0.0

    assert float(found["mortality"].mean()) == pytest.approx(
        ward.value(chance, "mortality"), abs=0.015
    )
    ill = float((ward.state[0] == 1).mean()) + ward.value(chance, "later steps ill")
    assert float(found["refusal"].mean()) == pytest.approx(ill / STEPS, abs=0.015)


def test_a_terminal_step_that_is_dropped_is_noticed(ward: Ward) -> None:
    s = ward.stays
    dropped = replace(s, decision=~s.terminal, terminal=torch.zeros_like(s.terminal))
    rows = dropped.decision.nonzero().squeeze(1)
    assert not bool(dropped.terminal[rows].any())
    found = fitted(dropped, params=SMALL.model_copy(update={"steps": 200}))
    known = ward.value(clinicians, "mortality")
    assert abs(float(found.first_values["defers"]["mortality"].mean()) - known) > 0.1


def test_stays_lost_from_sight_do_not_bias(ward: Ward) -> None:
    seen = ward.censored(3)
    lost = int((~seen.decision).sum())
    stays = int(seen.stay.max()) + 1
    assert 0.3 < lost / stays < 0.6
    known = ward.value(clinicians, "mortality")
    assert float(deaths(seen).sum()) / stays < known - 0.05  # deaths seen are too few
    found = fitted(seen).first_values["defers"]["mortality"]
    assert float(found.mean()) == pytest.approx(known, abs=0.03)


def test_logged_returns_add_up_and_censored_ones_are_not_known(ward: Ward) -> None:
    (cost,) = quantities(ward.stays, ["cost:ill"])
    total, known = to_go(ward.stays, cost)
    assert bool(known.all())
    first = first_decisions(ward.stays)
    assert float(total[first].sum()) == pytest.approx(float(ward.stays.costs[:, 0].sum()), rel=1e-5)
    seen = ward.censored(3)
    (mortality,) = quantities(seen, ["mortality"])
    _, known = to_go(seen, mortality)
    ended = torch.zeros(int(seen.stay.max()) + 1, dtype=torch.bool)
    ended[seen.stay[seen.terminal]] = True
    assert torch.equal(known, ended[seen.stay[seen.decision]])


def test_same_seed_same_bits_and_cold_fits_differ(ward: Ward) -> None:
    quick = SMALL.model_copy(update={"steps": 20, "start_steps": 5})
    one, two, other = (fitted(ward.stays, seed, quick) for seed in (4, 4, 5))
    assert torch.equal(one.answers.stack.flat, two.answers.stack.flat)
    assert not torch.equal(one.answers.stack.flat, other.answers.stack.flat)
    values = one.first_values["treats"]["mortality"]
    assert not torch.equal(values[0], values[1])


def test_values_of_other_patients_are_asked_of_the_same_fits(ward: Ward, fqe: Fqe) -> None:
    first = first_decisions(ward.stays)
    treated = torch.ones(len(first), 1)
    asked = fqe.value("treats", ward.stays.states[first], treated)
    assert torch.equal(asked["mortality"], fqe.first_values["treats"]["mortality"])
    with pytest.raises(ModelError, match="not among the policies"):
        fqe.value("nobody", ward.stays.states[first], treated)


def test_unknown_quantities_and_unreadable_states_are_refused(ward: Ward) -> None:
    with pytest.raises(ModelError, match="known: mortality"):
        quantities(ward.stays, ["survival"])
    with pytest.raises(ModelError, match="mortality is not known"):
        deaths(replace(ward.stays, history=numeric(2)))
    states = ward.stays.states.clone()
    states[:, 1] = torch.nan
    with pytest.raises(ModelError, match="not finite at gradient step 0"):
        fitted(replace(ward.stays, states=states))


def test_equal_policies_have_equal_values_for_luck_is_shared() -> None:
    ward = Ward.draw(300, 4)
    deployed = acting(POLICIES["treats"][0], ward.stays.history)
    few = SMALL.model_copy(update={"steps": 30, "start_steps": 10})
    generator = torch.Generator().manual_seed(3)
    found = fit_fqe(
        ward.stays, {"one": deployed, "same": deployed}, WardClinicians(), few, generator
    )
    for name, values in found.first_values["one"].items():
        assert torch.equal(values, found.first_values["same"][name]), name
        assert values.std(1).max() > 0, "its own fits differ"


def test_resampled_fits_are_as_far_apart_as_cohorts_are() -> None:
    ward = Ward.draw(300, 9)
    params = SMALL.model_copy(update={"fits": 12, "steps": 250})
    spread = {
        resample: float(
            fitted(ward.stays, 2, params, Sampling(resample=resample))
            .first_values["defers"]["mortality"]
            .mean(1)
            .std()
        )
        for resample in (False, True)
    }
    mean = ward.value(clinicians, "mortality")
    cohorts = (mean * (1 - mean) / 300) ** 0.5
    assert 0.5 * cohorts < spread[True] < 2 * cohorts
    assert spread[False] < 0.5 * spread[True]


def test_with_folds_a_patient_s_value_comes_from_fits_that_never_saw_them(ward: Ward) -> None:
    few = Ward.draw(60, 3).stays
    long = replace_params(steps=600, learning_rate=5e-3, start_steps=300)
    whole, crossed = (fitted(few, 0, long, Sampling(folds=k)) for k in (1, 4))
    first = first_decisions(few)
    died = to_go(few, quantities(few, ["mortality"])[0])[0]
    place = torch.full((len(few.step),), -1)
    place[few.decision.nonzero().squeeze(1)] = torch.arange(len(died))
    outcome = died[place[first]]

    def fit_to_outcome(one: Fqe) -> float:
        said = one.first_values["defers"]["mortality"].mean(0)
        return float(torch.corrcoef(torch.stack([said, outcome]))[0, 1])

    assert crossed.first_values["defers"]["mortality"].shape == (2, 60)
    assert fit_to_outcome(whole) > fit_to_outcome(crossed) + 0.1
    ward_s, known = fitted(ward.stays, 0, SMALL, Sampling(folds=2)), POLICIES["treats"][1]
    mean = float(ward_s.first_values["treats"]["mortality"].mean())
    assert mean == pytest.approx(ward.value(known, "mortality"), abs=0.02)


def test_fewer_patients_than_folds_are_refused() -> None:
    with pytest.raises(ModelError, match="3 patients cannot be parted into 5 folds"):
        fitted(Ward.draw(3, 3).stays, 0, replace_params(steps=1), Sampling(folds=5))


def test_stays_stand_beside_others_as_they_are(ward: Ward) -> None:
    few = Ward.draw(50, 3).stays
    many = ward.censored(3)
    both = few.beside(many)
    parts = few.transitions(), many.transitions()
    together = both.transitions()
    for field in fields(together):
        if field.name != "row":
            each = torch.cat([getattr(one, field.name) for one in parts])
            assert torch.equal(getattr(together, field.name), each), field.name
    assert torch.equal(together.row[len(parts[0].row) :], parts[1].row + len(few.states))
    assert not {*few.patient.tolist()} & {*both.patient[len(few.states) :].tolist()}
    assert int(both.stay.max()) == 50 + int(many.stay.max())
    died = [to_go(one, quantities(one, ["mortality"])[0])[0] for one in (few, many, both)]
    assert torch.equal(torch.cat(died[:2]), died[2])
    wider = planted({"x": {"plausible": [-1, 1]}}, {"a": {"bounds": [-2, 2]}})
    with pytest.raises(ModelError, match="prepared otherwise"):
        few.beside(replace(few, history=wider))


def test_every_network_is_fed_others_of_whom_nothing_is_asked(ward: Ward) -> None:
    few = Ward.draw(100, 3).stays
    sampled = (Sampling(True, 2, others=others) for others in (None, ward.stays))
    alone, helped = (
        fitted(few, 0, replace_params(fits=4), one).first_values["treats"]["mortality"]
        for one in sampled
    )
    assert helped.shape == alone.shape == (4, 100)
    assert float(helped.mean(1).std()) < 0.5 * float(alone.mean(1).std())
    known = ward.value(POLICIES["treats"][1], "mortality")
    assert float(helped.mean()) == pytest.approx(known, abs=0.03)


def replace_params(**changed: object) -> FqeParams:
    return SMALL.model_copy(update=changed)
