"""Planning on a table: values are exact, plans are the best ones, limits bind, nothing is drawn."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ogsrl.behaviour.config import BehaviourParams, BoostedParams
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.dynamics.counts import fit_counts, transitions
from ogsrl.errors import ModelError
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.actors import TableActor
from ogsrl.policies.codes import DoseLevels
from ogsrl.policies.config import AlgorithmParams, CpoParams, OgsrlParams, TrainParams
from ogsrl.policies.counted import Counted
from ogsrl.policies.discrete import DiscreteOGSRL
from ogsrl.policies.saved import load_policy, save_policy
from ogsrl.policies.table import Table, TableProblem, pairs
from ogsrl.policies.training import Place, train_seed
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import Transitions
from tests.guardian.cohorts import layout, planted
from tests.policies.tables import table_frames

STEPS = 6
CODES, CELLS = 3, 4
PARAMS = OgsrlParams(refresh=10, refusal_limit=0.99, refusal_start=0.0, aim=1.0)


def history(steps: int = STEPS) -> History:
    """Three wards, two doses of two levels each; the third ward is unsafe."""
    return planted(
        {"ward": {"kind": "categorical", "levels": ["a", "b", "c"]}},
        {
            "drug": {"kind": "ordinal", "levels": ["no", "yes"]},
            "fluid": {"kind": "ordinal", "levels": ["no", "yes"]},
        },
        max_steps=steps,
        outcome={"horizon": "in hospital", "censoring": "none"},
        reward={"terminal": {"death": -1, "discharge": 1, "horizon": 0.5}},
        constraints={"unsafe": {"expression": "ward > 1.5", "limit": {"absolute": 0.5}}},
    )


@dataclass(frozen=True)
class Known:
    """A guardian that knows some pairs."""

    pairs: torch.Tensor
    levels: DoseLevels

    def score(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        return 1.0 - self.pairs[states[:, 0].long(), self.levels.codes(doses)].float()

    def accepts(self, scores: torch.Tensor) -> torch.Tensor:
        return scores < 0.5


def made(
    seed: int, known: list[tuple[int, int]] | None = None, limit: float = 9.0, steps: int = STEPS
) -> TableProblem:
    """A table drawn at random; all pairs are known, or these alone."""
    rng, layout_ = np.random.default_rng(seed), history(steps)
    levels = DoseLevels.of(layout_)
    chances = rng.dirichlet([1.0, 1.0, 1.0, 0.3, 0.4], (CODES, CELLS))
    mask = torch.zeros(CODES, CELLS, dtype=torch.bool)
    for s, a in itertools.product(range(CODES), range(CELLS)) if known is None else known:
        mask[s, a] = True
    nothing = torch.zeros(0, 1)
    rows = Transitions(*[nothing] * 5, terminal=nothing[:, 0] > 0, row=nothing[:, 0].long())
    return TableProblem(
        history=layout_,
        behaviour=None,  # type: ignore[arg-type]
        guardian=Known(mask, levels),  # type: ignore[arg-type]
        rows=rows,
        levels=levels,
        chances=torch.from_numpy(chances),
        patients=torch.full((CODES, CELLS), 9),
        clinicians=torch.from_numpy(rng.dirichlet([2.0] * CELLS, CODES)),
        begun=torch.tensor([0.5, 0.3, 0.2]).double(),
        limits={"unsafe": limit},
        spread=0.7,
        lived=1.0,
    )


def truth(problem: TableProblem, cells: tuple[int, ...]) -> dict[str, float]:
    """Where stays are, step by step, forwards: reward, cost, refusals, deaths."""
    known = problem.guardian.pairs  # type: ignore[attr-defined]
    most = problem.history.preparation.cohort.max_steps
    there = problem.begun.numpy()
    told = dict.fromkeys(("reward", "unsafe", "refusal", "deaths", "steps"), 0.0)
    for t in range(most):
        following = np.zeros(CODES)
        for s in range(CODES):
            p = problem.chances[s, cells[s]].numpy()
            if not known[s, cells[s]]:
                p = problem.clinicians[s].numpy() @ problem.chances[s].numpy()
                told["refusal"] += there[s] / most
            death, leaves = p[CODES], p[CODES + 1]
            on = p[:CODES]
            if t == most - 1:
                told["reward"] += there[s] * 0.5 * (1 - death)
                on, leaves = on * 0, 0.0
            told["reward"] += there[s] * (leaves - death)
            told["unsafe"] += there[s] * (death * (most - t) + on[2]) / most
            told["deaths"] += there[s] * death
            told["steps"] += there[s]
            following += there[s] * on
        there = following
    return told


EVERY = list(itertools.product(range(CELLS), repeat=CODES))


def planned(problem: TableProblem, steps: int = 60, **settings: Any) -> DiscreteOGSRL:
    learner = DiscreteOGSRL(problem, PARAMS.model_copy(update=settings), 0, steps)
    learner.begin()
    list(learner.train(steps))
    return learner


def of(learner: DiscreteOGSRL) -> dict[str, float]:
    return truth(learner.problem, tuple(learner.policy.cells.tolist()))


@pytest.mark.parametrize("seed", range(4))
def test_values_are_those_of_stays_followed_step_by_step(seed: int) -> None:
    problem = made(seed, known=[(0, 1), (0, 2), (1, 0), (2, 3)])
    table = Table(problem, torch.ones(3))
    for cells in EVERY[:: 7 - seed]:
        seen, known = table.value(torch.tensor(cells)), truth(problem, cells)
        wanted = [known["reward"], known["unsafe"], known["refusal"]]
        assert seen.totals.tolist() == pytest.approx(wanted)
        assert seen.deaths == pytest.approx(known["deaths"])
        share = known["refusal"] * STEPS / known["steps"]
        assert seen.deferred == pytest.approx(share)


def test_gains_are_what_one_other_proposal_brings_at_every_step() -> None:
    problem = made(6, known=[(0, 1), (1, 0), (2, 3)])
    table, cells = Table(problem, torch.tensor([0.9, 1.0, 1.0])), torch.tensor([1, 2, 0])
    seen, codes = table.value(cells), len(cells)
    there, on = problem.begun, table.follows[torch.arange(codes), cells][:, :codes]
    value = [torch.zeros(codes, 3).double()]
    for step in range(STEPS - 1, -1, -1):
        worth = table._now(step) + table.discounts * (
            (step < STEPS - 1) * table.follows[..., :codes] @ value[-1]
        )
        value.append(worth[torch.arange(codes), cells])
    wanted = torch.zeros(codes, CELLS, 3).double()
    for step in range(STEPS):
        worth = table._now(step) + table.discounts * (
            (step < STEPS - 1) * table.follows[..., :codes] @ value[STEPS - 1 - step]
        )
        wanted += (there[:, None] * table.discounts**step)[:, None] * worth
        there = there @ on
    assert torch.allclose(seen.gains, wanted)


@pytest.mark.parametrize("seed", range(8))
def test_without_limits_the_plan_is_the_best_of_all_tables(seed: int) -> None:
    problem = made(seed)
    best = max(truth(problem, cells)["reward"] for cells in EVERY)
    worst = min(truth(problem, cells)["reward"] for cells in EVERY)
    assert of(planned(problem))["reward"] == pytest.approx(best, abs=1e-3)
    assert worst < best - 0.2


def test_over_a_long_stay_it_is_the_plan_of_linear_algebra() -> None:
    problem = made(3, steps=200)
    found = planned(problem).policy.cells
    paid = problem.chances[..., CODES + 1] - problem.chances[..., CODES]

    def value(cells: torch.Tensor) -> torch.Tensor:
        place = torch.arange(CODES)
        on = problem.chances[place, cells][:, :CODES]
        return torch.linalg.solve(torch.eye(CODES).double() - on, paid[place, cells])

    known = value(found)
    for cells in EVERY:  # as good in every code, not in the mean alone
        assert bool((known >= value(torch.tensor(cells)) - 1e-9).all())
    wanted = paid + problem.chances[..., :CODES] @ known
    assert torch.allclose(wanted.amax(1), known)


@pytest.mark.parametrize("seed", [0, 1, 3, 5, 6])
def test_a_limit_at_half_way_binds_and_is_met(seed: int) -> None:
    problem = made(seed)
    free = of(planned(problem))
    least = min(truth(problem, cells)["unsafe"] for cells in EVERY)
    limit = (free["unsafe"] + least) / 2
    assert free["unsafe"] > least + 0.01  # else there is nothing to bind
    bound = planned(replace(problem, limits={"unsafe": limit}), 100)
    told = of(bound)
    assert told["unsafe"] <= limit + 1e-9
    assert bound.measured()["active_unsafe"] > 0.3
    assert bound.measured()["feasible"] == 1
    # a table draws nothing: the best that any multiplier can find among all tables
    each = [truth(problem, cells) for cells in EVERY]
    for mu in np.geomspace(1e-2, 1e3, 400):
        best = max(each, key=lambda t: t["reward"] / problem.spread - mu * t["unsafe"])
        assert best["unsafe"] > limit or told["reward"] >= best["reward"] - 1e-3


def test_a_limit_that_nobody_meets_gives_the_safest_table_and_says_so() -> None:
    problem = made(1, limit=1e-6)
    found = planned(problem, 100)
    least = min(truth(problem, cells)["unsafe"] for cells in EVERY)
    assert of(found)["unsafe"] == pytest.approx(least, rel=0.02)
    assert found.measured()["feasible"] == 0


def test_a_supported_dose_is_taken_where_deferring_is_no_better() -> None:
    problem = made(2, known=[(s, 2) for s in range(CODES)])
    alike = problem.chances[:, :1].expand(-1, CELLS, -1).contiguous()
    found = planned(replace(problem, chances=alike))
    assert found.policy.cells.tolist() == [2, 2, 2]
    assert of(found)["refusal"] == 0


def test_refusals_are_limited_though_deferring_would_be_better() -> None:
    """One pair a code is known, a bad one: clinicians do better, whom deferring lets act."""
    problem = made(5, known=[(s, 0) for s in range(CODES)])
    chances = problem.chances.clone()
    chances[:, 0, :CODES] *= 0.5
    chances[:, 0, CODES] = 1 - chances[:, 0, :CODES].sum(1)
    chances[:, 0, CODES + 1] = 0.0
    problem = replace(problem, chances=chances)
    loose, tight = planned(problem), planned(problem, 200, refusal_limit=0.01)
    assert of(loose)["refusal"] > 0.1
    assert of(tight)["refusal"] <= 0.01
    assert of(tight)["reward"] < of(loose)["reward"]


def test_death_never_buys_safety() -> None:
    """Who lives is in the unsafe ward, whatever is given; the last pair kills."""
    problem = made(0, limit=0.3)
    chances = torch.zeros_like(problem.chances)
    chances[:, :, 2] = 0.9
    chances[:, :, CODES + 1] = 0.1
    chances[:, 3] = 0.0
    chances[:, 3, CODES] = 1.0
    problem = replace(problem, chances=chances)
    found = planned(problem, 100)
    assert of(found)["deaths"] == 0
    assert 3 not in found.policy.cells.tolist()


def test_without_the_guardian_what_it_refuses_is_planned_with() -> None:
    problem = made(4, known=[(s, 1) for s in range(CODES)])
    free = planned(problem, guardian=False)
    best = max(truth(made(4), cells)["reward"] for cells in EVERY)
    assert truth(made(4), tuple(free.policy.cells.tolist()))["reward"] == pytest.approx(best)
    assert free.measured()["refusal"] == 0
    guarded = planned(problem, refusal_limit=0.01)
    assert guarded.policy.cells.tolist() == [1, 1, 1]


def test_a_table_answers_codes_and_nothing_else(tmp_path: Path) -> None:
    problem = made(0)
    actor = TableActor(torch.tensor([3, 0, 2]), problem.levels)
    states = torch.tensor([[0.0], [1.0], [2.0], [3.0], [-1.0], [0.5], [torch.nan]])
    doses = actor.propose(states, torch.Generator())
    assert problem.levels.codes(doses[:3]).tolist() == [3, 0, 2]
    assert bool(doses[3:].isnan().all())
    save_policy(tmp_path / "policy", actor, problem.history, {"step": 1})
    loaded, _ = load_policy(tmp_path / "policy", problem.history)
    assert isinstance(loaded, TableActor)
    assert loaded.cells.tolist() == [3, 0, 2]
    with pytest.raises(ModelError, match="a table of 2 codes; this cohort has 3 codes and 4"):
        save_policy(tmp_path / "wrong", replace(actor, cells=actor.cells[:2]), problem.history, {})


def test_a_stopped_plan_goes_on_bit_for_bit(tmp_path: Path) -> None:
    problem = made(3)
    problem = replace(problem, limits={"unsafe": of(planned(problem))["unsafe"] - 0.02})
    algorithm = AlgorithmParams(name="ogsrl", ogsrl=PARAMS)
    train = TrainParams(steps=60, checkpoint_every=20)

    def place(name: str) -> Place:
        return Place(tmp_path / name / "policies", tmp_path / name / "checkpoint", "these")

    def stop(steps: int) -> None:
        seen.append(steps)
        if sum(seen) >= 30:
            raise KeyboardInterrupt

    seen: list[int] = []
    whole = train_seed(problem, algorithm, train, 0, place("whole"))
    with pytest.raises(KeyboardInterrupt):
        train_seed(problem, algorithm, train, 0, place("parts"), stop)
    assert train_seed(problem, algorithm, train, 0, place("parts")) == whole
    assert whole.status == "done"
    assert whole.steps == [20, 40, 60]
    assert whole.log[-1]["mu_unsafe"] > 0
    cloned = AlgorithmParams(name="bc", ogsrl=OgsrlParams(cloning_only=True, start_steps=7))
    assert train_seed(problem, cloned, train, 0, place("bc")).steps == [7]
    actor, _ = load_policy(place("bc").policy(7), problem.history)
    assert isinstance(actor, TableActor)
    assert torch.equal(actor.cells, problem.clinicians.argmax(1))
    cpo = train_seed(problem, AlgorithmParams(name="cpo", cpo=CpoParams()), train, 0, place("cpo"))
    assert cpo.status == "cpo: it has no form for a table; take it out of `train`"
    assert cpo.steps == []
    offline = AlgorithmParams(name="prdc", ogsrl=OgsrlParams(model=False))
    told = train_seed(problem, offline, train, 0, place("offline")).status
    assert told.startswith("algorithms.prdc.ogsrl.model: false has no form for ordinal doses")


# from logged stays


def test_from_logged_stays_it_gives_the_drug_that_helps_and_what_was_given_often_enough() -> None:
    stays, g = table_frames()[0], torch.Generator().manual_seed(0)
    boosted = BoostedParams(trees=5, scale_trees=2, depth=2, learning_rate=0.3, min_leaf=30)
    behaviour = fit_behaviour(
        stays, stays, stays, BehaviourParams(kinds=("boosted",), boosted=boosted), g
    )
    rows = Rows.of(stays)
    region = Counts.fit([rows], layout(stays.history), GuardianParams(min_stays=40), g)
    region = region.calibrate(rows.states, rows.doses, rows.patient, 0.05)
    problem = TableProblem.of(stays, behaviour, fit_counts(stays, stays), region)
    states, doses = pairs(2, problem.levels)
    assert problem.chances.sum(2).numpy() == pytest.approx(1, abs=1e-6)
    refused = ~region.supported(states, doses).reshape(2, CELLS)
    table = Table(problem, torch.ones(3))
    assert torch.equal(table.deferred, refused)
    assert refused.any()
    # the counted model is the log's: its clinicians cost and die as the log's do
    logged = stays.costs[:, 0].sum() / len(torch.unique(stays.patient))
    assert problem.limits["ill"] == pytest.approx(0.9 * float(logged), rel=1e-3)
    given = problem.clinicians[1]
    assert float(given[1] + given[3]) < 0.05
    found = planned(problem, 100, refusal_limit=0.05)
    drug = problem.levels.levels[found.policy.cells, 0]
    assert drug[1] == 1  # the ill get it
    seen = table.value(found.policy.cells)
    assert float(seen.totals[1]) < problem.limits["ill"]
    assert seen.deaths < float(stays.death.sum()) / len(torch.unique(stays.patient)) - 0.05
    assert seen.deferred == 0
    assert found.measured()["feasible"] == 1


def test_what_too_few_were_given_is_not_proposed() -> None:
    problem = made(2)
    best = planned(problem).policy.cells
    patients = torch.full((CODES, CELLS), 9)
    patients[torch.arange(CODES), best] = 2
    problem = replace(problem, patients=patients)
    kept = planned(problem, least_patients=3).policy.cells
    assert (kept != best).all()
    assert torch.equal(planned(problem, least_patients=2).policy.cells, best)
    most = torch.tensor([[1, 0, 0, 2], [0, 2, 0, 1], [2, 1, 0, 0]])
    few = planned(replace(problem, patients=most), least_patients=3).policy.cells
    assert few.tolist() == [3, 1, 0]


def test_what_is_deferred_may_be_proposed_whoever_was_given_it() -> None:
    problem = made(5, known=[(s, 0) for s in range(CODES)])
    chances = problem.chances.clone()
    chances[:, 0, CODES] = 1.0
    chances[:, 0, [*range(CODES), CODES + 1]] = 0.0
    nobody = torch.tensor([[9, 0, 0, 0]] * CODES)
    found = planned(replace(problem, chances=chances, patients=nobody))
    assert (found.policy.cells != 0).all()


def test_plans_are_made_of_exact_counts_shrunk_as_the_dynamics_say() -> None:
    stays, _ = table_frames(400)
    counted = Counted.of(stays, 2, CELLS)
    made_of = transitions(stays)[0]
    own = (made_of[:, 0] == 1) & (made_of[:, 1] == 2)
    told = torch.bincount(made_of[own, 2], minlength=4).double()
    assert torch.equal(counted.outcomes[1, 2], told)
    assert float(counted.outcomes.sum()) == len(made_of)
    rows = stays.transitions()
    cell = DoseLevels.of(stays.history).codes(rows.doses)
    there = (rows.states[:, 0] == 1) & (cell == 2)
    assert counted.patients[1, 2] <= len(torch.unique(stays.patient[rows.row[there]]))
    chances = counted.chances(5.0)
    assert chances.sum(2).numpy() == pytest.approx(1)
    mean = counted.chances(1e12)[1, 2]
    expected = (told + 5 * mean) / (told.sum() + 5)
    assert chances[1, 2].tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_a_state_of_more_than_a_code_has_no_table() -> None:
    stays, _ = table_frames(80, 1)
    with pytest.raises(ModelError, match=r"set prepare\.history_steps to 0"):
        TableProblem.of(stays, None, None, None)  # type: ignore[arg-type]
