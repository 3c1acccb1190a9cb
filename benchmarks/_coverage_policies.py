"""The policies whose estimates are held against the truth, fitted once on a cohort of its own.

Called by benchmarks.coverage. How good each is is known from the simulator; two blends are tuned
there until they are as much better or worse than the clinicians as is asked, on the way towards our
doses or away from them: less and less treatment would be refused before it was worse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._truth_cohorts import Place, digest
from benchmarks._truth_measure import Named, Patients, measured, truth_of
from benchmarks._truth_training import train_and_select
from ogsrl.evaluation.evaluate import Subject
from ogsrl.evaluation.known import Known, Truths
from ogsrl.evaluation.simulated import each_patient
from ogsrl.policies.actors import ConstantActor, DenoisedActor
from ogsrl.policies.deployed import Actor, Deployed
from ogsrl.policies.saved import load_policy, save_policy
from ogsrl.sources.simulator import Clinicians, Policy
from ogsrl.sources.simulator.config import DOSE_BOUNDS, Floats

CLINICIANS, CLONING, OURS = "clinicians", "cloning", "ogsrl"
BETTER, WORSE, MUCH_WORSE, DEADLY = "better_03", "worse_01", "worse_03", "deadly"
#: How much less mortality each blend is tuned to.
ASKED: Mapping[str, float] = {BETTER: 0.03, WORSE: -0.01, MUCH_WORSE: -0.03}
#: Blocks of states that are remembered.
BLOCKS = 32
#: Halvings of the blend's share.
HALVINGS = 7


@dataclass(frozen=True)
class BlendActor:
    """From one actor's doses so far towards another's; below 0 away from them."""

    first: Actor
    second: Actor
    share: float

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(rows, doses) in [-1, 1]."""
        mine, theirs = (one.propose(states, generator) for one in (self.first, self.second))
        return (mine + self.share * (theirs - mine)).clip(-1, 1)


class Remembered:
    """An actor that draws nothing, asked once about the same states, whichever blend it is in."""

    def __init__(self, actor: Actor) -> None:
        """Of this actor."""
        self.actor = actor
        self.said: dict[bytes, torch.Tensor] = {}

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(rows, doses) in [-1, 1]."""
        key = sha256(states.contiguous().numpy().tobytes()).digest()
        if key not in self.said:
            if len(self.said) >= BLOCKS:
                self.said.clear()
            self.said[key] = self.actor.propose(states, generator)
        return self.said[key]


@dataclass(frozen=True)
class Fixed:
    """The policies, and what is true of them.

    Attributes:
        subjects: The clinicians apart.
        truths: Of all, clinicians too.
    """

    subjects: tuple[Subject, ...]
    truths: Truths


def fix(place: Place, folder: Path, patients: Patients) -> Fixed:
    """Train, tune and measure; what was done is read back."""
    file = folder / "fixed.json"
    if not file.exists():
        told = _fixed(place, folder, patients)
        beside = file.with_suffix(".partial")
        beside.write_text(json.dumps(told), encoding="utf-8")
        beside.replace(file)
    return read(place, folder)


def read(place: Place, folder: Path) -> Fixed:
    """What `fix` wrote."""
    told = json.loads((folder / "fixed.json").read_text(encoding="utf-8"))
    acting = _deployed(place, folder, told["shares"])
    own, gains = (
        {name: {q: Known(*x) for q, x in each.items()} for name, each in told[which].items()}
        for which in ("own", "gains")
    )
    subjects = tuple(Subject(name, one) for name, one in acting.items())
    return Fixed(subjects, Truths(own, gains))


def _fixed(place: Place, folder: Path, patients: Patients) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    for one in train_and_select(place, {"bc": [0], "ogsrl": [0]}):
        name = CLONING if one.algorithm == "bc" else OURS
        save_policy(folder / name, one.deployed.actor, place.history, {"algorithm": name})
    # tuned on other patients than those on whom the truth is told
    few = Patients(patients.count // 5, patients.seed + 1)
    theirs = truth_of(Clinicians(place.config), place, few)
    shares: dict[str, float] = {}
    for name, asked in ASKED.items():
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            shares[name] = (low + high) / 2
            tried = _deployed(place, folder, {name: shares[name]})[name]
            less = theirs.mortality - truth_of(tried, place, few).mortality
            far = less > asked if asked > 0 else less < asked
            low, high = (low, shares[name]) if far else (shares[name], high)
        print(f"{name}: share {shares[name]:.3f}, less mortality {less:+.4f}", flush=True)
    acts: dict[str, Policy | Deployed] = {CLINICIANS: Clinicians(place.config)}
    acts |= _deployed(place, folder, shares)
    each = {}
    for name, acting in acts.items():
        known = Named(name, acting, digest([], name, shares.get(name), "coverage"))
        each[name] = each_patient(measured(known, place, patients, folder), place.cohort)
    base = each[CLINICIANS]
    own = {name: {q: _mean(x) for q, x in found.items()} for name, found in each.items()}
    gains = {
        name: {q: _mean(x - base[q]) for q, x in found.items()}
        for name, found in each.items()
        if name != CLINICIANS
    }
    return {"shares": shares, "own": own, "gains": gains}


def _deployed(place: Place, folder: Path, shares: Mapping[str, float]) -> dict[str, Deployed]:
    found = {name: _saved(place, folder, name) for name in (CLONING, OURS)}
    ours = found[OURS].actor
    assert ours is not None
    ends = Remembered(DenoisedActor(place.behaviour)), Remembered(ours)
    found |= {name: _blend(place, ends, name, share) for name, share in shares.items()}
    top = {name: 1.0 if name == "iv_fluid" else -1.0 for name in DOSE_BOUNDS}
    flood = ConstantActor(tuple(top[name] for name in place.history.preparation.doses))
    return {**found, DEADLY: Deployed.of(flood, None, place.history)}


def _saved(place: Place, folder: Path, name: str) -> Deployed:
    actor, _ = load_policy(folder / name, place.history, place.behaviour)
    return Deployed.of(actor, place.guardian, place.history)


def _blend(place: Place, ends: tuple[Actor, Actor], name: str, share: float) -> Deployed:
    """Clinicians without their variation, so far towards our doses or away from them."""
    actor = BlendActor(*ends, share if ASKED[name] > 0 else -share)
    return Deployed.of(actor, place.guardian, place.history)


def _mean(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
