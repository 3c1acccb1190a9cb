"""Clinical measures on planted stays: known answers, degenerate policies, few patients untold."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ogsrl.errors import EstimateError
from ogsrl.evaluation.clinical import ClinicalParams, measure, tolerances
from ogsrl.evaluation.clustered import SHARE, Steps, interval
from ogsrl.evaluation.differing import most_different
from ogsrl.evaluation.executed import Executed
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.tensors import StayTensors
from tests.evaluation.planted import (
    STEPS,
    Proposes,
    as_given,
    gives,
    layout,
    measured,
    nobody,
    ordinary,
    scaled,
)
from tests.evaluation.ward import Ward, acting
from tests.guardian.cohorts import guarded, planted, simulated
from tests.policies.steered import Place

# known answers


def test_a_policy_that_does_what_clinicians_do_agrees_with_them_everywhere() -> None:
    found = measured(ordinary(), as_given(ordinary()))
    assert found.concordance.estimate == 1
    assert found.concordance.low is not None
    assert 0.8 < found.concordance.low < 1
    for use in found.doses.values():
        for beside in (use.mean, use.change, use.change_scaled):
            assert beside.policy.estimate == beside.clinicians.estimate
            assert beside.difference.estimate == 0
    assert found.intensified.policy == found.intensified.clinicians


def test_known_numbers_of_the_clinicians() -> None:
    found = measured(ordinary(), as_given(ordinary())).plain()
    assert found["doses.fluid.mean.clinicians.estimate"] == pytest.approx(375)
    assert found["doses.fluid.change.clinicians.estimate"] == pytest.approx((100 + 200 + 400) / 3)
    assert found["doses.fluid.change_scaled.clinicians.estimate"] == pytest.approx(1.4 / 3)
    assert found["doses.pressor.zero.clinicians.estimate"] == 0.75
    # unsafe at 60 and 50: fluid rises at both, the pressor never falls
    assert found["intensified.clinicians.estimate"] == 1
    assert found["intensified_by_constraint.hypotension.clinicians.rows"] == 60
    assert found["deferred_steps.estimate"] == 0


def test_more_of_one_dose_and_less_of_another_is_not_intensified() -> None:
    stays = ordinary()
    fluid = np.where(stays.step == 3, 450, 300)  # before: 0, 100, 200, 400
    traded = gives(stays, scaled(fluid, 0.0))
    assert measured(stays, traded).intensified.policy.estimate == 1
    last = torch.where(stays.step[:, None] == 3, torch.tensor([500.0, 0.3]), stays.last_given)
    stays = replace(stays, last_given=last)
    assert measured(stays, traded).intensified.policy.estimate == 0.5
    kept = measured(stays, as_given(stays))
    assert kept.intensified_safe.clinicians.estimate == 1


def test_nothing_is_known_to_have_been_given_before_the_first_step() -> None:
    stays = ordinary()
    states, doses = stays.states.clone(), stays.doses.clone()
    states[stays.step == 0] = 50.0
    doses[stays.step == 0] = scaled(1000, 1.0)
    begun = replace(stays, states=states, doses=doses)
    found = measured(begun, as_given(begun))
    later = int(((states[:, 0] < 65) & (stays.step > 0)).sum())
    assert found.intensified.clinicians.rows == later == 60
    assert found.concordance.rows == 120


def test_what_few_patients_share_is_not_had_from_all_others() -> None:
    stays = ordinary(40)
    safe = stays.states.clone()
    safe[stays.stay >= 5] = 90.0  # five patients alone are ever unsafe
    found = measured(replace(stays, states=safe), as_given(stays))
    assert found.intensified.policy.estimate is found.intensified_safe.policy.rows is None


def test_agreement_is_within_one_increment_or_as_asked() -> None:
    stays = ordinary()
    near = gives(stays, scaled(stays.given[:, 0].numpy() + 50, stays.given[:, 1].numpy()))
    far = gives(stays, scaled(stays.given[:, 0].numpy() + 60, stays.given[:, 1].numpy()))
    assert measured(stays, near).concordance.estimate == 1
    found = measured(stays, far)
    assert found.concordance.estimate == found.concordance_by_dose["fluid"].estimate == 0
    assert found.concordance_by_dose["pressor"].estimate == 1
    wide = ClinicalParams(tolerance={"fluid": 60})
    assert measured(stays, far, params=wide).concordance.estimate == 1
    assert tolerances(layout().preparation.cohort) == {"fluid": 50, "pressor": 0.05}
    with pytest.raises(EstimateError, match="vasopresin is no dose of this cohort: fluid, press"):
        measured(stays, far, params=ClinicalParams(tolerance={"vasopresin": 1}))


def test_a_planted_hazard_is_seen_and_one_without_its_column_is_named() -> None:
    stays = ordinary()
    found = measured(stays, gives(stays, scaled(100, 0.0))).hazards
    # the pressure is under 55 at the last of four steps alone: clinicians gave a pressor there
    assert found["untreated"].never is False
    assert found["untreated"].steps.policy.estimate == 0.25
    assert found["untreated"].steps.clinicians.estimate == 0
    assert found["untreated"].possible.policy.estimate == 1
    assert found["untreated"].possible.policy.rows == 30
    # never above 90: no dose would have been the hazard
    assert found["filled"].never
    assert found["filled"].possible.policy.estimate is None
    assert found["venous"].missing == ("cvp",)
    assert found["venous"].never is None
    told = measured(stays, as_given(stays))
    assert told.not_evaluable == {"venous": ("cvp",)}
    assert told.plain()["hazards.venous.evaluable"] == 0
    assert told.hazards["untreated"].never


def test_distributions_hold_every_step_once() -> None:
    stays = ordinary()
    doses = torch.stack([scaled(0, 0.0).expand(120, 2), scaled(1000, 0.5).expand(120, 2)])
    executed = Executed(doses, torch.zeros(2, 120, dtype=torch.bool))
    fluid, pressor = measured(stays, executed).distributions()
    for one in (fluid, pressor):
        for who in ("policy", "clinicians"):
            shares = [b[who]["estimate"] for b in one["bins"] if b[who] is not None]
            assert sum(shares) == pytest.approx(1)
    assert fluid["bins"][0]["policy"]["estimate"] == 0.5
    assert fluid["bins"][0]["clinicians"]["estimate"] == 0
    assert fluid["bins"][-1]["policy"]["estimate"] == 0.5
    assert len(fluid["bins"]) == len(fluid["edges"])
    assert fluid["zero_bin"]


def test_the_plane_of_doses_holds_what_is_recommended_and_what_was_given_there() -> None:
    stays = ordinary()
    deferred = stays.step == 3
    found = measured(stays, gives(stays, scaled(100, 0.1), deferred)).planes
    ours, theirs = found["policy"], found["clinicians"]
    assert [one["steps"] for one in ours["cells"]] == [30 * 3]
    assert sorted(one["steps"] for one in theirs["cells"]) == [30, 30, 30]
    assert {one["y"] for one in theirs["cells"]} == {0}  # before the last step no pressor
    assert measured(stays, gives(stays, scaled(100, 0.1), deferred | ~deferred)).planes == {}
    few = measured(ordinary(9), gives(ordinary(9), scaled(100, 0.1))).planes
    assert (few["policy"]["cells"], few["policy"]["steps_suppressed"]) == ([], 36)


def test_draws_of_a_policy_count_as_parts_of_a_step() -> None:
    stays = ordinary()
    doses = torch.stack([stays.doses, scaled(0, 0.0).expand(120, 2)])
    deferred = torch.zeros(2, 120, dtype=torch.bool)
    found = measured(stays, Executed(doses, deferred))
    # none is within 50 mL of what was given at any step
    assert found.concordance.estimate == 0.5
    assert found.concordance.rows == 120
    deferred[1] = True
    found = measured(stays, Executed(doses, deferred))
    assert found.concordance.estimate == 1
    assert found.deferred_steps.estimate == found.deferred_stays.estimate == 0.5


def test_dynamics_say_what_to_expect_of_both_doses() -> None:
    place = Place(planted({"low": {"plausible": [0, 200]}}, {"a": {"bounds": [-1, 1]}}))

    class Model:
        """Unsafe next by (1 + scaled pressor) / 2."""

        def step(
            self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator
        ) -> Any:
            return place.step(states.expand(-1, 2), doses[:, 1:], generator)

    stays = ordinary()
    found = measured(stays, gives(stays, scaled(0, 0.25)), model=Model()).predicted_unsafe
    assert found["hypotension"].policy.estimate == pytest.approx(0.25)
    assert found["hypotension"].clinicians.estimate == 0  # the last step has no next row
    assert found["hypotension"].policy.rows == 90
    assert not measured(stays, as_given(stays)).predicted_unsafe


# degenerate answers


def test_who_always_defers_agrees_with_nobody_and_does_nothing() -> None:
    stays = ordinary()
    everywhere = torch.ones(len(stays.step), dtype=torch.bool)
    executed = gives(stays, stays.doses, everywhere)
    generator = torch.Generator().manual_seed(0)
    found = measure(stays, executed, nobody(stays), generator)
    assert found.concordance.estimate is None
    assert found.intensified.policy.estimate is found.intensified.clinicians.estimate is None
    assert found.doses["fluid"].mean.policy.estimate is None
    assert found.hazards["untreated"].never is None
    assert found.deferred_steps.estimate == found.deferred_stays.estimate == 1
    assert {name: one.estimate for name, one in found.rules.items()} == {"no_policy": 1}


def test_rules_say_why_and_add_up_to_what_is_deferred() -> None:
    stays = ordinary()
    careless = Deployed.of(Proposes(scaled(0, 0.0)), None, stays.history)
    generator = torch.Generator().manual_seed(0)
    decided = careless.decide(stays.states, generator)
    executed = gives(stays, decided.doses, decided.deferred)
    found = measure(stays, executed, careless, generator)
    assert {name: one.estimate for name, one in found.rules.items()} == {"hazard:untreated": 0.25}
    assert found.deferred_steps.estimate == 0.25
    assert found.deferred_stays.estimate == 1
    assert found.hazards["untreated"].never
    assert found.hazards["untreated"].possible.policy.estimate is None
    assert found.concordance.rows == 90


# privacy and uncertainty


def test_fewer_than_ten_patients_are_not_told() -> None:
    few = ordinary(9)
    for name, value in measured(few, as_given(few)).plain().items():
        told = name.startswith("tolerance") or name.endswith(("evaluable", "never"))
        assert told or value is None, name


def test_what_clinicians_did_to_few_patients_is_not_told_nor_the_difference() -> None:
    stays = ordinary(40)
    given = stays.doses.clone()
    some = (stays.stay < 3) & (stays.step == 3)
    given[some] = scaled(800, 0.0)
    stays = replace(stays, doses=given)
    use = measured(stays, gives(stays, scaled(100, 0.1))).hazards["untreated"]
    assert use.steps.clinicians.estimate is use.steps.difference.estimate is None
    assert use.steps.policy.estimate == 0


def test_everything_told_is_a_number_or_none_and_in_its_interval() -> None:
    stays = simulated()[0]["validation"]
    deployed = Deployed.of(Proposes(torch.tensor([-0.5, -0.8])), guarded(), stays.history)
    generator = torch.Generator().manual_seed(0)
    decided = deployed.decide(stays.states, generator)
    executed = Executed(decided.doses[None], decided.deferred[None])
    measures = measure(stays, executed, deployed, generator)
    found = measures.plain()
    json.dumps([found, measures.distributions()], allow_nan=False)
    for name in (n.removesuffix(".estimate") for n in found if n.endswith(".estimate")):
        estimate, low, high = (found[f"{name}.{field}"] for field in ("estimate", "lo", "hi"))
        if estimate is not None and low is not None and high is not None:
            assert low <= estimate <= high, name
    assert all(use.never for use in measures.hazards.values())
    rules = [one.estimate for one in measures.rules.values()]
    told = sum(rule for rule in rules if rule is not None)
    assert 0 < told <= measures.deferred_steps.estimate
    # what is not told of is of few patients, and of more rules than one
    assert rules.count(None) != 1


def test_the_order_of_stays_changes_nothing() -> None:
    stays = ordinary(40)
    rng = np.random.default_rng(0)
    stays = replace(stays, states=torch.from_numpy(rng.uniform(40, 100, (160, 1))).float())
    doses = scaled(rng.choice([0, 100, 500], 160), rng.choice([0, 0.2, 1], 160))
    deferred = torch.from_numpy(rng.random(160) < 0.2)
    rows = torch.randperm(40)[:, None] * STEPS + torch.arange(STEPS)
    rows = rows.flatten()
    moved = {
        field.name: getattr(stays, field.name)[rows]
        for field in fields(StayTensors)
        if field.name != "history"
    }
    other = StayTensors(stays.history, **moved)
    one = measured(stays, gives(stays, doses, deferred)).plain()
    two = measured(other, gives(other, doses[rows], deferred[rows])).plain()
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert two[name] == (value if value is None else pytest.approx(value)), name


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(0), 0
    patient = torch.arange(60).repeat_interleave(12)
    for _ in range(400):
        chance = rng.beta(0.5, 4.5, 60)  # .1 on average, and patients differ much
        flags = torch.from_numpy(rng.random((60, 12)) < chance[:, None])
        found = Steps(patient, torch.ones(1, 720), 0.95).measured(flags.flatten())
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.1 <= found.high
    assert 0.92 <= held / 400 <= 0.98
    assert interval(1.0, 0.0, 1000, 0.95, SHARE)[0] == pytest.approx(1 - math.log(40) / 1000)


# the stays where they differ most


def test_the_stays_that_differ_most_come_first_and_whole() -> None:
    stays = ordinary(30)
    doses, deferred = stays.doses.clone(), torch.zeros(120, dtype=torch.bool)
    doses[stays.stay == 7] = scaled(1000, 1.0)
    doses[stays.stay == 11] = scaled(500, 0.5)
    doses[stays.stay == 20] = scaled(1000, 1.0)
    deferred[(stays.stay == 20) & (stays.step > 1)] = True  # two steps are too few
    deferred[(stays.stay == 7) & (stays.step == 0)] = True
    ids = pd.Series([f"stay-{int(k)}" for k in stays.stay])
    shown = most_different(stays, gives(stays, doses, deferred), ids, count=3)
    assert list(shown["stay_id"].unique()[:2]) == ["stay-7", "stay-11"]
    assert "stay-20" not in set(shown["stay_id"])
    assert shown["step"].tolist() == [0, 1, 2, 3] * 3
    row = shown.iloc[3]
    assert row[["low", "given_fluid", "given_pressor"]].tolist() == [50, 800, 0.5]
    assert row[["recommended_fluid", "recommended_pressor"]].tolist() == [1000, 1]
    assert shown["deferred"].iloc[0]
    assert shown.iloc[0][["recommended_fluid", "recommended_pressor"]].isna().all()
    nobody_shown = most_different(stays, gives(stays, doses, ~torch.zeros_like(deferred)), ids)
    assert nobody_shown.empty
    with pytest.raises(EstimateError, match="those of the same frame"):
        most_different(stays, as_given(stays), ids[:5])


def test_a_cohort_without_constraints_or_hazards_is_measured_too() -> None:
    stays = Ward.draw(50, 2).stays
    found = measure(
        stays, as_given(stays), acting(1.0, stays.history), torch.Generator().manual_seed(0)
    )
    assert found.concordance.estimate == 1
    assert found.hazards == {}
    assert found.doses["a"].zero is None
