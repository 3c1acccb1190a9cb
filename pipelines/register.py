"""Stage register: the run, the version and its alias -> MLflow, reports/NAME/registration.json.

What is registered is what was audited. An alias is earned: champion by a passed audit and by being
no worse than the champion on the same test patients.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ogsrl.errors import OgsrlError
from ogsrl.evaluation.asking import CLINICIANS, Grounds, Shared
from ogsrl.evaluation.standing import advantage_over
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.tensors import stay_tensors
from ogsrl.query.model import Model, check_bundle, write_bundle
from ogsrl.query.request import columns, example
from ogsrl.registry import CHAMPION, Compare, Entry, Registry
from pipelines import ledger
from pipelines.parts import load_frame
from pipelines.stage import Stage, write_json

#: Reports that are kept with the run, beside the card and the figures.
REPORTS = (
    "cohort", "validation", "dataset", "behaviour", "dynamics", "guardian", "selection",
    "evaluation", "audit",
)  # fmt: skip
CARDS = ("card.html", "card.md", "card.json")
OURS = "selected"


def run(stage: Stage) -> None:
    """Register what the audit judged."""
    home = Path(os.environ.get("OGSRL_HOME", stage.root)).absolute()
    uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    registry = Registry.open(uri, home)
    params = stage.params.registry
    entry = _entry(stage)
    placed = registry.register(entry, params.experiment, params.margin, _compare(stage))
    receipt = {
        "cohort": stage.cohort_name,
        "identity": entry.identity,
        "run": placed.run,
        "version": placed.version,
        "verdict": entry.verdict,
        "alias": placed.alias,
        "said": placed.said,
    }
    write_json(stage.report("registration.json"), receipt)
    where = "no version" if placed.version is None else f"version {placed.version}"
    stage.say(f"{where}{'' if placed.new else ' (was there already)'}: {placed.said}")
    if placed.alias is not None:
        stage.say(f"models:/{entry.name}@{placed.alias}; see it with `make ui`")


def _entry(stage: Stage) -> Entry:
    audit, card = _read(stage, "audit"), _read(stage, "card")
    if audit["model_sha256"] != ledger.model_hash(stage):
        raise OgsrlError(
            f"models/{stage.cohort_name}: files are not those that were audited; run audit again"
        )
    nobody = _read(stage, "selection")["chosen"] is None
    bundle, made_of = None, "nobody"
    if not nobody:
        bundle = stage.cache / "bundle" / stage.cohort_name
        made_of = write_bundle(stage.model(), bundle)
        check_bundle(bundle)
    card_sha256 = hashlib.sha256(stage.report("card.json").read_bytes()).hexdigest()
    page = card["first_page"]
    summary = "\n\n".join(
        (
            f"**{page['verdict']}**: {page['headline']}",
            page["recommends"],
            page["for_whom"],
            page["how_sure"],
            page["refuses"],
            *(f"Failed: {one}" for one in page["failed"]),
            *(f"Undecided: {one}" for one in page["undecided"]),
            *(f"Not asked: {one}" for one in page["not_asked"]),
            *(f"Looks worse for: {one}" for one in page["looks_worse_for"]),
            *(f"Looser than by default: {one}" for one in page["loosened"]),
        )
    )
    reports = [stage.report(f"{name}.json") for name in REPORTS]
    reports += [stage.report(name) for name in CARDS] + [stage.report("figures")]
    cohort = stage.cohort
    return Entry(
        name=stage.cohort_name,
        identity=hashlib.sha256(f"{made_of} {card_sha256}".encode()).hexdigest(),
        verdict=str(audit["verdict"]),
        gates={one["name"]: str(one["verdict"]) for one in audit["gates"]},
        summary=summary,
        card_sha256=card_sha256,
        bundle=bundle,
        inputs=columns(cohort),
        example=example(cohort),
        requirements=list(_requirements()),
        reports=reports,
        params=dict(_flat(stage.params.model_dump(mode="json", by_alias=True))),
        metrics=_metrics(stage, audit),
        datasets=_hashes(stage),
        tags=_revisions(stage),
        looser=page["loosened"],
    )


def _compare(stage: Stage) -> Compare:
    """This model beside the one in a folder, on the same test patients."""

    def compare(folder: Path) -> tuple[float | None, str]:
        champion, ours = Model.load(folder), Model.load(stage.model())
        if champion.history.preparation.fingerprint != ours.history.preparation.fingerprint:
            return None, (
                "it was prepared otherwise, and cannot be asked about the same rows; measure it "
                "with `ogsrl evaluate`, and `ogsrl promote` the new one if that is better"
            )
        test, others = (
            stay_tensors(load_frame(stage, part), ours.history.preparation)
            for part in ("test", "calibration")
        )
        policies = {
            CLINICIANS: Deployed.of(None, None, ours.history),
            OURS: ours.deployed,
            CHAMPION: champion.deployed,
        }
        generator = torch.Generator().manual_seed(stage.params.seed)
        grounds = Grounds(test, ours.behaviour, others=others)
        with stage.progress("beside the champion, steps") as update:
            shared = Shared.of(policies, grounds, stage.params.evaluate, generator, update)
        bound = advantage_over(shared, OURS, CHAMPION)
        _note(stage, folder, champion)
        said = f"{bound.estimate:+.4f} ({bound.low:+.4f} to {bound.high:+.4f})"
        return bound.low, f"advantage on the same test patients {said}"

    return compare


def _note(stage: Stage, folder: Path, champion: Model) -> None:
    """The champion was measured on these patients too."""
    step = champion.about.get("step")
    entry = ledger.Entry(
        test_set=ledger.patients_hash(load_frame(stage, "test")),
        policy=ledger.policy_hash(folder / "selected", folder / "guardian"),
        algorithm=champion.about.get("algorithm"),
        seed=champion.about.get("seed"),
        checkpoint=None if step is None else str(step),
    )
    ledger.add(stage, [entry])


def _metrics(stage: Stage, audit: Mapping[str, Any]) -> dict[str, float]:
    """What was measured, as numbers."""
    told = _numbers(_read(stage, "evaluation"))
    gates = {f"gate.{one['name']}": one["measured"] for one in audit["gates"]}
    return told | _numbers(gates)


def _numbers(told: Mapping[str, Any]) -> dict[str, float]:
    return {
        re.sub(r"[^\w .:/-]", "_", name): float(value)
        for name, value in told.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _hashes(stage: Stage) -> dict[str, str]:
    """Of the table and of every part."""
    names = ("train", "calibration", "validation", "test")
    files = {name: stage.data("prepared", f"{name}.parquet") for name in names}
    files["trajectories"] = stage.data("validated", "trajectories.parquet")
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def _revisions(stage: Stage) -> dict[str, str]:
    """Of the code, and of what DVC says was made."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=stage.root, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!dvc.lock", ":!ledger")
    lock = stage.root / "dvc.lock"
    return {
        "git.commit": (git("rev-parse", "HEAD") or "unknown") + ("+" if changed else ""),
        "dvc.lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "none",
    }


def _requirements() -> Iterator[str]:
    """What the project needs, as it is installed here."""
    yield f"ogsrl=={importlib.metadata.version('ogsrl')}"
    for line in importlib.metadata.requires("ogsrl") or ():
        if "extra ==" in line:
            continue
        match = re.match(r"[A-Za-z0-9._-]+", line)
        assert match is not None  # every requirement begins with a name
        installed = importlib.metadata.version(match.group())
        yield f"{match.group()}=={installed.partition('+')[0]}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), json.dumps(value)


def _read(stage: Stage, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stage.report(f"{name}.json").read_text(encoding="utf-8"))
    return found
