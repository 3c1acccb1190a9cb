"""d3rlpy's algorithms as baselines: its own predictions, on all our decisions, to known answers."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from ogsrl.errors import ModelError
from ogsrl.policies.codes import DoseLevels, StateCodes
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import Transitions, logged_arrays
from tests.guardian.cohorts import numeric, simulated
from tests.policies.problems import (
    best_dose,
    best_levels,
    cloned_dose,
    one_choice,
    one_decision,
    one_dose,
    td3bc_dose,
    three_levels,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that d3rlpy loads
    from d3rlpy.algos import PRDC
    from d3rlpy.dataset import BasicTransitionPicker, EpisodeGenerator

    from ogsrl.policies.peers import PEERS, actor_of, batch_of, fit_peer, fitted

CONTINUOUS = [name for name, peer in PEERS.items() if peer.continuous]
ORDINAL = [name for name, peer in PEERS.items() if peer.ordinal]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(name: str, kind: str) -> tuple[Transitions, History]:
    del name
    if kind == "ordinal":
        return one_choice(400, skill=0.3), three_levels()
    return one_decision(400), one_dose()


EACH = [(n, "continuous") for n in CONTINUOUS] + [(n, "ordinal") for n in ORDINAL]


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_our_actor_proposes_what_d3rlpy_predicts(name: str, kind: str) -> None:
    transitions, history = problem(name, kind)
    algorithm = fitted(name, transitions, history, 20, generator(3))
    proposed = actor_of(algorithm, history).propose(transitions.states, generator())
    predicted = algorithm.predict(StateCodes.of(history).inputs(transitions.states).numpy())
    if kind == "ordinal":
        codes = DoseLevels.of(history).codes(proposed)
        assert codes.tolist() == predicted.tolist()
        assert len(set(codes.tolist())) > 1
    else:
        assert np.abs(proposed.numpy() - predicted).max() < 1e-6
        assert predicted.std() > 1e-3


def flat(name: str, kind: str, seed: int) -> torch.Tensor:
    return fit_peer(name, *problem(name, kind), 5, seed).networks.flat


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_one_seed_gives_one_policy_and_the_global_generators_stay_as_they_were(
    name: str, kind: str
) -> None:
    torch.manual_seed(5)
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002 - the global one is watched
    once = flat(name, kind, seed=1)
    assert torch.equal(torch.get_rng_state(), kept[0])
    assert random.getstate() == kept[1]
    assert np.random.get_state()[1].tolist() == kept[2]  # noqa: NPY002 - the same
    torch.manual_seed(6)
    assert torch.equal(flat(name, kind, seed=1), once)
    assert not torch.equal(flat(name, kind, seed=2), once)


def test_no_step_is_lost_and_none_crosses_stays() -> None:
    """As many of each transition as d3rlpy's own episodes give, deaths and last steps included."""
    stays = simulated()[0]["calibration"]
    transitions = stays.transitions()
    assert 0 < int((~stays.decision).sum()) < int(stays.terminal.sum())  # censored ones among them
    everything = torch.arange(len(transitions.row))
    ours = batch_of(transitions, everything, StateCodes.of(stays.history), None)
    logged = logged_arrays(stays)
    episodes = EpisodeGenerator(
        logged.observations, logged.actions, logged.rewards, logged.terminals, logged.timeouts
    )()
    picker = BasicTransitionPicker()
    theirs = [picker(e, step) for e in episodes for step in range(e.transition_count)]
    assert len(theirs) == len(ours.observations) == int(stays.decision.sum())
    for name in ("observation", "action", "reward", "next_observation", "terminal"):
        whole = np.stack([np.atleast_1d(getattr(one, name)) for one in theirs])
        assert np.array_equal(getattr(ours, name + "s"), whole), name
    assert ours.rewards.sum() == pytest.approx(float(stays.rewards.sum()), abs=1e-3)
    assert ours.terminals.sum() == int(stays.terminal.sum())
    ended = ours.terminals[:, 0] == 1
    same_stay = stays.stay[stays.next_row[transitions.row]] == stays.stay[transitions.row]
    assert same_stay.numpy()[~ended].all()


