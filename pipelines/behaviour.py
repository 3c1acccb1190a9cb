"""Stage behaviour: the clinicians' policy -> models/NAME/behaviour/, reports/NAME/behaviour.json.

Reads training, calibration and validation patients; test patients are none of its business.
"""

from __future__ import annotations

from typing import Any

import torch

from ogsrl.behaviour.distribution import DosePolicy, Supported, Tempered
from ogsrl.behaviour.fitting import DecisionParts, fit_decisions
from ogsrl.behaviour.policy import Behaviour
from ogsrl.behaviour.report import describe
from ogsrl.figures.behaviour import FIGURES
from ogsrl.figures.style import save_svg, too_few
from pipelines.parts import load_parts
from pipelines.stage import Stage, write_json

#: How much surer than clinicians the tempered policy of the report is.
POWER = 1.5
#: How rarely, against anyone, clinicians may give a dose that the marginal clinician still gives.
LEAST = 0.2


def run(stage: Stage) -> None:
    """Fit, save, judge on validation patients, draw."""
    tensors = load_parts(stage, "train", "calibration", "validation")
    parts = DecisionParts.of(*tensors.values())
    params, generator = stage.params.behaviour, torch.Generator().manual_seed(stage.params.seed)
    with stage.progress("fitting") as update:
        behaviour = fit_decisions(parts, params, generator, lambda _: update(1))
        others = _others(behaviour, parts, generator)
    behaviour.save(stage.model("behaviour"))
    report = describe(behaviour, parts.train, parts.validation, others)
    write_json(stage.report("behaviour.json"), report)
    _draw(stage, report)
    if behaviour.status == "too_few_patients":
        stage.say(f"too few patients; needed: {behaviour.needed}")
    else:
        stage.say(f"kind {report['kind']}, log-likelihood by kind {report['kinds']}")


def _others(
    behaviour: Behaviour, parts: DecisionParts, generator: torch.Generator
) -> dict[str, DosePolicy]:
    """Policies that are not the clinicians', to see whether their weights average 1."""
    if behaviour.fitted is None:
        return {}
    found: dict[str, DosePolicy] = {
        "supported marginal": Supported(behaviour.marginal, behaviour, LEAST),
        "tempered": Tempered(behaviour, POWER),
    }
    again = behaviour.params.model_copy(update={"kinds": (behaviour.fitted.kind,)})
    half = fit_decisions(parts.half(generator), again, generator)
    return found | ({"half": half} if half.fitted is not None else {})


def _draw(stage: Stage, report: dict[str, Any]) -> None:
    folder = stage.report("figures")
    folder.mkdir(parents=True, exist_ok=True)
    few = {
        "too_few_patients": too_few(report["needed"]["train"]),
        "too_few_to_report": too_few(report["smallest_cell"], "validation"),
    }.get(report["status"])
    for name, draw in FIGURES.items():
        save_svg(few or draw(report), folder / f"{name}.svg")
