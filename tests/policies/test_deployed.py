"""What acts: nothing unsupported, no hazard, and the clinician where it defers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.actors import ConstantActor
from ogsrl.policies.deployed import NO_POLICY, NOT_A_NUMBER, NOT_CHARTED, Deployed
from ogsrl.preparation.history import History
from tests.guardian.cohorts import guarded, simulated


@pytest.fixture(scope="module")
def history() -> History:
    return simulated()[0]["train"].history


@pytest.fixture(scope="module")
def guardian() -> ChristoffelGuardian:
    return guarded()


@pytest.fixture(scope="module")
def fresh() -> Rows:
    return Rows.of(simulated()[0]["validation"])


def test_what_clinicians_do_is_ordered_as_it_was_given(
    history: History, guardian: ChristoffelGuardian, fresh: Rows
) -> None:
    doses = Deployed.of(None, guardian, history).judge(fresh.states, fresh.doses).doses
    near = (doses - fresh.doses).abs().amax(1) < 1e-5
    # clinicians may change a dose by more than a policy may
    assert float(near.float().mean()) > 0.9


def test_the_verdict_is_the_guardians_on_the_dose_as_ordered(
    history: History, guardian: ChristoffelGuardian, fresh: Rows
) -> None:
    deployed = Deployed.of(ConstantActor((0.4, -0.2)), guardian, history)
    decided = deployed.decide(fresh.states, torch.Generator())
    supported = guardian.supported(fresh.states, decided.doses)
    rules = deployed.rules(fresh.states, decided)
    blank = torch.tensor([rule == NOT_CHARTED for rule in rules])
    assert torch.equal(decided.deferred, ~supported | decided.hazard | blank)
    assert float(blank.float().mean()) < 0.01
    assert 0 < float(decided.deferred.float().mean()) < 1


def test_a_patient_of_whom_too_little_is_charted_is_left_to_the_clinician(
    history: History, guardian: ChristoffelGuardian, fresh: Rows
) -> None:
    deployed = Deployed.of(ConstantActor((0.0, -0.6)), guardian, history)
    before = deployed.decide(fresh.states, torch.Generator())
    watched, most = history.preparation.watched, history.preparation.most_gaps
    gaps = history.uncharted(fresh.states, watched).sum(1)
    assert 0 < most < len(watched)
    assert float((gaps > most).float().mean()) < 0.01, "patients like those it learned from"
    first = fresh.states[:, history.names.index("share(step)")] == 0
    blank = fresh.states[first].clone()
    for name in history.preparation.indicators:  # filled as a gap is, and looking like anybody
        fill = history.preparation.states[name].fill
        scaled = history.preparation.states[name].forward(np.array([fill or 0.0]))[0]
        for role in ("{}", "min({})", "max({})", "mean({})"):
            if role.format(name) in history.names:
                blank[:, history.names.index(role.format(name))] = float(scaled)
        for role in ("missing_{}", "since({})"):
            if role.format(name) in history.names:
                blank[:, history.names.index(role.format(name))] = 1.0
    supported = guardian.supported(blank, before.doses[first])
    assert float(supported.float().mean()) > 0.5, "the region alone lets a blank chart through"
    decided = deployed.decide(blank, torch.Generator())
    assert bool(decided.deferred.all())
    assert {*deployed.rules(blank, decided)} <= {NOT_CHARTED, "hazard:untreated_hypotension"}


@pytest.mark.parametrize("name", ["map", "spo2", "lactate", "urine"])
def test_what_was_never_charted_or_too_long_ago_gets_no_dose_however_full_the_rest_is(
    history: History, fresh: Rows, name: str
) -> None:
    plenty = Deployed.of(ConstantActor((0.0, -0.6)), None, history)
    longest, steps = history.preparation.longest_gaps[name], history.preparation.cohort.max_steps
    others = [n for n in history.names if n.startswith("since(") and n != f"since({name})"]
    step = (fresh.states[:, history.names.index("share(step)")] * steps).round()
    states = fresh.states[step > longest][:200].clone()
    states[:, [history.names.index(other) for other in others]] = 0.0
    for gap, deferred in ((0, False), (longest, False), (longest + 1, True), (steps, True)):
        states[:, history.names.index(f"missing_{name}")] = float(gap > 0)
        states[:, history.names.index(f"since({name})")] = gap / steps
        decided = plenty.decide(states, torch.Generator())
        assert bool((decided.deferred == deferred).all()), gap
        assert {*plenty.rules(states, decided)} == {NOT_CHARTED if deferred else None}


def test_a_hazard_that_hangs_on_what_was_never_charted_is_deferred(
    history: History, fresh: Rows
) -> None:
    nothing = Deployed.of(ConstantActor((-1.0, -1.0)), None, history)
    states = fresh.states[:200].clone()
    states[:, history.names.index("share(step)")] = 0.0  # later, nobody went so long without
    states[:, [history.names.index(n) for n in history.names if n.startswith("since(")]] = 0.0
    charted = nothing.decide(states, torch.Generator()).deferred
    states[:, history.names.index("since(map)")] = 1.0
    decided = nothing.decide(states, torch.Generator())
    assert float(charted.float().mean()) < 0.5
    untreated = (decided.doses == -1).all(1)
    assert float(untreated.float().mean()) > 0.5
    assert bool(decided.deferred[untreated].all()), "safe only at pressures not known"
    assert not bool(decided.hazard.any())
    assert {*nothing.rules(states, decided)} == {NOT_CHARTED, None}
    plenty = Deployed.of(ConstantActor((0.0, -0.6)), None, history)
    assert not bool(plenty.decide(states, torch.Generator()).deferred.any())


def test_a_hazard_is_deferred_though_the_data_support_it(history: History, fresh: Rows) -> None:
    nothing = Deployed.of(ConstantActor((-1.0, -1.0)), None, history)
    decided = nothing.decide(fresh.states, torch.Generator())
    chart = {
        name: history.preparation.states[name].inverse(
            fresh.states[:, history.names.index(name)].numpy()
        )
        for name in ("map", "cvp")
    }
    scales = history.preparation.doses.values()
    fluid, pressor = (s.inverse(decided.doses[:, j].numpy()) for j, s in enumerate(scales))
    untreated = (chart["map"] < 55) & (fluid <= 80) & (pressor == 0)
    dry = (chart["map"] <= 55) & (chart["cvp"] <= 5) & (fluid == 0)
    assert decided.hazard.tolist() == (untreated | dry).tolist()
    assert bool(untreated.any())
    beyond = decided.deferred & ~decided.hazard  # where pressures were never charted
    assert bool(decided.deferred[decided.hazard].all())
    assert float(beyond.float().mean()) < 0.01
    rules = nothing.rules(fresh.states, decided)
    told = {rule for rule, met in zip(rules, decided.hazard.tolist(), strict=True) if met}
    assert told
    assert all(rule and rule.startswith("hazard:") for rule in told)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_row_that_cannot_be_read_is_deferred_whichever_column_it_is(
    history: History, guardian: ChristoffelGuardian, fresh: Rows, guarded: bool
) -> None:
    deployed = Deployed.of(ConstantActor((0.4, -0.2)), guardian if guarded else None, history)
    states, doses = fresh.states[:60].clone(), fresh.doses[:60].clone()
    unread = history.names.index("comorbidity")  # the guardian does not look at it
    states[0, unread], states[1, history.names.index("map")] = torch.nan, torch.inf
    doses[2, 1] = torch.nan
    decided, clean = (deployed.judge(s, d) for s, d in ((states, doses), fresh_pair(fresh)))
    assert decided.deferred[:3].tolist() == [True] * 3
    assert deployed.rules(states, decided)[:3] == [NOT_A_NUMBER] * 3
    assert bool(torch.isnan(decided.doses[:3]).all())
    assert torch.equal(decided.deferred[3:], clean.deferred[3:])
    assert torch.equal(decided.doses[3:], clean.doses[3:])


def fresh_pair(fresh: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    return fresh.states[:60], fresh.doses[:60]


def test_no_policy_defers_always(
    history: History, guardian: ChristoffelGuardian, fresh: Rows
) -> None:
    nobody = Deployed.of(None, guardian, history)
    decided = nobody.decide(fresh.states, torch.Generator())
    assert bool(decided.deferred.all())
    assert set(nobody.rules(fresh.states, decided)) == {NO_POLICY}


def test_each_deferral_has_a_rule_and_nothing_else_has(
    history: History, guardian: ChristoffelGuardian, fresh: Rows
) -> None:
    deployed = Deployed.of(ConstantActor((0.9, 0.6)), guardian, history)
    decided = deployed.decide(fresh.states, torch.Generator())
    rules = deployed.rules(fresh.states, decided)
    assert [rule is not None for rule in rules] == decided.deferred.tolist()


def test_the_score_pulls_a_refused_dose_back(
    history: History, guardian: ChristoffelGuardian, fresh: Rows
) -> None:
    proposed = torch.tensor([0.9, 0.6]).repeat(len(fresh), 1).requires_grad_()
    decided = Deployed.of(None, guardian, history).judge(fresh.states, proposed)
    decided.score[decided.deferred].clip(max=5).sum().backward()
    assert proposed.grad is not None
    assert float(proposed.grad[decided.deferred].abs().sum()) > 0
