"""Fitted Q where a state is one code: what it solves is exact, and tells plans apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ogsrl.behaviour.config import BehaviourParams, BoostedParams
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.errors import ModelError
from ogsrl.evaluation.config import EvaluateParams, FqeParams
from ogsrl.evaluation.evaluate import Grounds, Subject, evaluate
from ogsrl.evaluation.fqe import Fqe, Sampling, fit_fqe
from ogsrl.evaluation.fqe_table import POOLED, Tables, is_table, never_given
from ogsrl.evaluation.quantities import quantities
from ogsrl.policies.actors import TableActor
from ogsrl.policies.codes import DoseLevels
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation import PrepareParams, TrainingRows, fit
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.sources.icu_sepsis import evaluated, logged, process
from ogsrl.spec import load_cohort
from tests.evaluation.ward import Ward, WardClinicians
from tests.policies.tables import table_frames

COHORT = load_cohort(Path(__file__).parents[2] / "data_contracts" / "icu_sepsis.yaml")
PARAMS = FqeParams(fits=2, networks=1)


@dataclass(frozen=True)
class Known:
    """Clinicians of whom every chance is known."""

    history: History
    chances: torch.Tensor  # (codes, combinations)

    def log_prob(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        codes = DoseLevels.of(self.history).codes(doses)
        return self.chances[states[:, 0].long(), codes].log()

    def sample(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        drawn = torch.multinomial(self.chances[states[:, 0].long()], 1, generator=generator)[:, 0]
        return DoseLevels.of(self.history).levels.float()[drawn]


def fitted(
    stays: StayTensors,
    clinicians: Known,
    policies: dict[str, Deployed],
    names: tuple[str, ...],
    sampling: Sampling | None = None,
    params: FqeParams = PARAMS,
) -> Fqe:
    generator = torch.Generator().manual_seed(0)
    sampling = sampling or Sampling()
    return fit_fqe(
        stays, policies, clinicians, params, generator, names=names, sampling=sampling
    )  # fmt: skip


@cache
def simple() -> tuple[StayTensors, Known]:
    """Doses do not hang together: the drug to half, the fluid to one in a hundred or to half."""
    stays = table_frames()[0]
    fluid = torch.tensor([0.5, 0.01])
    each = torch.stack([1 - fluid, fluid, 1 - fluid, fluid], 1) / 2
    return stays, Known(stays.history, each)


def table(stays: StayTensors, *cells: int) -> Deployed:
    actor = TableActor(torch.tensor(cells), DoseLevels.of(stays.history))
    return Deployed.of(actor, None, stays.history)


def test_its_values_solve_their_equation() -> None:
    stays, clinicians = simple()
    fqe = fitted(stays, clinicians, {"treats": table(stays, 0, 2)}, ("mortality",))
    assert isinstance(fqe.answers, Tables)
    made, (one,) = stays.transitions(), quantities(stays, ["mortality"])
    given = DoseLevels.of(stays.history).codes(made.doses)
    q = fqe.answers.worth[0, 0, :, :, 0].double()
    v = q[torch.arange(2), torch.tensor([0, 2])]
    y = one.paid + torch.where(made.terminal, 0.0, v[made.next_states[:, 0].long()])
    for state in (0, 1):
        here = made.states[:, 0] == state
        mean = (y[here].sum() + y.mean()) / (here.sum() + 1)
        for dose in range(4):
            both = here & (given == dose)
            wanted = (y[both].sum() + POOLED * mean) / (both.sum() + POOLED)
            assert float(q[state, dose]) == pytest.approx(float(wanted), abs=1e-6)
    first = fqe.first_values["treats"]["mortality"]
    assert first.shape == (2, len(fqe.patients))


def test_of_clinicians_it_says_what_was_seen_and_every_step_is_refused() -> None:
    stays, clinicians = simple()
    names = ("mortality", "cost:ill", "refusal")
    nobody = Deployed.of(None, None, stays.history)
    told = fitted(stays, clinicians, {"clinicians": nobody}, names).first_values["clinicians"]
    seen = float(stays.death.float().sum()) / len(told["mortality"][0])
    assert float(told["mortality"].mean()) == pytest.approx(seen, abs=0.01)
    cost = float(stays.costs[:, 0].sum()) / len(told["mortality"][0])
    assert float(told["cost:ill"].mean()) == pytest.approx(cost, abs=0.02)
    steps = int(stays.decision.sum()) / len(told["mortality"][0])
    assert float(told["refusal"].mean()) == pytest.approx(steps / 6, abs=0.02)


def test_who_was_never_fed_a_patient_judges_them_and_same_seeds_are_same_bits() -> None:
    stays, clinicians = simple()
    policies = {"treats": table(stays, 0, 2), "not": table(stays, 0, 0)}
    sampling = Sampling(resample=True, folds=3)
    params = FqeParams(fits=2, networks=2)
    one, two = (
        fitted(stays, clinicians, policies, ("mortality",), sampling, params) for _ in range(2)
    )
    assert isinstance(one.answers, Tables)
    assert one.answers.worth.shape == (2, 2 * 3 * 2, 2, 4, 1)
    values = one.first_values["treats"]["mortality"]
    assert torch.equal(values, two.first_values["treats"]["mortality"])
    assert torch.equal(values[0], values[1]), "networks of a fit are fed the same"
    assert not torch.equal(values[0], values[2])
    gain = one.first_values["not"]["mortality"].mean() - values.mean()
    assert float(gain) > 0.1, "the drug helps the ill"


def test_a_patient_s_own_outcome_is_not_in_their_own_value() -> None:
    stays, clinicians = simple()
    treats, sampling = {"treats": table(stays, 0, 2)}, Sampling(resample=True, folds=3)
    params = FqeParams(fits=3, networks=1)

    def values(of: StayTensors) -> torch.Tensor:
        fqe = fitted(of, clinicians, treats, ("mortality",), sampling, params)
        return fqe.first_values["treats"]["mortality"]

    ends = stays.history.preparation.cohort.reward.terminal
    assert ends is not None
    before = values(stays)
    for stay in (0, 7, 23):
        last = stays.terminal & (stays.stay == stay)
        assert int(last.sum()) == 1
        other = ends.death + ends.discharge - stays.rewards
        changed = replace(
            stays, death=stays.death ^ last, rewards=torch.where(last, other, stays.rewards)
        )
        after = values(changed)
        assert torch.equal(before[:, stay], after[:, stay])
        assert not torch.equal(before, after), "others hear of it"


def test_samples_of_patients_scatter_around_the_whole() -> None:
    stays, clinicians = simple()
    treats = {"treats": table(stays, 0, 2)}
    params = FqeParams(fits=4, networks=1)
    found = [
        fitted(stays, clinicians, treats, ("mortality",), sampling, params)
        for sampling in (Sampling(), Sampling(resample=True))
    ]
    whole, resampled = (one.first_values["treats"]["mortality"].mean(1) for one in found)
    assert float(whole.std()) == 0, "nothing is drawn"
    assert float(resampled.std()) > 0.003
    assert float(resampled.mean()) == pytest.approx(float(whole.mean()), abs=1e-5)


def test_of_plans_of_icu_sepsis_it_is_right_on_average() -> None:
    made = process()
    worth = evaluated(made, made.clinicians).survival_from
    q = made.follows[..., :713] @ worth + made.follows[..., 714]
    cells = np.where(made.clinicians > 0.1, q, -1.0).argmax(1)
    plan = np.eye(25)[cells]
    truth, usual = evaluated(made, plan).survival, evaluated(made, made.clinicians).survival
    assert truth > usual + 0.03
    errors = []
    for seed in range(4):
        logs = logged(made, 2_000, seed=seed)
        preparation = fit(TrainingRows.of(logs, COHORT), COHORT, PrepareParams(history_steps=0))
        stays = stay_tensors(preparation.apply(logs), preparation)
        assert is_table(stays.history)
        clinicians = Known(stays.history, torch.from_numpy(made.clinicians.copy()))
        told = fitted(stays, clinicians, {"plan": table(stays, *cells)}, ("mortality",))
        errors.append(1 - float(told.first_values["plan"]["mortality"].mean()) - truth)
    assert abs(np.mean(errors)) < 0.012, "the gain that a network does not see is .03 and more"


def test_of_doses_that_nobody_was_given_tables_have_no_vote() -> None:
    prepared = table_frames(8_000)[1]
    rare = (prepared["state"] == 1) & (prepared["given_fluid"] == 1)
    kept = prepared[~prepared["stay_id"].isin(prepared.loc[rare, "stay_id"])]
    history = table_frames()[0].history
    stays = stay_tensors(kept.reset_index(drop=True), history.preparation)
    boosted = BoostedParams(trees=5, scale_trees=2, depth=2, learning_rate=0.3, min_leaf=30)
    params, g = BehaviourParams(kinds=("boosted",), boosted=boosted), torch.Generator()
    behaviour = fit_behaviour(stays, stays, stays, params, g)
    asked = {"treats": table(stays, 0, 2), "floods": table(stays, 0, 3)}
    subjects = [Subject(name, deployed) for name, deployed in asked.items()]
    found = evaluate(subjects, Grounds(stays, behaviour), EvaluateParams(bootstrap=200), g)
    for name, unseen in (("treats", False), ("floods", True)):
        share = never_given(found.shared.executed[name], stays, None)
        assert (share > 0.3) == unseen
        for answers in (found.own, found.gains):
            fqe = answers[name]["mortality"].estimates["fqe"]
            assert fqe.votes != unseen
            assert ("nobody in that state" in fqe.diagnosis) == unseen
    executed = found.shared.executed["floods"]
    most = torch.arange(executed.deferred.shape[1]) % 10 > 0
    deferring = replace(executed, deferred=executed.deferred | most)
    assert never_given(deferring, stays, None) > 0.3, "who defers mostly is judged by the rest"
    assert found.gains["floods"]["mortality"].panel.word(-1) == "cannot tell"
    assert found.gains["treats"]["mortality"].panel.word(-1) == "better"


def test_clinicians_of_whom_nothing_is_known_are_refused() -> None:
    stays, _ = simple()
    with pytest.raises(ModelError, match="WardClinicians tells no chances"):
        fit_fqe(stays, {"a": table(stays, 0, 0)}, WardClinicians(), PARAMS, torch.Generator())
    ward = Ward.draw(50, 1)
    assert not is_table(ward.stays.history)
    assert not is_table(table_frames(20, 1)[0].history), "a state that holds the one before"
