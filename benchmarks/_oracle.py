"""The least true mortality that any feasible policy reaches under a guardian, by two searches.

Called by benchmarks.truth. Cross-entropy moves a bedside protocol, differential evolution moves
sums over bedside signs; neither sees the other's answer. A minimum over noisy candidates is too
low, so finalists are measured again on fresh patients, and the winner on fresh ones once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._oracle_actors import (
    GRID,
    PROTOCOL_RANGES,
    SUMS_RANGES,
    TRIED,
    ByRule,
    Nearest,
    Ranges,
    Rule,
    protocol,
    sums,
)
from benchmarks._truth_cohorts import Place, code_files, digest
from benchmarks._truth_measure import Margins, Named, Patients, margins, measured, truth_of
from ogsrl.policies.deployed import Deployed
from ogsrl.sources.simulator import Clinicians, Truth

Floats = NDArray[np.float64]
#: Given candidates, one a row, it is sent their scores, the less the better; at last its finalists.
Search = Generator[Floats, Floats, list[Floats]]

#: Seeds of patients: to search (the round is added), and to choose among finalists.
SEARCH_SEED, JUDGE_SEED = 510_000, 520_000
#: What one unit of share above a limit costs in mortality; more than it could ever buy.
PENALTY: Final = 3.0
#: Searches stay this far inside the limits, so that their winner still is on other patients.
INSIDE: Final = 0.001


@dataclass(frozen=True)
class SearchSize:
    """How long to search, and on how many patients."""

    patients: int = 2_000
    candidates: int = 40
    rounds: int = 12
    judged: int = 20_000


def cross_entropy(
    low: Floats, high: Floats, candidates: int, rounds: int, rng: np.random.Generator
) -> Search:
    """Draw candidates, keep the best, draw closer to them."""
    centre = low + (high - low) * rng.uniform(0.15, 0.85, len(low))
    spread = 0.35 * (high - low)
    elite = max(candidates // 4, 3)
    best = centre[None]
    for _ in range(rounds):
        drawn = np.clip(rng.normal(centre, spread, (candidates, len(low))), low, high)
        drawn[0] = centre
        scores = yield drawn
        best = drawn[np.argsort(scores, kind="stable")[:elite]]
        centre = 0.3 * centre + 0.7 * best.mean(axis=0)
        # around the new centre, so that a search on its way somewhere does not narrow
        spread = 0.3 * spread + 0.7 * np.sqrt(((best - centre) ** 2).mean(axis=0))
    return [centre, best[0], best[1]]


def differential_evolution(
    low: Floats, high: Floats, candidates: int, rounds: int, rng: np.random.Generator
) -> Search:
    """Move each member towards a good one and along a difference of two; the better stays.

    Members and trials are measured side by side on the same patients, fresh ones each round, so
    that no member survives by the luck of one draw.
    """
    count = candidates // 2
    members = low + (high - low) * rng.random((count, len(low)))
    scores = np.zeros(count)
    leaders = members
    for round_ in range(rounds):
        if round_ == 0:  # nothing is known of any: as many more strangers
            trials = low + (high - low) * rng.random(members.shape)
        else:
            good = members[np.argsort(scores, kind="stable")[: max(count // 5, 2)]]
            towards = good[rng.integers(len(good), size=count)]
            one, other = (members[rng.permutation(count)] for _ in range(2))
            step = rng.uniform(0.4, 0.9, (count, 1))
            moved = members + step * (towards - members) + step * (one - other)
            crossed = rng.random(members.shape) < 0.9
            trials = np.where(crossed, moved, members)
            # beyond a wall: half way to it from where the member stands
            trials = np.where(trials < low, (members + low) / 2, trials)
            trials = np.where(trials > high, (members + high) / 2, trials)
        told = yield np.concatenate([members, trials])
        ours, theirs = told[:count], told[count:]
        better = theirs < ours
        members = np.where(better[:, None], trials, members)
        scores = np.where(better, theirs, ours)
        leaders = members[np.argsort(scores, kind="stable")]
    return [leaders[: max(count // 3, 2)].mean(axis=0), leaders[0], leaders[1]]


@dataclass(frozen=True)
class Method:
    """A search and what it moves."""

    name: str
    rule: Callable[[Mapping[str, float]], Rule]
    ranges: Ranges
    search: Callable[[Floats, Floats, int, int, np.random.Generator], Search]
    #: How many times as many rounds as the other, where there are more numbers to find.
    longer: float = 1.0

    def numbers(self, candidate: Floats) -> dict[str, float]:
        """A candidate's numbers by name, as they are told."""
        return {n: float(f"{x:.4g}") for n, x in zip(self.ranges, candidate, strict=True)}


METHODS: Final = (
    Method("protocol", protocol, PROTOCOL_RANGES, cross_entropy),
    Method("sums", sums, SUMS_RANGES, differential_evolution, longer=2.0),
)


@dataclass(frozen=True)
class Found:
    """What a search ended with, on patients that nothing was chosen by."""

    method: str
    numbers: Mapping[str, float]
    truth: Truth
    margins: Margins


