"""Stage guardian: where the data end -> models/NAME/guardian/, reports/NAME/guardian.json.

Fits on training patients, calibrates on calibration patients, reports on validation patients. Too
few patients are no error: the guardian then refuses everything and says how many it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from ogsrl.figures.guardian import FIGURES, refuses_everything
from ogsrl.figures.style import save_svg
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.false_support import Fit, deadly, false_support
from ogsrl.guardian.members import GUARDIANS
from ogsrl.guardian.protocol import Guardian, Rows
from ogsrl.guardian.report import describe, fit_peers, ready, with_truth
from ogsrl.guardian.shortage import Part, Shortage
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors
from pipelines.parts import load_frame, load_parts
from pipelines.stage import Stage, write_json

#: Parts, and what their patients are called.
PARTS: Mapping[str, Part] = {
    "train": "training",
    "calibration": "calibration",
    "validation": "validation",
}
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
    behaviour = Behaviour.load(stage.model("behaviour"), history.preparation)
    generator = torch.Generator().manual_seed(stage.params.seed)
    guardian = _fit(parts, behaviour, params, generator)
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
        asks = isinstance(guardian, ChristoffelGuardian) and params.usual != "ratio"
        fit = partial(
            _fit_deadly,
            with_density=asks and behaviour.status == "fitted",
            params=params,
            generator=generator,
        )
        report = with_truth(report, _truth(stage, members, history, fit))
    write_json(stage.report("guardian.json"), report)
    _draw(stage, report)


def _fit(
    parts: Mapping[str, StayTensors],
    behaviour: Behaviour | None,
    params: GuardianParams,
    generator: torch.Generator,
) -> Guardian:
    """Fitted and calibrated; without the density that it must ask, it refuses everything."""
    train, calibration = parts["train"], Rows.of(parts["calibration"])
    layout, member = Layout.of(train.history), GUARDIANS[params.kind]
    known = behaviour if behaviour is None or behaviour.status == "fitted" else None
    asks = member is ChristoffelGuardian and params.usual == "density"
    guardian: Guardian
    if asks and behaviour is not None and known is None:
        guardian = ChristoffelGuardian.refusing(layout, _lacking(parts, behaviour))
    else:
        guardian = member.fit([Rows.of(train)], layout, params, generator, known)
    states, doses, patient = calibration.states, calibration.doses, calibration.patient
    return guardian.calibrate(states, doses, patient, params.alpha)


def _lacking(parts: Mapping[str, StayTensors], behaviour: Behaviour) -> Shortage:
    """Whose patients were too few for the clinicians' density."""
    for name, part in PARTS.items():
        if len(torch.unique(Rows.of(parts[name]).patient)) < behaviour.needed[name]:
            return Shortage(part, behaviour.needed[name])
    return Shortage("training", behaviour.needed["train"])


def _fit_deadly(
    train: StayTensors,
    calibration: StayTensors,
    with_density: bool,
    params: GuardianParams,
    generator: torch.Generator,
) -> Guardian:
    """As the stage's own, with a neural behaviour of its own; its choice needs no third part."""
    parts = {"train": train, "calibration": calibration, "validation": calibration}
    behaviour = None
    if with_density:
        neural = BehaviourParams(kinds=("neural",))
        behaviour = fit_behaviour(train, calibration, calibration, neural, generator)
    return _fit(parts, behaviour, params, generator)


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
    name, made = f"{guardian.kind}, {guardian.status}", guardian.threshold
    if guardian.status != "ready" or made is None:
        why = "" if guardian.lacking is None else f", {guardian.lacking}"
        return f"{name}{why}: everything is refused"
    if made.alpha is None:
        share = f"{100 * made.share:.1f} % of a patient's steps refused in calibration"
        return f"{name}: {share}, no promise"
    return f"{name}: at most {made.alpha:g} of a patient's steps refused"


def _draw(stage: Stage, report: dict[str, Any]) -> None:
    folder = stage.report("figures")
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        drawn = draw(report) if report["false_alarm"] else refuses_everything(report)
        save_svg(drawn, folder / f"{name}.svg")
