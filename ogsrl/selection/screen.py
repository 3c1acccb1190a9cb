"""The second model, in which every candidate is looked at first; it trained no policy.

Called by `select`. Rollouts in it only order candidates and drop hopeless ones; no bound rests on
it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ogsrl.dynamics.config import DynamicsParams
from ogsrl.dynamics.counts import fit_counts, has_counts
from ogsrl.dynamics.fitting import fit
from ogsrl.evaluation.rollouts import Model
from ogsrl.preparation.tensors import StayTensors


def second_model(
    validation: StayTensors,
    params: DynamicsParams,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Model:
    """Dynamics of validation patients alone; not calibrated, for nobody is left to do that on.

    Raises:
        TooFewPatients: There are too few to fit any.
    """
    if has_counts(validation.history.preparation.cohort):
        return fit_counts(validation, validation)
    return fit(validation, None, params, generator, progress)