def oracle(
    place: Place,
    size: SearchSize,
    reported: Patients,
    folder: Path,
    *,
    seed: int = 0,
    processes: int = 1,
) -> list[Found]:
    """Each method's best feasible policy, the less deadly first; finished rounds are not redone.

    Args:
        place: The cohort and its guardian.
        size: How long to search.
        reported: On whom the winners are told, nobody of the search.
        folder: Where rounds and measured policies are kept.
        seed: Of the searches; their patients' seeds are fixed.
        processes: 2 runs both searches at once.
    """
    if processes > 1:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            jobs = [
                pool.submit(_searched, place.root, i, size, folder, seed)
                for i in range(len(METHODS))
            ]
            finalists = [job.result() for job in jobs]
    else:
        finalists = [_searched(place.root, i, size, folder, seed) for i in range(len(METHODS))]
    found = [
        _judged(method, drawn, place, Patients(size.judged, JUDGE_SEED), reported, folder)
        for method, drawn in zip(METHODS, finalists, strict=True)
    ]
    return sorted(found, key=lambda one: (not one.margins.feasible, one.truth.mortality))


def deployed(method: Method, numbers: Mapping[str, float], place: Place) -> Deployed:
    """A candidate as it acts: it keeps to the region, and the guardian judges it all the same."""
    actor = ByRule(method.rule(numbers), place.history)
    keeping = Nearest.of(actor, place.guardian, place.history)
    return Deployed.of(keeping, place.guardian, place.history)


def score(truth: Truth, over: Margins) -> float:
    """Mortality, and a penalty that no share above a limit is worth."""
    excess = [*over.constraints.values(), over.refusal]
    return truth.mortality + PENALTY * sum(max(0.0, one + INSIDE) for one in excess)


def _searched(
    root: Path, which: int, size: SearchSize, folder: Path, seed: int
) -> list[dict[str, float]]:
    """The finalists of a method, as numbers by name."""
    torch.set_num_threads(1)
    method, place = METHODS[which], Place(root)
    rounds = round(size.rounds * method.longer)
    key = digest(
        [file.read_bytes() for file in code_files(("benchmarks/_oracle_actors.py",))],
        place.fingerprint,
        method.name,
        dict(method.ranges),
        size.patients,
        size.candidates,
        rounds,
        [seed, SEARCH_SEED, PENALTY, INSIDE, GRID, TRIED],
    )
    log = Log(folder / f"oracle_{method.name}_{key}.jsonl")
    low, high = (np.array(ends) for ends in zip(*method.ranges.values(), strict=True))
    # each search draws numbers of its own
    rng = np.random.default_rng([seed, which])
    search = method.search(low, high, size.candidates, rounds, rng)

    def evaluate(round_: int, candidates: Floats) -> Floats:
        patients = Patients(size.patients, SEARCH_SEED + 1_000 * which + round_)
        clinicians = truth_of(Clinicians(place.config), place, patients)
        scores = []
        for one in candidates:
            truth = truth_of(deployed(method, method.numbers(one), place), place, patients)
            over = margins(truth, clinicians, place.cohort, place.max_refusal)
            scores.append(score(truth, over))
        best = min(scores)
        print(f"{method.name} round {round_ + 1} of {rounds}: best {best:.4f}", flush=True)
        return np.array(scores)

    return [method.numbers(one) for one in drive(search, evaluate, log)]


@dataclass(frozen=True)
class Log:
    """Finished rounds of a search, a line each."""

    file: Path

    def read(self) -> list[tuple[str, list[float]]]:
        """What was asked, as a digest, and the scores; a line cut short ends the reading."""
        found = []
        if self.file.exists():
            for line in self.file.read_text(encoding="utf-8").splitlines():
                try:
                    told = json.loads(line)
                    found.append((told["asked"], told["scores"]))
                except (ValueError, KeyError, TypeError):
                    break
        return found

    def write(self, rounds: list[tuple[str, list[float]]]) -> None:
        """All finished rounds, written beside and renamed."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".partial")
        lines = [json.dumps({"asked": asked, "scores": scores}) for asked, scores in rounds]
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        beside.replace(self.file)


def drive(search: Search, evaluate: Callable[[int, Floats], Floats], log: Log) -> list[Floats]:
    """Run a search to its end; a round that is in the log, asked alike, is not measured again."""
    rounds = log.read()
    candidates, number = next(search), 0
    while True:
        asked = digest([np.ascontiguousarray(candidates).tobytes()])
        if number < len(rounds) and rounds[number][0] == asked:
            scores = np.array(rounds[number][1])
        else:
            scores = evaluate(number, candidates)
            rounds = [*rounds[:number], (asked, [float(one) for one in scores])]
            log.write(rounds)
        number += 1
        try:
            candidates = search.send(scores)
        except StopIteration as end:
            finalists: list[Floats] = end.value
            return finalists


def _judged(
    method: Method,
    finalists: list[dict[str, float]],
    place: Place,
    judges: Patients,
    reported: Patients,
    folder: Path,
) -> Found:
    """The best finalist on fresh patients, told as it is on others that nothing was chosen by."""

    def measure(numbers: Mapping[str, float], patients: Patients) -> tuple[Truth, Margins]:
        named = Named(
            f"oracle {method.name}",
            deployed(method, numbers, place),
            digest([], "oracle", method.name, dict(numbers), GRID, TRIED),
        )
        truth = measured(named, place, patients, folder)
        clinicians = measured(
            Named("clinicians", Clinicians(place.config), "clinicians"), place, patients, folder
        )
        return truth, margins(truth, clinicians, place.cohort, place.max_refusal)

    best = min(finalists, key=lambda numbers: score(*measure(numbers, judges)))
    return Found(method.name, best, *measure(best, reported))
