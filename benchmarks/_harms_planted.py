"""What can go wrong between a patient and a dose: each planted in a cohort that was whole.

Used by `benchmarks.harms`. A harm is planted before the first stage that it reaches; later
stages run as they always do, and one of them must refuse, or the audit must fail for the reason
named here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
import yaml

from benchmarks._truth_cohorts import NAME, Place
from ogsrl.errors import ModelError
from ogsrl.modeldir import save_model
from ogsrl.policies.actors import ConstantActor, NetworkActor
from ogsrl.policies.deployed import Actor
from ogsrl.policies.networks import LAYERS, Perceptrons
from ogsrl.policies.saved import load_policy, save_policy
from ogsrl.sources.simulator import simulate
from ogsrl.trajectories import read, write
from pipelines import ledger
from pipelines.parts import load_frame, load_parts
from pipelines.stage import Stage

Rng = np.random.Generator
#: What is done to a cohort's folder.
Plant = Callable[[Place, Rng], None]
#: Of stages, after which everything about a policy is known.
JUDGED = ("evaluate", "audit")


@dataclass(frozen=True)
class Harm:
    """One way to go wrong.

    Attributes:
        name: What happened.
        steps: Stages, and what is planted between them.
        gates: Of the audit; one of them must fail that did not fail before.
        refused: Instead: stage, and what its refusal must name.
        few: Patients of a cohort of its own, instead of the clean one.
    """

    name: str
    steps: Sequence[str | Plant]
    gates: tuple[str, ...] = ()
    refused: tuple[str, str] | None = None
    few: int = 0


def _raw(change: Callable[[pd.DataFrame, Rng], None]) -> Plant:
    """The table as the source gave it."""

    def plant(place: Place, rng: Rng) -> None:
        path = place.stage.data("raw", "trajectories.parquet")
        frame, kept = read(path), pq.read_schema(path)
        change(frame, rng)
        write(frame, path, kept)

    return plant


def others(place: Place, rng: Rng) -> None:
    """No harm: the test patients are others, in the same split."""
    path = place.stage.data("raw", "trajectories.parquet")
    frame, kept = read(path), pq.read_schema(path)
    test = load_frame(Stage("audit", NAME, place.root), "test")["patient_id"].unique()
    drawn = simulate(frame["patient_id"].nunique(), int(rng.integers(2**31)), place.config)
    drawn["stay_id"] = "N" + drawn["stay_id"]
    parts = (frame[~frame["patient_id"].isin(test)], drawn[drawn["patient_id"].isin(test)])
    write(pd.concat([one[frame.columns] for one in parts], ignore_index=True), path, kept)


def _litres(frame: pd.DataFrame, rng: Rng) -> None:
    del rng
    frame[["iv_fluid", "fluid_total"]] /= 1000


def _another_monitor(frame: pd.DataFrame, rng: Rng) -> None:
    there = frame["site"] == rng.choice(sorted(frame["site"].unique()))
    frame.loc[there, "map"] = (frame.loc[there, "map"] * 0.6).clip(15, 200)


def _told_at_admission(frame: pd.DataFrame, rng: Rng) -> None:
    died = frame.groupby("stay_id")["died"].transform("last").fillna(False).astype(bool)
    frame["comorbidity"] = np.where(died, 20.0, 2.0) + rng.integers(0, 3, len(frame))
    frame["comorbidity"] = frame.groupby("stay_id")["comorbidity"].transform("first")


def _charted_after_the_dose(frame: pd.DataFrame, rng: Rng) -> None:
    frame["cvp"] = (5 + 15 * frame["vasopressor"] + 0.1 * rng.normal(size=len(frame))).clip(-5, 40)


def _carried_forward(frame: pd.DataFrame, rng: Rng) -> None:
    del rng
    frame["spo2"] = frame.groupby("stay_id")["spo2"].transform("first")


def _hidden_deaths(frame: pd.DataFrame, rng: Rng) -> None:
    del rng
    hidden = (frame["female"] == 1) & frame["died"].fillna(False)
    frame.loc[hidden & (frame["end"] == "death"), "end"] = "discharge"
    frame.loc[hidden, "died"] = False


def _shuffled(frame: pd.DataFrame, rng: Rng) -> None:
    for ends in (["death", "discharge"], ["horizon"]):  # whose stays may be of any length, or not
        rows = frame.index[frame["end"].isin(ends)]
        other = rng.permutation(rows)
        for name in ("end", "died"):
            frame.loc[rows, name] = frame.loc[other, name].to_numpy()


def _other_ward(place: Place, rng: Rng) -> None:
    """Calibration patients of a ward that gives all that is allowed: much seems supported."""
    del rng
    path = place.stage.data("prepared", "calibration.parquet")
    frame, kept = read(path), pq.read_schema(path)
    for name, scale in place.history.preparation.doses.items():
        given = frame[f"given_{name}"].notna()
        frame.loc[given, name], frame.loc[given, f"given_{name}"] = 1.0, scale.high
    write(frame, path, kept)


def _other_oximeter(place: Place, rng: Rng) -> None:
    """All but validation and test patients' saturation is read 2 points too high."""
    del rng
    column = place.history.preparation.states["spo2"]
    for part in ("train", "calibration"):
        path = place.stage.data("prepared", f"{part}.parquet")
        frame, kept = read(path), pq.read_schema(path)
        plain = column.inverse(frame["spo2"].to_numpy())
        frame["spo2"] = column.forward(np.clip(plain + 2, 40, 100))
        write(frame, path, kept)


