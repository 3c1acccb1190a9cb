"""How a policy stands, where what fits say is planted: who is harmed, and by which sign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from ogsrl.behaviour.config import BehaviourParams, BoostedParams
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.evaluation.asking import CLINICIANS, Grounds
from ogsrl.evaluation.config import EvaluateParams
from ogsrl.evaluation.evaluate import Evaluation, Subject, evaluate
from ogsrl.evaluation.fqe import first_decisions
from ogsrl.evaluation.standing import Group, Standing, standing
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.groups import Grouping
from ogsrl.preparation.tensors import StayTensors
from tests.policies.tables import table_frames

#: Of each stay: mortality under its clinicians.
THEIRS = 0.3
FEW = 6


@cache
def fitted() -> Evaluation:
    """Two policies that defer, measured beside the clinicians; their numbers are planted later."""
    stays = table_frames(400)[0]
    boosted = BoostedParams(trees=2, scale_trees=2, depth=2, learning_rate=0.3, min_leaf=30)
    generator = torch.Generator().manual_seed(0)
    behaviour = fit_behaviour(
        stays, stays, stays, BehaviourParams(kinds=("boosted",), boosted=boosted), generator
    )
    nobody = Deployed.of(None, None, stays.history)
    subjects = [Subject(name, nobody) for name in ("selected", "cloning")]
    params = EvaluateParams(estimators=("fqe",), bootstrap=200)
    return evaluate(subjects, Grounds(stays, behaviour), params, generator)


def stays() -> StayTensors:
    return fitted().shared.grounds.test


def planted(mortality: Mapping[str, torch.Tensor | float]) -> Evaluation:
    """Fits say this of a policy's mortality, a value a stay, all fits nearly alike."""
    shared = fitted().shared
    like = shared.fqe.first_values[CLINICIANS]["mortality"]
    apart = 0.002 * torch.linspace(-1, 1, len(like), dtype=like.dtype)[:, None]
    values = {
        name: {**each, "mortality": apart + torch.zeros_like(like) + mortality[name]}
        for name, each in shared.fqe.first_values.items()
    }
    return replace(fitted(), shared=replace(shared, fqe=replace(shared.fqe, first_values=values)))


def halves() -> Grouping:
    """By number of the stay."""
    return Grouping("half", "Half", ("even", "odd"), stays().stay.numpy() % 2)


def stood(mortality: Mapping[str, torch.Tensor | float], grouping: Grouping) -> Standing:
    return standing(planted(mortality), "selected", ["cloning"], [grouping])


def group(found: Standing, name: str) -> Group:
    return next(one for one in found.groups if one.group == name)


def odd_dies_more() -> torch.Tensor:
    """Even stays .1 below their clinicians, odd ones .08 above."""
    first = torch.from_numpy(halves().code)[first_decisions(stays())]
    return torch.where(first == 1, THEIRS + 0.08, THEIRS - 0.1).double()


def test_who_dies_more_than_under_the_clinicians_is_named_and_nobody_else() -> None:
    found = stood({CLINICIANS: THEIRS, "selected": odd_dies_more(), "cloning": THEIRS}, halves())
    even, odd = group(found, "even"), group(found, "odd")
    assert even.bound is not None
    assert odd.bound is not None
    assert even.bound.estimate == pytest.approx(0.1, abs=1e-6)
    assert odd.bound.estimate == pytest.approx(-0.08, abs=1e-6)
    assert even.harmed is not None
    assert odd.harmed is not None
    assert (even.harmed.kept, odd.harmed.kept) == (False, True)
    assert odd.harmed.bound.high < 0 < even.harmed.bound.high
    told = found.plain()
    harmed = [told[f"selected.groups.{n}.group"] for n in range(2)
              if told[f"selected.groups.{n}.harmed"]]  # fmt: skip
    assert harmed == ["odd"]


def test_one_who_does_exactly_as_clinicians_do_harms_nobody() -> None:
    told = stood(dict.fromkeys((CLINICIANS, "selected", "cloning"), THEIRS), halves()).plain()
    assert [told[f"selected.groups.{n}.adjusted_hi"] for n in range(2)] == [0.0, 0.0]
    assert [told[f"selected.groups.{n}.harmed"] for n in range(2)] == [False, False]


def test_of_few_patients_a_group_tells_its_name_alone() -> None:
    code = (stays().stay.numpy() >= FEW).astype(np.int64)
    grouping = Grouping("site", "Site", ("few", "most"), code)
    found = stood({CLINICIANS: THEIRS, "selected": odd_dies_more(), "cloning": THEIRS}, grouping)
    few = group(found, "few")
    assert (few.patients, few.effective, few.bound, few.harmed, few.untold) == (None,) * 5


@pytest.mark.parametrize(("cloning", "advantage"), [(0.35, 0.15), (0.2, 0.0), (0.12, -0.08)])
def test_fewer_deaths_than_under_cloning_are_an_advantage_over_it(
    cloning: float, advantage: float
) -> None:
    told = {CLINICIANS: THEIRS, "selected": 0.2, "cloning": cloning}
    bound = stood(told, halves()).than["cloning"]
    assert bound.estimate == pytest.approx(advantage, abs=1e-6)
    assert bound.low <= advantage + 1e-6
    assert bound.high >= advantage - 1e-6


def test_a_group_whose_deaths_nobody_tells_is_found() -> None:
    died = torch.zeros(int(stays().stay.max()) + 1, dtype=torch.bool)
    died[stays().stay[stays().death]] = True
    live = np.flatnonzero(~died.numpy())
    dark = np.isin(stays().stay.numpy(), live[: len(live) // 2])
    grouping = Grouping("site", "Site", ("telling", "silent"), dark.astype(np.int64))
    found = stood({CLINICIANS: THEIRS, "selected": THEIRS, "cloning": THEIRS}, grouping)
    assert {one.group: one.untold for one in found.groups} == {"telling": False, "silent": True}


@pytest.mark.parametrize(("share", "kept"), [(0.5, True), (0.89, False), (1.2, False)])
def test_a_limit_is_kept_where_the_cost_is_surely_below_its_share_of_the_clinicians(
    share: float, kept: bool
) -> None:
    evaluation = fitted()
    fqe = evaluation.shared.fqe
    theirs = fqe.first_values[CLINICIANS]
    values = {**fqe.first_values, "selected": theirs | {"cost:ill": share * theirs["cost:ill"]}}
    shared = replace(evaluation.shared, fqe=replace(fqe, first_values=values))
    found = standing(replace(evaluation, shared=shared), "selected", [], [halves()])
    (limit,) = found.limits.values()
    assert limit.kept == kept
    over = (share - 0.9) * float(theirs["cost:ill"].mean())
    assert limit.bound.estimate == pytest.approx(over, rel=1e-4)
