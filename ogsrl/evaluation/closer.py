"""What is said of policies beside their values: measures of the bedside, calibration, sensitivity.

Called by the stage evaluate and by `ogsrl evaluate`, once the values are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ogsrl.evaluation.asking import CLINICIANS
from ogsrl.evaluation.clinical import Clinical, ClinicalParams, measure
from ogsrl.evaluation.confounding import Confounding, confounding
from ogsrl.evaluation.evaluate import Evaluation
from ogsrl.evaluation.quantities import primary
from ogsrl.evaluation.value_calibration import ValueCalibration, value_calibration


@dataclass(frozen=True)
class Closer:
    """A closer look.

    Attributes:
        clinical: By policy; the clinicians stand beside each.
        confounding: Of whoever is asked about first, if anybody.
        calibration: Of the clinicians' fitted values at first decisions against what followed.
    """

    clinical: Mapping[str, Clinical]
    confounding: Confounding | None
    calibration: ValueCalibration

    def plain(self) -> dict[str, Any]:
        """`<policy>.measures.<name>`, `calibration.<name>`."""
        told = {
            f"{policy}.measures.{name}": value
            for policy, one in self.clinical.items()
            for name, value in one.plain().items()
        }
        if self.confounding is not None:
            told |= self.confounding.plain()
        told |= {f"calibration.{name}": value for name, value in self.calibration.plain().items()}
        return told

    def distributions(self) -> dict[str, list[dict[str, Any]]]:
        """Doses of each policy, as their figure takes them."""
        return {name: one.distributions() for name, one in self.clinical.items()}


def look_closer(
    evaluation: Evaluation,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Closer:
    """Measure what each policy does, and how right fitted values of the clinicians are.

    Args:
        evaluation: With all policies; the first beside the clinicians is asked how sensitive it is.
        generator: Everything is drawn with it.
        progress: Called with 1 after each of the gradient steps of `evaluate.robust`.
    """
    asked = [one.name for one in evaluation.subjects if one.name != CLINICIANS]
    shared = evaluation.shared
    grounds, level = shared.grounds, shared.params.confidence
    params = ClinicalParams(confidence=level, tolerance=shared.params.tolerance)
    decisive = primary(grounds.test.history.preparation.cohort)
    return Closer(
        clinical={
            one.name: measure(
                grounds.test,
                shared.executed[one.name],
                one.deployed,
                generator,
                params,
                grounds.model,
            )
            for one in evaluation.subjects
            if one.name != CLINICIANS
        },
        confounding=confounding(evaluation, asked[0], generator, progress) if asked else None,
        calibration=value_calibration(
            grounds.test, shared.fqe.first_values[CLINICIANS][decisive].mean(0), decisive, level
        ),
    )
