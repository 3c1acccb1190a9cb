"""Stage guardian: where the data end -> models/NAME/guardian/, reports/NAME/guardian.json.

Fits on training patients, calibrates on calibration patients, reports on validation patients. Too
few patients are no error: the guardian then refuses everything and says how many it needs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from ogsrl.behaviour.config import BehaviourParams
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.behaviour.policy import Behaviour
from ogsrl.dynamics.config import TooFewPatients
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.interventions import is_simulated
from ogsrl.errors import SpecError
from ogsrl.figures.guardian import FIGURES
from ogsrl.figures.style import save_svg, too_few
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.false_support import Fit, deadly, false_support
from ogsrl.guardian.members import GUARDIANS
from ogsrl.guardian.protocol import Guardian, LogDensity, Rows
from ogsrl.guardian.report import describe, fit_peers, ready, with_truth
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors
from pipelines.parts import load_frame, load_parts
from pipelines.stage import Stage, write_json

#: Fresh simulated patients who are asked about other doses.
FRESH = 800
#: Simulated training patients of the variant in which unsupported doses kill.
DEADLY = 4_000


def run(stage: Stage) -> None:
    """Fit, calibrate, save, and say how it does on patients never seen."""
    params = stage.params.guardian
    if GUARDIANS[params.kind].holds_rows:
        acting = [kind for kind, member in GUARDIANS.items() if not member.holds_rows]
        raise SpecError(
            f"guardian.kind: {params.kind} holds rows of patients, so it is a peer and never acts; "
            f"choose {' or '.join(acting)}"
        )
    parts = load_parts(stage, "train", "calibration", "validation")
    history = parts["train"].history
    behaviour = _behaviour(stage, history)
    generator = torch.Generator().manual_seed(stage.params.seed)
    guardian = _fit(parts["train"], parts["calibration"], behaviour, params, generator)
    guardian.save(stage.model("guardian"))
    stage.say(_verdict(guardian))
    peers: dict[str, Guardian | str] = {}
    train, calibration = Rows.of(parts["train"]), Rows.of(parts["calibration"])
    if guardian.status == "ready":
        peers = fit_peers(guardian, train, calibration, params, generator)
    frame = load_frame(stage, "validation")
    report = describe(guardian, peers, train, parts["validation"], frame, generator)
    if guardian.status == "ready" and is_simulated(stage.cohort):
        members = ready(guardian, peers)
        fit = partial(
            _fit_deadly,
            with_density=behaviour is not None and params.usual != "ratio",
            params=params,
            generator=generator,
        )
        report = with_truth(report, _truth(stage, members, history, fit))
    write_json(stage.report("guardian.json"), report)
    _draw(stage, report)


def _behaviour(stage: Stage, history: History) -> LogDensity | None:
    """The clinicians' density; None if their patients were too few for one."""
    behaviour = Behaviour.load(stage.model("behaviour"), history.preparation)
    return None if behaviour.status == "too_few_patients" else behaviour


def _fit(
    train: StayTensors,
    calibration: StayTensors,
    log_density: LogDensity | None,
    params: GuardianParams,
    generator: torch.Generator,
) -> Guardian:
    layout, rows = Layout.of(train.history), Rows.of(calibration)
    member = GUARDIANS[params.kind]
    guardian = member.fit([Rows.of(train)], layout, params, generator, log_density)
    return guardian.calibrate(rows.states, rows.doses, rows.patient, params.alpha)


def _fit_deadly(
    train: StayTensors,
    calibration: StayTensors,
    with_density: bool,
    params: GuardianParams,
    generator: torch.Generator,
) -> Guardian:
    """As the stage's own, with a neural behaviour of its own; its choice needs no third part."""
    behaviour = None
    if with_density:
        neural = BehaviourParams(kinds=("neural",))
        behaviour = fit_behaviour(train, calibration, calibration, neural, generator)
        behaviour = behaviour if behaviour.status == "fitted" else None
    return _fit(train, calibration, behaviour, params, generator)


def _truth(
    stage: Stage, members: dict[str, Guardian], history: History, fit: Fit
) -> dict[str, Any]:
    """What only the simulator knows: false support, and the variant in which it kills."""
    rng = np.random.default_rng(stage.params.seed)
    found: dict[str, Any] = {"false_support": None, "deadly": deadly(fit, history, DEADLY, rng)}
    try:
        dynamics = Dynamics.load(stage.model("dynamics"), history)
    except TooFewPatients:
        return found
    found["false_support"] = false_support(members, dynamics, history, FRESH, rng)
    return found


def _verdict(guardian: Guardian) -> str:
    if guardian.status == "ready":
        return f"{guardian.kind}, ready: at most {guardian.alpha:g} of a patient's steps refused"
    needed = "" if guardian.needed is None else f", {guardian.needed} patients are needed"
    return f"{guardian.kind}, {guardian.status}{needed}: everything is refused"


def _draw(stage: Stage, report: dict[str, Any]) -> None:
    folder = stage.report("figures")
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        few = report["false_alarm"] is None
        save_svg(too_few(report["needed"] or 10) if few else draw(report), folder / f"{name}.svg")
