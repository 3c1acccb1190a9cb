"""The test-set ledger: every policy that was ever measured on a test set, once.

Called by evaluate, and read by audit. `ledger/NAME.jsonl` is committed with the code and is no
output of a stage: it grows, and whoever reads a number on test patients can see how many others
were looked at. It holds hashes and names alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from ogsrl.errors import OgsrlError
from ogsrl.modeldir import CONFIG, WEIGHTS
from pipelines.stage import Stage

#: What a registered model is made of.
MODEL = ("behaviour", "guardian", "selected")


@dataclass(frozen=True)
class Entry:
    """One policy measured on one test set.

    Attributes:
        test_set: sha256 of who the test patients are.
        policy: Of what actor and guardian hold.
        algorithm: E.g. ogsrl; None of `no policy`.
        seed: Of its training.
        checkpoint: E.g. step_900.
    """

    test_set: str
    policy: str
    algorithm: str | None
    seed: int | None
    checkpoint: str | None


def policy_hash(*directories: Path) -> str:
    """Of what acts: all that these model directories hold, but for where a policy came from.

    So a policy is one, whether it lies among its algorithm's seeds or was put forward.
    """
    told = hashlib.sha256()
    for directory in directories:
        content = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        content["config"].pop("about", None)
        told.update(json.dumps(content, sort_keys=True).encode())
        told.update((directory / WEIGHTS).read_bytes())
    return told.hexdigest()


def model_hash(stage: Stage) -> str:
    """Of every file that a registered model is made of, by its place."""
    told = hashlib.sha256()
    for name in MODEL:
        for file in sorted(one for one in stage.model(name).rglob("*") if one.is_file()):
            told.update(file.relative_to(stage.model()).as_posix().encode() + b"\0")
            told.update(hashlib.sha256(file.read_bytes()).digest())
    return told.hexdigest()


def patients_hash(frame: pd.DataFrame) -> str:
    """Of who they are and what became of them, however their columns were prepared.

    Ids alone would not do: drawn patients are numbered alike, whatever their seed.
    """
    each = frame.groupby("stay_id").agg(who=("patient_id", "first"), n=("step", "size"))
    each["end"] = frame.dropna(subset="end").groupby("stay_id")["end"].last()
    lines = sorted("|".join(map(str, one)) for one in each.itertuples())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def measured(stage: Stage) -> tuple[Entry, ...]:
    """What the ledger holds of this cohort."""
    file = _file(stage)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        return tuple(Entry(**json.loads(line)) for line in lines if line)
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError):
        raise OgsrlError(
            f"ledger/{file.name}: a line is no entry; restore the file from git, it must not be "
            "edited"
        ) from None


def add(stage: Stage, entries: Sequence[Entry]) -> int:
    """Note what was measured, be it nothing; how many of these are new."""
    before = measured(stage)
    known = {(one.test_set, one.policy) for one in before}
    new: dict[tuple[str, str], Entry] = {}
    for one in entries:
        key = (one.test_set, one.policy)
        if key not in known:
            new.setdefault(key, one)
    file = _file(stage)
    if new or not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(_plain(one)) for one in (*before, *new.values())]
        beside = file.with_name(f".{file.name}.partial")
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        beside.replace(file)
    return len(new)


def _plain(entry: Entry) -> Mapping[str, str | int | None]:
    return asdict(entry)


def _file(stage: Stage) -> Path:
    return stage.root / "ledger" / f"{stage.cohort_name}.jsonl"