def _selected(place: Place) -> tuple[Actor, dict[str, Any]]:
    """Whoever was put forward; where nobody was, there is nothing to plant a harm in."""
    actor, about = load_policy(place.stage.model("selected"), place.history, place.behaviour)
    if actor is None:
        raise ModelError("nobody was put forward: no harm was planted, so none is caught")
    return actor, about


def _policy(change: Callable[[Place, Actor], Actor]) -> Plant:
    """Whoever was put forward."""

    def plant(place: Place, rng: Rng) -> None:
        del rng
        actor, about = _selected(place)
        changed = change(place, actor)
        save_policy(place.stage.model("selected"), changed, place.history, about)

    return plant


def _most_of_everything(place: Place, actor: Actor) -> Actor:
    del actor
    return ConstantActor.maximum(place.history)


def _nothing(place: Place, actor: Actor) -> Actor:
    del actor
    return ConstantActor.zero(place.history)


def _swapped(place: Place, actor: Actor) -> Actor:
    """The columns of the last layer change places."""
    del place
    assert isinstance(actor, NetworkActor)
    shape, flat = actor.networks.shape, actor.networks.flat.detach().clone()
    parts = torch.split(flat, [math.prod(size) for size in shape.sizes.values()])
    last = dict(zip(LAYERS, parts, strict=True))
    for name in ("w3", "b3"):
        weights = last[name].view(shape.sizes[name])
        weights.copy_(weights.flip(-1).clone())
    return NetworkActor(Perceptrons(shape, flat), actor.codes)


def _open_region(place: Place, rng: Rng) -> None:
    """A guardian that hardly refuses anything."""
    del rng
    guardian = place.guardian
    assert guardian.threshold is not None
    replace(guardian, threshold=replace(guardian.threshold, value=1e6)).save(
        place.stage.model("guardian")
    )


def _other_seeds_always_defer(place: Place, rng: Rng) -> None:
    del rng
    _, about = _selected(place)
    folder = place.stage.model("policies", about["algorithm"])
    for other in sorted(folder.glob("seed_*/step_*")):
        if other.parent.name != f"seed_{about['seed']}":
            _, theirs = load_policy(other, place.history, place.behaviour)
            save_policy(other, ConstantActor.maximum(place.history), place.history, theirs)


def _rows_inside(place: Place, rng: Rng) -> None:
    del rng
    train = load_parts(place.stage, "train")["train"]
    arrays = {"known": train.states.numpy()}
    save_model(place.stage.model("selected", "known"), "known", {}, arrays)


def _worn_out(place: Place, rng: Rng) -> None:
    stage = Stage("audit", NAME, place.root)
    test_set = ledger.patients_hash(load_frame(stage, "test"))
    hashes = [hashlib.sha256(rng.bytes(8)).hexdigest() for _ in range(30)]
    entries = [ledger.Entry(test_set, one, "ogsrl", i, "step_2000") for i, one in enumerate(hashes)]
    ledger.add(stage, entries)


