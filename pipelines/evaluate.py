"""Stage evaluate: what policies come to -> reports/NAME/evaluation.{parquet,json}, figures.

Reads test patients, on whom nothing was fitted, tuned or selected. Cross-fitted values learn from
calibration patients too, by whom no policy was trained or chosen; they are asked of test patients
alone. Every policy measured goes into the test-set ledger; what shows single patients goes to
private/NAME/ alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ogsrl.behaviour.policy import Behaviour
from ogsrl.errors import ModelError
from ogsrl.evaluation.closer import Closer, look_closer
from ogsrl.evaluation.differing import most_different
from ogsrl.evaluation.enough import Lacking, lacking
from ogsrl.evaluation.evaluate import Evaluation, Grounds, Subject, evaluate, work
from ogsrl.evaluation.known import Truths, known, truths
from ogsrl.evaluation.report import empty_table, flat, frontier, sentences, table
from ogsrl.evaluation.standing import Standing, standing
from ogsrl.figures.evaluate import FIGURES
from ogsrl.figures.style import save_svg
from ogsrl.guardian.protocol import Guardian
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.saved import load_policy
from ogsrl.preparation.groups import subgroups
from ogsrl.preparation.history import History
from pipelines import ledger
from pipelines.models import load_behaviour, load_dynamics, load_guardian
from pipelines.parts import load_frame, load_parts
from pipelines.stage import Stage, write_frame, write_json

#: Names of who was put forward and of the cloning it was compared with.
SELECTED, CLONING = "selected", "cloning"


@dataclass(frozen=True)
class Found:
    """A policy to be measured, and where it lies."""

    subject: Subject
    directory: Path


def run(stage: Stage) -> None:
    """Measure whoever was selected, behaviour cloning, the other seeds, and the clinicians."""
    parts = load_parts(stage, "train", "calibration", "test")
    test, history = parts["test"], parts["test"].history
    behaviour, dynamics = load_behaviour(stage, history), load_dynamics(stage, history)
    few = lacking(test)
    if behaviour.status != "fitted" or few is not None:
        _write_too_few(stage, few or Lacking("training patients", stage.params.behaviour.min_train))
        return
    guardian = load_guardian(stage, history, behaviour)
    found = list(_policies(stage, history, behaviour, guardian))
    params = stage.params.evaluate
    generator = torch.Generator().manual_seed(stage.params.seed)
    grounds = Grounds(test, behaviour, parts["train"], parts["calibration"], dynamics)
    subjects = [one.subject for one in found]
    with stage.progress("fits and policies, steps", work(len(found), params)) as update:
        evaluation = evaluate(subjects, grounds, params, generator, update)
    true = Truths()
    if known(stage.cohort) and params.truth_patients:
        with stage.progress("truth, policies", len(found) + 1) as update:
            asked = params.truth_patients, stage.params.seed
            true = truths(evaluation.subjects, stage.cohort, *asked, update)
    robust = params.robust.start_steps + params.robust.steps
    with stage.progress("sensitivity, steps", robust) as update:
        about = look_closer(evaluation, generator, update)
    others = [one.subject.name for one in found if one.subject.name == CLONING]
    groups = subgroups(load_frame(stage, "test"), history.preparation)
    stands = standing(evaluation, SELECTED, others, groups)
    _enter_ledger(stage, found)  # before anybody can see a number
    _write(stage, evaluation, true, about, stands)
    _write_private(stage, evaluation)


def _policies(
    stage: Stage, history: History, behaviour: Behaviour, guardian: Guardian
) -> Iterator[Found]:
    """Who was selected, the cloning it was compared with, and its own other seeds."""

    def one(name: str, directory: Path) -> Found:
        actor, about = load_policy(directory, history, behaviour)
        return Found(
            Subject(
                name,
                Deployed.of(actor, guardian, history),
                algorithm=about.get("algorithm"),
                seed=about.get("seed"),
                checkpoint=_checkpoint(about.get("step")),
            ),
            directory,
        )

    report, selected = _selection(stage), one(SELECTED, stage.model("selected"))
    chosen, cloning = report["chosen"], stage.params.select.cloning
    who = [(chosen or {}).get(name) for name in ("algorithm", "seed", "checkpoint")]
    here = selected.subject
    if who != [here.algorithm, here.seed, here.checkpoint]:
        raise ModelError("models/selected is not who selection.json names; run select again")
    yield selected
    compared = chosen is not None and chosen["algorithm"] == cloning
    for other in report["candidates"]:
        if other["chosen"]:
            continue
        algorithm, name = other["algorithm"], f"{other['algorithm']}_seed_{other['seed']}"
        same = chosen is not None and algorithm == chosen["algorithm"]
        same = same and other["checkpoint"] == chosen["checkpoint"]
        directory = stage.model("policies", algorithm, f"seed_{other['seed']}", other["checkpoint"])
        if other["finalist"] and algorithm == cloning and not compared:
            compared = True
            yield one(CLONING, directory)
        elif same:
            yield one(name, directory)
        elif other["finalist"] and algorithm == cloning:
            yield one(f"{name}_{other['checkpoint']}", directory)


def _checkpoint(step: str | int | None) -> str | None:
    """As selection names it; training tells the number alone."""
    return f"step_{step}" if isinstance(step, int) else step


def _selection(stage: Stage) -> dict[str, Any]:
    try:
        text = stage.report("selection.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelError("nobody was selected, nor refused; run select first") from None
    found: dict[str, Any] = json.loads(text)
    return found


def _write(
    stage: Stage, evaluation: Evaluation, true: Truths, about: Closer, stands: Standing
) -> None:
    """Numbers, figures, and what a person sees first."""
    rows, told = table(evaluation, true), flat(evaluation, true)
    write_frame(stage.report("evaluation.parquet"), rows)
    told |= {**about.plain(), **stands.plain()}
    surer = {f"surer_than_default.{n}": x for n, x in enumerate(stage.params.evaluate.surer)}
    write_json(stage.report("evaluation.json"), {"status": "evaluated", **told, **surer})
    plane = about.clinical[SELECTED].planes
    shown = {"doses": about.distributions(), "calibration": about.calibration.drawn()}
    _draw(stage, rows, {"frontier": frontier(evaluation), "plane": plane, **shown})
    for line in sentences(evaluation):
        stage.say(line)


def _write_too_few(stage: Stage, few: Lacking) -> None:
    """Too few patients fail no stage."""
    ledger.add(stage, ())  # which audit reads
    rows = empty_table()
    write_frame(stage.report("evaluation.parquet"), rows)
    report = {"status": "too_few_patients", "needed": few.needed, "needed_of": few.whom}
    write_json(stage.report("evaluation.json"), report)
    nothing = {"frontier": rows, "plane": {}, "doses": {}, "calibration": {"bins": []}}
    _draw(stage, rows, nothing)
    stage.say(f"too few patients: {few}")


def _draw(stage: Stage, rows: pd.DataFrame, shown: Mapping[str, Any]) -> None:
    """Every figure, whether there is something to show or not; of most, what the rows tell."""
    folder = stage.report("figures")
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        save_svg(draw(shown.get(name.removeprefix("evaluate_"), rows)), folder / f"{name}.svg")


def _write_private(stage: Stage, evaluation: Evaluation) -> None:
    """The stays in which who was selected and clinicians differ most."""
    test = evaluation.shared.grounds.test
    stays = load_frame(stage, "test")["stay_id"]
    differ = most_different(test, evaluation.shared.executed[SELECTED], stays)
    write_frame(stage.private("evaluate_differing.parquet"), differ)


def _enter_ledger(stage: Stage, found: Sequence[Found]) -> None:
    """Each policy once; what it was, and on which patients."""
    test_set = ledger.patients_hash(load_frame(stage, "test"))
    entries = [
        ledger.Entry(
            test_set=test_set,
            policy=ledger.policy_hash(one.directory, stage.model("guardian")),
            algorithm=one.subject.algorithm,
            seed=one.subject.seed,
            checkpoint=one.subject.checkpoint,
        )
        for one in found
    ]
    new = ledger.add(stage, entries)
    before = sum(one.test_set == test_set for one in ledger.measured(stage))
    stage.say(
        f"{before} policies were ever measured on these test patients, {new} of them new; commit "
        f"ledger/{stage.cohort_name}.jsonl"
    )
