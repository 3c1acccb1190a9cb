"""Stage select: who is put forward -> models/NAME/selected/, reports/NAME/selection.json, figure.

Judges on validation patients alone, in a second model fitted on them and by fitted Q evaluation.
Nobody may be feasible: then `no policy` is saved, which always defers. Beside who was selected lies
what queries tell of a patient: predictions, and patients like this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch

from ogsrl.behaviour.policy import Behaviour
from ogsrl.dynamics.config import TooFewPatients
from ogsrl.errors import ModelError
from ogsrl.figures.select import FIGURES, nobody_judged
from ogsrl.figures.style import save_svg
from ogsrl.guardian.protocol import Guardian
from ogsrl.policies.deployed import Actor, Deployed
from ogsrl.policies.saved import load_policy, save_policy
from ogsrl.preparation.history import History
from ogsrl.query.evidence import Evidence
from ogsrl.query.model import EVIDENCE, PREDICTIONS, save_beside
from ogsrl.query.predictions import Predictions
from ogsrl.selection.choose import Candidate, Grounds, Selection, select
from ogsrl.selection.report import describe, nothing_to_select_report, too_few_report
from ogsrl.selection.screen import second_model
from pipelines.models import load_behaviour, load_guardian
from pipelines.parts import load_parts
from pipelines.stage import Stage, write_json


def run(stage: Stage) -> None:
    """Gather every policy that training saved, choose, and say why each other one lost."""
    validation = load_parts(stage, "validation")["validation"]
    history = validation.history
    behaviour = load_behaviour(stage, history)
    guardian = load_guardian(stage, history, behaviour)
    candidates = list(_candidates(stage, history, behaviour, guardian))
    params = stage.params.select
    if params.cloning not in stage.params.train.algorithms:
        stage.say(
            f"select.cloning: {params.cloning} is not in train.algorithms: nobody is compared with "
            "behaviour cloning"
        )
    if not candidates:
        training = {a: _status(stage, a)["status"] for a in stage.params.train.algorithms}
        _write(stage, history, None, nothing_to_select_report(training, params))
        return
    generator = torch.Generator().manual_seed(stage.params.seed)
    try:
        with stage.progress("second model, epochs") as update:
            model = second_model(validation, stage.params.dynamics, generator, update)
    except TooFewPatients as few:
        _write(stage, history, None, too_few_report(few.needed, params))
        return
    grounds = Grounds(validation, behaviour, model, stage.params.guardian.max_refusal)
    with stage.progress("candidates and fits, steps", _work(stage, len(candidates))) as update:
        chosen = select(
            candidates, grounds, params, generator, progress=lambda _what, more: update(more)
        )
    _write(stage, history, chosen, describe(chosen, params))
    actor = None if chosen.chosen is None else chosen.chosen.deployed.actor
    _write_beside(stage, Deployed.of(actor, guardian, history), behaviour, generator)


def _write_beside(
    stage: Stage, deployed: Deployed, behaviour: Behaviour, generator: torch.Generator
) -> None:
    """What queries tell beside a dose: from training patients, widths from calibration patients."""
    parts = load_parts(stage, "train", "calibration")
    params = stage.params.select.predictions
    with stage.progress("predictions, steps", params.start_steps + params.steps) as update:
        predictions = Predictions.fit(
            parts["train"], parts["calibration"], deployed, behaviour, params, generator, update
        )
    predictions.save(stage.model("selected", PREDICTIONS))
    evidence = Evidence.fit(parts["train"], generator)
    if evidence is not None:
        evidence.save(stage.model("selected", EVIDENCE))


def _candidates(
    stage: Stage, history: History, behaviour: Behaviour, guardian: Guardian
) -> Iterator[Candidate]:
    """Every checkpoint of every seed; what training says it saved must be there."""
    for algorithm in stage.params.train.algorithms:
        folder = stage.model("policies", algorithm)
        for seed, ended in _status(stage, algorithm)["seeds"].items():
            for step in ended["steps"]:
                found = folder / f"seed_{seed}" / f"step_{step}"
                actor, _ = load_policy(found, history, behaviour)
                yield Candidate(
                    name=f"{algorithm}, seed {seed}, step {step}",
                    algorithm=algorithm,
                    seed=int(seed),
                    checkpoint=f"step_{step}",
                    deployed=Deployed.of(actor, guardian, history),
                )


def _status(stage: Stage, algorithm: str) -> dict[str, Any]:
    file = stage.model("policies", algorithm, "status.json")
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"train.algorithms: {algorithm} is not trained; run train --algorithm {algorithm}"
        ) from None
    return found


def _work(stage: Stage, candidates: int) -> int:
    fqe = stage.params.select.fqe
    return candidates + fqe.start_steps + fqe.steps


def _write(
    stage: Stage, history: History, selection: Selection | None, report: dict[str, Any]
) -> None:
    """The policy put forward, or nobody; report and figure."""
    chosen = None if selection is None else selection.chosen
    about: dict[str, Any] = {"status": report["status"]}
    actor: Actor | None = None
    if chosen is not None:
        actor = chosen.deployed.actor
        about |= {"algorithm": chosen.algorithm, "seed": chosen.seed, "step": chosen.checkpoint}
    selected = stage.model("selected")
    save_policy(selected, actor, history, about)
    save_beside(stage.cohort_file, history.preparation, selected)
    write_json(stage.report("selection.json"), report)
    folder = stage.report("figures")
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw(report) if report["candidates"] else nobody_judged(report["status"])
        save_svg(figure, folder / f"{name}.svg")
    name = "nobody" if chosen is None else chosen.name
    among = len(report["candidates"])
    stage.say(f"{report['status'].replace('_', ' ')}: {name}, of {among} candidates")
    for one in report["candidates"]:
        if one["finalist"]:
            stage.say(f"{one['name']}: {one['reason']}")