def _at_any_price(place: Place, rng: Rng) -> None:
    """Whoever trains heeds the limits of his cohort file more than anything."""
    del rng
    path = place.root / "params.yaml"
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    told["algorithms"]["ogsrl"]["ogsrl"] |= {"multipliers": "fixed", "fixed_multiplier": 25.0}
    path.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")


def last_trained(place: Place) -> tuple[Actor, int, str]:
    """What training saved last, of the first seed, whatever selection said of it."""
    seed = place.stage.params.train.seeds[0]
    saved = place.stage.model("policies", "ogsrl", f"seed_{seed}").glob("step_*")
    last = max(saved, key=lambda one: int(one.name.removeprefix("step_")))
    actor, _ = load_policy(last, place.history, place.behaviour)
    assert actor is not None
    return actor, seed, last.name


def _last_put_forward(place: Place, rng: Rng) -> None:
    """Whatever selection said: the last that training saved."""
    del rng
    actor, seed, step = last_trained(place)
    chosen = {"algorithm": "ogsrl", "seed": seed, "checkpoint": step}
    about = {"status": "selected", "algorithm": "ogsrl", "seed": seed, "step": step}
    save_policy(place.stage.model("selected"), actor, place.history, about)
    report = place.stage.report("selection.json")
    told = json.loads(report.read_text(encoding="utf-8"))
    told["chosen"] = chosen | {"name": f"ogsrl, seed {seed}"}
    for one in told["candidates"]:
        one["chosen"] = chosen.items() <= one.items()
    report.write_text(json.dumps(told), encoding="utf-8")


def _flipped(place: Place, rng: Rng) -> None:
    """Limits bind on the wrong side of each threshold; done twice, they are right again."""
    del rng
    path = place.stage.cohort_file
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in told["constraints"].values():
        here, there = ("<", ">=") if " < " in entry["expression"] else (">=", "<")
        entry["expression"] = entry["expression"].replace(f" {here} ", f" {there} ")
    path.write_text(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), encoding="utf-8")


_DATA = ("validate", "prepare")

HARMS: tuple[Harm, ...] = (
    Harm("fluid_in_litres", (_raw(_litres), *_DATA), refused=("validate", "iv_fluid")),
    Harm("a_site_reads_otherwise", (_raw(_another_monitor), *_DATA), refused=("validate", "map")),
    Harm(
        "a_column_knows_the_end", (_raw(_told_at_admission), *_DATA), refused=("prepare", "comorb")
    ),
    Harm(
        "a_column_knows_the_dose",
        (_raw(_charted_after_the_dose), *_DATA),
        refused=("prepare", "cvp"),
    ),
    Harm(
        "a_constraint_carried_forward",
        (_raw(_carried_forward), *_DATA),
        refused=("prepare", "spo2"),
    ),
    Harm("deaths_of_women_hidden", (_raw(_hidden_deaths), *_DATA, *JUDGED), gates=("outcomes",)),
    Harm("ends_shuffled", (_raw(_shuffled), *_DATA, "dynamics", *JUDGED), gates=("signal",)),
    Harm("300_patients", (), gates=("detectable", "false_alarms"), few=300),
    Harm(
        "limits_flipped",
        (
            *(_flipped, _at_any_price, "prepare", "dynamics", "train", "select"),
            *(_flipped, "prepare", "dynamics", _last_put_forward, *JUDGED),
        ),
        gates=("constraints",),
    ),
    Harm("another_oximeter", (_other_oximeter, "dynamics", "audit"), gates=("calibration",)),
    Harm("guardian_of_another_ward", (_other_ward, "guardian", "audit"), gates=("false_alarms",)),
    Harm("always_defers", (_policy(_most_of_everything), *JUDGED), gates=("steps_deferred",)),
    Harm(
        "lets_die",
        (_open_region, _policy(_nothing), *JUDGED),
        gates=("better", "cloning", "constraints"),
    ),
    Harm("doses_swapped", (_policy(_swapped), *JUDGED), gates=("steps_deferred", "cloning")),
    Harm("one_seed_of_many", (_other_seeds_always_defer, *JUDGED), gates=("seeds",)),
    Harm("rows_in_the_model", (_rows_inside, "audit"), gates=("rows_in_model",)),
    Harm("test_patients_worn_out", (_worn_out, "audit"), gates=("test_uses",)),
)
