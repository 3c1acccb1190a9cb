"""The oracle's searches find what is there, begin again where they stopped, and stay in region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks._oracle import Log, cross_entropy, differential_evolution, drive
from benchmarks._oracle_actors import (
    PROTOCOL_RANGES,
    SUMS_RANGES,
    ByRule,
    Nearest,
    protocol,
    sums,
)
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.actors import ConstantActor
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.history import History
from ogsrl.sources.simulator import Protocol, ProtocolSettings
from tests.guardian.cohorts import guarded, simulated

Floats = NDArray[np.float64]
LOW, HIGH = np.zeros(6), np.full(6, 10.0)
BEST = np.array([2.0, 5.0, 9.0, 1.0, 6.0, 4.0])
SEARCHES = {"cross entropy": cross_entropy, "evolution": differential_evolution}


def noisy(round_: int, candidates: Floats) -> Floats:
    """The bowl's height, seen with noise that all candidates of a round share, and their own.

    Common random numbers leave little of the second kind.
    """
    rng = np.random.default_rng(round_)
    return bowl(candidates) + rng.normal() + 0.05 * rng.normal(size=len(candidates))


def bowl(candidates: Floats) -> Floats:
    """0 at the best; about 1.4 on average over the ranges."""
    return np.asarray(((candidates - BEST) ** 2).mean(-1) / 10)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_finds_the_bottom_of_a_bowl_seen_through_noise(name: str, tmp_path: Path) -> None:
    search = SEARCHES[name](LOW, HIGH, 40, 15, np.random.default_rng(1))
    finalists = drive(search, noisy, Log(tmp_path / "rounds.jsonl"))
    assert bowl(finalists[0]) < 0.1
    assert all(((one >= LOW) & (one <= HIGH)).all() for one in finalists)


@pytest.mark.parametrize("name", SEARCHES)
def test_an_interrupted_search_ends_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    def begin() -> object:
        return SEARCHES[name](LOW, HIGH, 12, 6, np.random.default_rng(2))

    whole = drive(begin(), noisy, Log(tmp_path / "whole.jsonl"))  # type: ignore[arg-type] # a search
    asked: list[int] = []

    def stopping(round_: int, candidates: Floats) -> Floats:
        if round_ == 4 and asked.count(4) == 0:
            asked.append(4)
            raise KeyboardInterrupt
        asked.append(round_)
        return noisy(round_, candidates)

    log = Log(tmp_path / "stopped.jsonl")
    with pytest.raises(KeyboardInterrupt):
        drive(begin(), stopping, log)  # type: ignore[arg-type] # a search
    again = drive(begin(), stopping, log)  # type: ignore[arg-type] # a search
    assert asked == [0, 1, 2, 3, 4, 4, 5]
    assert all((a == b).all() for a, b in zip(whole, again, strict=True))


def test_a_log_of_another_search_is_not_believed(tmp_path: Path) -> None:
    log = Log(tmp_path / "rounds.jsonl")
    one, other = (cross_entropy(LOW, HIGH, 12, 3, np.random.default_rng(s)) for s in (1, 2))
    drive(one, noisy, log)
    asked: list[int] = []

    def count(round_: int, candidates: Floats) -> Floats:
        asked.append(round_)
        return noisy(round_, candidates)

    drive(other, count, log)
    assert asked == [0, 1, 2]


@pytest.fixture(scope="module")
def history() -> History:
    return simulated()[0]["train"].history


@pytest.fixture(scope="module")
def guardian() -> ChristoffelGuardian:
    return guarded()


@pytest.fixture(scope="module")
def fresh() -> Rows:
    return Rows.of(simulated()[0]["validation"])


def test_who_keeps_to_the_region_is_refused_less_and_moved_only_where_refused(
    history: History, guardian: ChristoffelGuardian, fresh: Rows
) -> None:
    generator = torch.Generator().manual_seed(0)
    wild = ConstantActor((0.6, 0.2))
    plain = Deployed.of(wild, guardian, history)
    keeping = Deployed.of(Nearest.of(wild, guardian, history), guardian, history)
    before, after = (d.decide(fresh.states, generator) for d in (plain, keeping))
    assert float(before.deferred.double().mean()) > 0.2
    assert float(after.deferred.double().mean()) < 0.5 * float(before.deferred.double().mean())
    fine = ~before.deferred
    assert torch.equal(before.doses[fine], after.doses[fine])
    assert not bool(after.deferred[fine].any())


def test_a_protocol_reads_the_state_as_it_reads_the_chart(history: History, fresh: Rows) -> None:
    numbers = {name: (low + high) / 2 for name, (low, high) in PROTOCOL_RANGES.items()}
    actor = ByRule(protocol(numbers), history)
    proposed = actor.propose(fresh.states, torch.Generator())
    made = history.preparation
    charted = {
        name: made.states[name].inverse(fresh.states[:, i].numpy())
        for name, i in zip(made.states, history.place("current"), strict=True)
    }
    lag = dict(zip(made.doses, history.place("dose_lag", 1), strict=True))
    known = fresh.states[:, history.place("known", 1)[0]].numpy()
    pressor = made.doses["vasopressor"].inverse(fresh.states[:, lag["vasopressor"]].numpy()) * known
    rule = Protocol(ProtocolSettings(**numbers))
    rule.reset(len(fresh))
    wanted = rule.act(0, charted, {"vasopressor": pressor}, np.random.default_rng(0))
    for j, name in enumerate(made.doses):
        got = made.doses[name].inverse(proposed[:, j].numpy())
        assert np.allclose(got, wanted[name], atol=2e-3 * made.doses[name].high)
    assert float(proposed.std()) > 0.05


def test_sums_give_more_fluid_to_the_dry_and_pressor_to_the_hypotensive() -> None:
    numbers = dict.fromkeys(SUMS_RANGES, 0.0)
    numbers |= {"iv_fluid.little_urine": 500.0, "vasopressor.low_pressure": 0.1}
    two = {
        "urine": np.array([50.0, 400.0]),
        "weight": np.array([80.0, 80.0]),
        "map": np.array([52.0, 80.0]),
        "lactate": np.ones(2),
        "cvp": np.ones(2),
        "pf_ratio": np.full(2, 400.0),
        "sofa": np.ones(2),
        "step": np.zeros(2),
    }
    doses = sums(numbers)(two, {"vasopressor": np.zeros(2)})
    assert doses["vasopressor"].tolist() == pytest.approx([0.2, 0.0])
    assert doses["iv_fluid"][0] > 300
    assert doses["iv_fluid"][1] == 0
