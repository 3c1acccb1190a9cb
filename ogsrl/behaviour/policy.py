"""The clinicians' policy as fitted: questions in bulk, save and load.

Called by the guardian, by training, evaluation and query. It answers for whole states alone, and
says so when too few patients were there to fit it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from scipy.stats.qmc import Sobol

from ogsrl.behaviour.boosted import BoostedBehaviour
from ogsrl.behaviour.calibration import Calibration
from ogsrl.behaviour.config import BehaviourParams, Kind
from ogsrl.behaviour.decisions import Inputs
from ogsrl.behaviour.distribution import DoseDistribution, Marginal
from ogsrl.behaviour.doses import DoseGrid, OneDose
from ogsrl.behaviour.neural import NeuralBehaviour
from ogsrl.errors import ModelError
from ogsrl.modeldir import load_model, rebuilding, save_model
from ogsrl.preparation import Preparation
from ogsrl.preparation.history import History

KIND = "behaviour"
#: Rows answered at a time, so that what a row needs stays near the processor.
BLOCK = 16_384
#: The same where each row is asked several times.
SPREAD = 1_024


class Learner(Protocol):
    """A fitted kind: log weights of each dose's components, not calibrated."""

    def context(self, states: torch.Tensor) -> torch.Tensor:
        """What every dose needs of the states."""

    def log_weights(self, j: int, context: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
        """Log weights of dose j, given the doses before it in the chain."""

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """What is saved."""


@dataclass(frozen=True)
class Fitted:
    """What was fitted: the kind chosen, its calibration, and the marginal."""

    kind: Kind
    learner: Learner
    inputs: Inputs
    calibrations: tuple[Calibration, ...]
    marginal: Marginal


@dataclass(frozen=True)
class Behaviour:
    """The clinicians' policy b(a|s).

    Doses are in [-1, 1]; states have the columns `names`. See `DoseDistribution` for the measure
    of densities. A dose or part that training clinicians never gave has probability 0: its
    log_prob is -inf, and no sample or mode shows it.

    Attributes:
        history: The layout of states.
        params: How it was fitted.
        status: `fitted`, or `too_few_patients`: every question is then refused.
        patients: Patients found in train, calibration and validation; None where one to nine.
        likelihoods: Mean validation log-likelihood a decision of each kind tried.
        fitted: What was fitted; None under `too_few_patients`.
    """

    history: History
    params: BehaviourParams
    status: Literal["fitted", "too_few_patients"]
    patients: dict[str, int | None]
    likelihoods: dict[str, float | None]
    fitted: Fitted | None

    @property
    def needed(self) -> dict[str, int]:
        """Patients needed in each part."""
        params = self.params
        least = (params.min_train, params.min_calibration, params.min_validation)
        return dict(zip(("train", "calibration", "validation"), least, strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of a state, in order."""
        return self.history.names

    @property
    def known(self) -> Fitted:
        """What was fitted, or an error that says how many patients are needed."""
        if self.fitted is None:
            told = [f"{count} {part}" for part, count in self.needed.items()]
            raise ModelError(
                f"behaviour: too few patients to fit it; {', '.join(told)} patients are needed; "
                "it answers nothing"
            )
        return self.fitted

    @property
    def marginal(self) -> Marginal:
        """How training clinicians dosed when nothing of the patient is known."""
        return self.known.marginal

    def distribution(
        self, states: torch.Tensor, names: Sequence[str] | None = None
    ) -> DoseDistribution:
        """The distribution of doses in each row.

        Args:
            states: (rows, columns), without gaps.
            names: Names of the columns, if the caller has them: another layout is refused.
        """
        if names is not None:
            self.known.inputs.check_names(names, "states")
        return self._told(self._context(states))

    def _context(self, states: torch.Tensor) -> torch.Tensor:
        return self.known.learner.context(self.known.inputs.checked(states))

    def _told(self, context: torch.Tensor) -> DoseDistribution:
        known = self.known

        def conditional(j: int, earlier: torch.Tensor) -> OneDose:
            logs = known.learner.log_weights(j, context, earlier)
            return known.calibrations[j].apply(logs)

        return DoseDistribution(known.marginal.grids, len(context), conditional)

    def log_prob(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """Log probability (density between) of the doses of each row; -inf where never given."""
        pairs = zip(torch.split(states, BLOCK), torch.split(doses, BLOCK), strict=True)
        return torch.cat([self.distribution(s).log_prob(d) for s, d in pairs])

    def sample(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Doses drawn, one set a row."""
        return torch.cat(
            [self.distribution(s).sample(generator) for s in torch.split(states, BLOCK)]
        )

    def spread(self, states: torch.Tensor, draws: int) -> torch.Tensor:
        """(draws, rows, doses) doses as drawn, by the same few numbers in every row.

        So what is said of a row hangs neither on the other rows nor on their order.
        """
        numbers = _even_numbers(draws, len(self.known.marginal.grids))
        parts = []
        for some in torch.split(states, SPREAD):
            context = self._context(some)
            first = self._told(context).conditional(0, context[:, :0]).log_weights
            drawn = self._told(context.repeat(draws, 1)).at(
                numbers.repeat_interleave(len(some), 0), first.repeat(draws, 1)
            )
            parts.append(drawn.reshape(draws, len(some), -1))
        return torch.cat(parts, 1)

    def mode(self, states: torch.Tensor) -> torch.Tensor:
        """The likeliest doses of each row."""
        return torch.cat([self.distribution(s).mode() for s in torch.split(states, BLOCK)])

    def save(self, directory: Path) -> None:
        """Write the model; no row of a patient is in it."""
        config: dict[str, Any] = {
            "history": {"steps": self.history.steps, "summaries": self.history.summaries},
            "transforms": self.history.preparation.fingerprint,
            "params": self.params.model_dump(mode="json"),
            "status": self.status,
            "patients": self.patients,
            "needed": self.needed,
            "likelihoods": self.likelihoods,
        }
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        if (fitted := self.fitted) is not None:
            config |= {
                "kind": fitted.kind,
                "inputs": fitted.inputs.config(),
                "constant_columns": list(fitted.inputs.constant),
                "doses": [grid.config() for grid in fitted.marginal.grids],
                "calibration": [one.config() for one in fitted.calibrations],
            }
            arrays = {**fitted.inputs.arrays(), **fitted.learner.arrays()}
            for j, logs in enumerate(fitted.marginal.log_weights):
                arrays[f"marginal.{j}"] = logs.numpy()
        save_model(directory, KIND, config, arrays)

    @classmethod
    def load(cls, directory: Path, preparation: Preparation) -> Behaviour:
        """Read a model, for the transforms that it was fitted with."""
        config, arrays = load_model(directory, KIND)
        with rebuilding(directory):
            return cls._rebuilt(config, arrays, preparation)

    @classmethod
    def _rebuilt(
        cls, config: Mapping[str, Any], arrays: Mapping[str, Any], preparation: Preparation
    ) -> Behaviour:
        history = History(preparation, **config["history"])
        if "inputs" in config:
            inputs = Inputs.from_parts(config["inputs"], arrays)
            inputs.check_names(history.names, "transforms.json")
        if config["transforms"] != preparation.fingerprint:
            raise ModelError(
                "behaviour: transforms.json is not the one it was fitted with; run behaviour again"
            )
        params = BehaviourParams.model_validate(config["params"])
        fitted = None
        if config["status"] == "fitted":
            grids = tuple(DoseGrid.from_config(one) for one in config["doses"])
            logs = tuple(torch.tensor(arrays[f"marginal.{j}"]) for j in range(len(grids)))
            learner: Learner
            if config["kind"] == "neural":
                learner = NeuralBehaviour.from_arrays(inputs, grids, params.neural, arrays)
            else:
                learner = BoostedBehaviour.from_arrays(inputs, grids, arrays)
            calibrations = tuple(
                Calibration.from_config(grid, log, one)
                for grid, log, one in zip(grids, logs, config["calibration"], strict=True)
            )
            fitted = Fitted(config["kind"], learner, inputs, calibrations, Marginal(grids, logs))
        return cls(
            history, params, config["status"], config["patients"], config["likelihoods"], fitted
        )


@cache
def _even_numbers(draws: int, doses: int) -> torch.Tensor:
    """(draws, doses, 3) numbers in [0, 1), evenly spread; always the same."""
    made = Sobol(3 * doses, rng=0).random(draws)
    return torch.from_numpy(made).float().reshape(draws, doses, 3)
