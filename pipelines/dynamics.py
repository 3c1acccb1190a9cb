"""Stage dynamics: the ensemble of what patients do next -> models/NAME/dynamics/, dynamics.json.

Fits on training patients, calibrates on calibration patients, reports on validation patients.
"""

from __future__ import annotations

from typing import Any

import torch

from ogsrl.dynamics.config import TooFewPatients
from ogsrl.dynamics.counts import describe_counts, fit_counts, has_counts
from ogsrl.dynamics.fitting import fit
from ogsrl.dynamics.report import describe, too_few_report
from ogsrl.dynamics.saved import save_too_few
from ogsrl.figures.dynamics import FIGURES
from ogsrl.figures.style import save_svg, too_few
from pipelines.parts import load_parts
from pipelines.stage import Stage, write_json


def run(stage: Stage) -> None:
    """Fit, calibrate, report and draw; too few patients are a status, not a failure."""
    directory = stage.model("dynamics")
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        report = _counts(stage) if has_counts(stage.cohort) else _ensemble(stage)
    except TooFewPatients as few:
        save_too_few(directory, few.needed)
        report = too_few_report(few.needed)
    write_json(stage.report("dynamics.json"), report)
    folder = stage.report("figures")
    folder.mkdir(parents=True, exist_ok=True)
    fitted, few_of = report["status"] == "fitted", report["status"].split("_")
    for name, draw in FIGURES.items():
        whose = "validation" if "validation" in few_of else "training"
        save_svg(
            draw(report) if fitted else too_few(report["needed"], whose), folder / f"{name}.svg"
        )
    stage.say(report["status"].replace("_", " "))


def _ensemble(stage: Stage) -> dict[str, Any]:
    parts = load_parts(stage, "train", "calibration", "validation")
    params = stage.params.dynamics
    generator = torch.Generator().manual_seed(stage.params.seed)
    with stage.progress("passes over the data") as update:
        dynamics = fit(parts["train"], parts["calibration"], params, generator, update)
    dynamics.save(stage.model("dynamics"))
    return describe(dynamics, parts["train"], parts["validation"], generator)


def _counts(stage: Stage) -> dict[str, Any]:
    parts = load_parts(stage, "train", "validation")
    dynamics = fit_counts(parts["train"], parts["validation"])
    dynamics.save(stage.model("dynamics"))
    return describe_counts(dynamics, parts["validation"])
