"""Who is put forward: feasible first, then the best bound; deadly shortcuts and deferring lose."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch

from ogsrl.dynamics.answers import Next
from ogsrl.errors import ModelError
from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.rollouts import Model, Rollouts
from ogsrl.policies.deployed import Deployed
from ogsrl.selection.choose import Candidate, Grounds, Selection, Verdict, select
from ogsrl.selection.config import SelectParams
from ogsrl.selection.report import describe, too_few_report
from ogsrl.selection.screen import second_model
from tests.dynamics.worlds import line_cohort, line_table, prepare
from tests.selection.line import (
    SMALL,
    Gives,
    LineClinicians,
    Steers,
    deployed,
    model,
    truth,
    validation,
)

PARAMS = SelectParams(
    finalists=3,
    fqe=FqeParams(
        fits=4,
        networks=1,
        hidden=24,
        steps=400,
        start_steps=100,
        batch_size=256,
        learning_rate=2e-3,
    ),
)
MAX_REFUSAL = 0.08


def candidates() -> dict[str, Candidate]:
    layout = validation().history
    acting = {
        "steers": Steers(layout),
        "kills": Gives(layout, 500.0),
        "nothing": Gives(layout, 0.0),
        "nobody": None,
        "clone": Gives(layout, 100.0),
    }
    return {
        name: Candidate(name, "bc" if name == "clone" else "ogsrl", 0, "last", deployed(actor))
        for name, actor in acting.items()
    }


def chosen_of(names: list[str], params: SelectParams = PARAMS, seed: int = 1) -> Selection:
    known, layout = candidates(), validation().history
    grounds = Grounds(validation(), LineClinicians(layout), model(), MAX_REFUSAL)
    generator = torch.Generator().manual_seed(seed)
    return select([known[name] for name in names], grounds, params, generator)


@pytest.fixture(scope="module")
def selection() -> Selection:
    return chosen_of(list(candidates()))


@pytest.fixture(scope="module")
def shortcuts() -> Selection:
    return chosen_of(["kills", "nothing", "nobody"])


def verdict(selection: Selection, name: str) -> Verdict:
    return next(one for one in selection.verdicts if one.candidate.name == name)


def test_the_policy_that_is_truly_better_is_chosen(selection: Selection) -> None:
    clinicians, steers = truth(None, None), truth(None, -0.2)
    assert steers["mortality"] < clinicians["mortality"] - 0.05
    assert steers["cost:low"] < 0.9 * clinicians["cost:low"]
    assert selection.chosen is not None
    assert selection.chosen.name == "steers"
    assert selection.status == "selected"
    assert verdict(selection, "steers").reason.startswith("chosen: the best upper bound of mort")


def test_its_numbers_are_the_truth_within_their_bounds(selection: Selection) -> None:
    judged, known = verdict(selection, "steers").judged, truth(None, -0.2)
    assert judged is not None
    assert judged.primary.estimate == pytest.approx(known["mortality"], abs=0.05)
    screened = verdict(selection, "steers").screened
    assert screened.mean("mortality") == pytest.approx(known["mortality"], abs=0.05)
    assert screened.mean("cost:low") == pytest.approx(known["cost:low"], abs=0.05)


def test_who_kills_early_is_not_feasible_though_fewer_steps_are_unsafe(
    shortcuts: Selection,
) -> None:
    assert truth(500.0, None)["before"] < 0.01 < truth(None, None)["before"]
    killer = verdict(shortcuts, "kills")
    assert killer.judged is not None
    assert not killer.judged.limits["relative:low"].kept
    assert killer.reason.startswith("not feasible: low: its cost less 0.9 x the clinicians'")


def test_who_keeps_patients_alive_but_unsafe_is_not_feasible(shortcuts: Selection) -> None:
    assert truth(0.0, None)["mortality"] < truth(None, -0.2)["mortality"]
    neglect = verdict(shortcuts, "nothing")
    assert neglect.judged is not None
    assert not neglect.judged.feasible
    assert shortcuts.least.name == "nothing"  # of the least upper bound, and not chosen for it


def test_who_always_defers_is_not_chosen(shortcuts: Selection) -> None:
    nobody = verdict(shortcuts, "nobody")
    assert nobody.screened.steps_deferred == pytest.approx(1.0)
    assert float(nobody.screened.ever_deferred.min()) == pytest.approx(1.0)
    assert nobody.judged is not None
    assert not nobody.judged.refusal.kept
    assert "steps deferred may be" in nobody.reason


def test_who_always_defers_is_not_chosen_where_stays_are_short_beside_the_horizon_either() -> None:
    table = line_table(800, 21)
    table["end"] = table["end"].where(table["end"] != "horizon", "discharge")
    loose = {"low": {"expression": "x < -1", "limit": {"relative": 1.3}}}
    stays = prepare(table, line_cohort(constraints=loose, max_steps=240))
    g, layout = torch.Generator().manual_seed(0), stays.history
    grounds = Grounds(stays, LineClinicians(layout), second_model(stays, SMALL, g), MAX_REFUSAL)
    nobody = Candidate("nobody", "ogsrl", 0, "last", Deployed.of(None, None, layout))
    found = select([nobody], grounds, PARAMS, g)
    (seen,) = found.verdicts
    assert seen.judged is not None
    assert all(kept.kept for kept in seen.judged.limits.values())
    assert seen.screened.mean("refusal") < MAX_REFUSAL  # of max_steps
    assert seen.judged.refusal.bound.estimate == pytest.approx(1.0, abs=0.1)  # of steps lived
    assert found.chosen is None
    assert "steps deferred may be" in seen.reason


@dataclass(frozen=True)
class AllUnsafe:
    """The screening model, but everybody is unsafe whatever is given."""

    model: Model

    def step(self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator) -> Next:
        following = self.model.step(states, doses, generator)
        assert following.unsafe is not None
        return replace(following, unsafe=torch.ones_like(following.unsafe))


def test_who_breaks_a_limit_in_the_screening_model_is_not_put_forward_either() -> None:
    known, layout = candidates()["steers"], validation().history
    grounds = Grounds(validation(), LineClinicians(layout), AllUnsafe(model()), MAX_REFUSAL)
    found = {
        agree: select(
            [known],
            grounds,
            PARAMS.model_copy(update={"agree": agree}),
            torch.Generator().manual_seed(1),
        )
        for agree in (True, False)
    }
    (doubted,) = found[True].verdicts
    assert doubted.judged is not None
    assert doubted.judged.feasible
    assert found[True].chosen is None
    assert "the screening model does not: low" in doubted.reason
    assert found[False].chosen is known


def test_deferring_is_not_taken_for_safe_beside_a_value_stands_the_pessimistic_one(
    shortcuts: Selection, selection: Selection
) -> None:
    nobody, steers = verdict(shortcuts, "nobody"), verdict(selection, "steers")
    assert nobody.pessimistic is not None
    assert steers.pessimistic is not None
    ours, theirs = nobody.pessimistic.mean("mortality"), nobody.screened.mean("mortality")
    assert ours > theirs + 0.2, "always the deadliest dose, where all of them are supported"
    assert ours == pytest.approx(truth(500.0, None)["mortality"], abs=0.1)
    assert torch.equal(steers.pessimistic.each["mortality"], steers.screened.each["mortality"])


def test_where_nobody_is_feasible_there_is_no_policy(shortcuts: Selection) -> None:
    assert shortcuts.chosen is None
    assert shortcuts.status == "no_policy"
    assert not any(one.chosen for one in shortcuts.verdicts)


def test_who_is_estimated_to_be_worse_than_clinicians_is_not_chosen() -> None:
    # 150 mL for everybody: safer than clinicians, and deadlier
    layout = validation().history
    known = truth(150.0, None), truth(None, None)
    assert known[0]["mortality"] > known[1]["mortality"] + 0.05
    one = Candidate("harm", "ogsrl", 0, "last", deployed(Gives(layout, 150.0)))
    grounds = Grounds(validation(), LineClinicians(layout), model(), MAX_REFUSAL)
    found = select([one], grounds, PARAMS, torch.Generator().manual_seed(1))
    assert found.chosen is None
    judged = found.verdicts[0].judged
    assert judged is not None
    assert judged.gain.estimate < 0


def test_the_same_policy_twice_does_not_take_two_places() -> None:
    layout = validation().history
    copies = [
        Candidate(f"copy {i}", "plain", i, "last", deployed(Steers(layout))) for i in range(3)
    ]
    others = [candidates()[name] for name in ("nothing", "clone")]
    grounds = Grounds(validation(), LineClinicians(layout), model(), MAX_REFUSAL)
    params = PARAMS.model_copy(update={"finalists": 2})
    found = select([*copies, *others], grounds, params, torch.Generator().manual_seed(1))
    judged = {one.candidate.name for one in found.verdicts if one.judged}
    assert judged >= {"copy 0", "clone"}
    assert judged.isdisjoint({"copy 1", "copy 2"})
    assert found.chosen is copies[0]
    assert [verdict(found, f"copy {i}").reason for i in (1, 2)] == ["the same policy as copy 0"] * 2


def test_cloning_is_always_judged_and_named_for_what_it_is() -> None:
    params = PARAMS.model_copy(update={"finalists": 1})
    among = chosen_of(["clone", "steers"], params)
    assert verdict(among, "clone").judged is not None
    alone = chosen_of(["clone", "nobody"], params)
    if alone.chosen is not None:
        assert "behaviour cloning" in verdict(alone, "clone").reason
    outside = [one for one in alone.verdicts if one.judged is None]
    assert [one.candidate.name for one in outside] == ["nobody"]
    assert outside[0].reason.startswith("no finalist: in the screening model low")


def test_candidates_share_their_luck() -> None:
    layout, generator = validation().history, torch.Generator().manual_seed(6)
    clinicians = LineClinicians(layout)
    screen = Rollouts.of(model(), clinicians, validation(), 400, generator)
    one, other = deployed(Gives(layout, 100.0)), deployed(Gives(layout, 150.0))
    mine = screen.follow(one).each["mortality"]
    alike = screen.follow(other).each["mortality"] - mine
    apart = replace(screen, seed=screen.seed + 10).follow(other).each["mortality"] - mine
    assert float(alike.std()) < 0.6 * float(apart.std())
    nobody = deployed(None)
    assert torch.equal(screen.follow(nobody).steps, screen.follow(nobody).steps)


def test_same_seed_same_report_and_it_is_plain(selection: Selection) -> None:
    report = describe(selection, PARAMS)
    again = describe(chosen_of(list(candidates())), PARAMS)
    assert json.dumps(report, allow_nan=False) == json.dumps(again, allow_nan=False)
    assert len(report["candidates"]) == len(candidates())
    assert all(one["reason"] for one in report["candidates"])
    assert sum(one["finalist"] for one in report["candidates"]) <= PARAMS.finalists + 1
    assert report["chosen"]["name"] == "steers"


def test_candidates_need_names_of_their_own() -> None:
    with pytest.raises(ModelError, match="2 candidates with 1 names"):
        chosen_of(["steers", "steers"])
    with pytest.raises(ModelError, match="0 candidates"):
        chosen_of([])


def test_too_few_patients_are_a_status() -> None:
    assert too_few_report(80, PARAMS)["status"] == "too_few_patients"