def far(proposed: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((proposed - wanted).abs().mean())


ASKED = torch.linspace(-0.95, 0.95, 50)[:, None]


def test_td3bc_finds_the_dose_between_the_best_and_the_clinicians() -> None:
    found = fit_peer("d3rlpy_td3bc", one_decision(), one_dose(), 500, 0).propose(ASKED, generator())
    assert far(found, td3bc_dose(ASKED)) < 0.04
    # what else it might have learned is farther off than that
    assert far(best_dose(ASKED), td3bc_dose(ASKED)) > 0.1
    assert far(cloned_dose(ASKED), td3bc_dose(ASKED)) > 0.2


def test_prdc_finds_the_best_dose_where_such_pairs_were_logged() -> None:
    data = one_decision(2_000)
    found = fit_peer("d3rlpy_prdc", data, one_dose(), 300, 0).propose(ASKED, generator())
    assert far(found, best_dose(ASKED)) < 0.05
    assert far(found, best_dose(ASKED)) < far(found, td3bc_dose(ASKED))


def test_two_prdc_models_in_one_process_have_an_index_each() -> None:
    here = one_decision(300)
    there = replace(one_decision(200, seed=1), doses=torch.full((200, 1), 0.5))
    first = fitted("d3rlpy_prdc", here, one_dose(), 2, generator())
    second = fitted("d3rlpy_prdc", there, one_dose(), 2, generator())
    assert first.impl._nbsr is not second.impl._nbsr
    assert first.impl._nbsr is not PRDC._nbsr
    wanted = torch.cat([2.0 * here.states, here.doses], 1).numpy()
    assert np.array_equal(first.impl._nbsr._fit_X, wanted)
    assert not hasattr(PRDC._nbsr, "_fit_X")


@pytest.mark.parametrize("name", ["d3rlpy_cql", "d3rlpy_bcq"])
def test_learners_of_levels_find_the_best_ones_and_cloning_the_usual_ones(name: str) -> None:
    random_doses = one_choice(2_000, skill=0.0)
    fresh = one_choice(400, seed=9).states
    found = fit_peer(name, random_doses, three_levels(), 500, 0).propose(fresh, generator())
    assert float((found == best_levels(fresh)).float().mean()) > 0.9


def test_cloning_gives_what_skilled_clinicians_give_and_not_what_random_ones_gain_by() -> None:
    fresh = one_choice(400, seed=9).states
    shares = {}
    for skill in (0.0, 0.5):
        data = one_choice(2_000, skill=skill)
        found = fit_peer("d3rlpy_bc", data, three_levels(), 300, 0).propose(fresh, generator())
        shares[skill] = float((found == best_levels(fresh)).float().mean())
    assert shares[0.5] > 0.9
    assert shares[0.0] < 0.75  # by chance 5/12


def test_an_algorithm_for_other_doses_or_of_no_such_name_is_refused() -> None:
    data, history = one_decision(50), one_dose()
    with pytest.raises(ModelError, match="d3rlpy_bcq: d3rlpy has it for no continuous doses"):
        fit_peer("d3rlpy_bcq", data, history, 1, 0)
    with pytest.raises(ModelError, match="d3rlpy_iql: d3rlpy has it for no ordinal doses"):
        fit_peer("d3rlpy_iql", one_choice(50), three_levels(), 1, 0)
    with pytest.raises(ModelError, match="there are d3rlpy_bc"):
        fit_peer("awac", data, history, 1, 0)


def test_settings_are_the_published_ones_with_the_cohorts_discount() -> None:
    discount = numeric(1).preparation.cohort.discount
    td3bc = fitted("d3rlpy_td3bc", one_decision(50), one_dose(), 0, generator()).config
    assert (td3bc.alpha, td3bc.tau, td3bc.batch_size, td3bc.gamma) == (2.5, 0.005, 256, discount)
    prdc = fitted("d3rlpy_prdc", one_decision(50), one_dose(), 0, generator()).config
    assert (prdc.alpha, prdc.beta, prdc.update_actor_interval) == (2.5, 2.0, 2)


def test_a_reward_that_is_no_number_ends_the_fit_with_the_step_and_what_broke() -> None:
    data = one_decision(50)
    broken = replace(data, rewards=torch.full_like(data.rewards, torch.nan))
    with pytest.raises(ModelError, match=r"d3rlpy_td3bc: critic_loss.* is no number at step 0"):
        fit_peer("d3rlpy_td3bc", broken, one_dose(), 3, 0)


def test_progress_counts_every_step() -> None:
    done: list[int] = []
    fit_peer("d3rlpy_td3bc", one_decision(50), one_dose(), 3, 0, done.append)
    assert sum(done) == 3
