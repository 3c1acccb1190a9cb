"""What the policy and the clinicians come to from a state on: heads fitted on training patients.

Fitted and saved by the stage select, asked by query. Their intervals are as wide as calibration
patients asked for; nothing in the saved files is a patient's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.executed import Clinicians, Executed
from ogsrl.evaluation.fqe import Fqe, Networks, Sampling, fit_fqe
from ogsrl.evaluation.fqe_parts import Heads, Inputs
from ogsrl.evaluation.quantities import REFUSAL, default_quantities, quantities, to_go
from ogsrl.modeldir import load_model, rebuilding, save_model
from ogsrl.policies.codes import StateCodes
from ogsrl.policies.deployed import Decisions, Deployed
from ogsrl.policies.networks import Perceptrons, Shape
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors

KIND = "predictions"
DEPLOYED, CLINICIANS = "deployed", "clinicians"
#: Of intervals, two-sided.
LEVEL, Z = 0.95, 1.959964
#: Calibration patients' steps are judged in so many parts, by rising prediction.
PARTS = 20
#: Rows judged at a time, so that what a row needs stays near the processor.
BLOCK = 1_024


@dataclass(frozen=True)
class Predicted:
    """Of each row: (rows,) tensors."""

    mean: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor


@dataclass(frozen=True)
class Predictions:
    """Q of the policy as it acts and of the clinicians, by several fits.

    Attributes:
        names: Quantities.
        networks: Of both policies.
        draws: Doses drawn where the clinicians act.
        widen: By quantity, how many times wider fits' own spread is made.
    """

    names: tuple[str, ...]
    networks: Networks
    draws: int
    widen: Mapping[str, float]

    @classmethod
    def fit(
        cls,
        train: StayTensors,
        calibration: StayTensors,
        deployed: Deployed,
        behaviour: Clinicians,
        params: FqeParams,
        generator: torch.Generator,
        progress: Callable[[int], None] | None = None,
    ) -> Predictions:
        """Fit on training patients; calibration patients say how wide intervals must be."""
        cohort = train.history.preparation.cohort
        names = tuple(name for name in default_quantities(cohort) if name != REFUSAL)
        policies = {DEPLOYED: deployed, CLINICIANS: Deployed.of(None, None, train.history)}
        fqe: Fqe = fit_fqe(
            train,
            policies,
            behaviour,
            params,
            generator,
            progress,
            names,
            sampling=Sampling(resample=True, tables=False),
        )
        assert isinstance(fqe.answers, Networks)
        plain = cls(names, fqe.answers, params.draws, dict.fromkeys(names, 1.0))
        return plain.calibrated(calibration, behaviour, generator)

    def calibrated(
        self, stays: StayTensors, behaviour: Clinicians, generator: torch.Generator
    ) -> Predictions:
        """As wide as it takes for the clinicians' own values to be what was seen.

        In each part of the steps, by rising prediction, the mean seen is within so many times the
        spread of the mean predicted, in .95 of the parts.
        """
        row = stays.decision.nonzero().squeeze(1)
        nobody = Deployed.of(None, None, stays.history)
        executed = Executed.of(nobody, behaviour, stays.states[row], self.draws, generator)
        widen = {}
        told = self._values(CLINICIANS, stays.states[row], executed.doses)
        for k, wanted in enumerate(quantities(stays, self.names)):
            followed, known = to_go(stays, wanted)
            mean, spread = told[known, :, k].mean(1), told[known, :, k].std(1)
            off = []
            for some in mean.argsort(stable=True).tensor_split(PARTS):
                if len(some) > 1:
                    apart = (followed[known][some].mean() - mean[some].mean()).abs()
                    off.append(float(apart / (Z * spread[some].mean()).clip(min=1e-9)))
            most = torch.quantile(torch.tensor([1.0, *off]), LEVEL)
            widen[wanted.name] = max(float(most), 1.0)
        return Predictions(self.names, self.networks, self.draws, widen)

    @torch.no_grad()
    def of_policy(
        self,
        states: torch.Tensor,
        decided: Decisions,
        given: torch.Tensor,
    ) -> dict[str, Predicted]:
        """By quantity, of what was decided; where it deferred, the clinicians act.

        Args:
            states: Each row's.
            decided: In these states.
            given: (draws, rows, doses) by clinicians in these states.
        """
        values, some = self._values(DEPLOYED, states, decided.doses[None]), decided.deferred
        if bool(some.any()):
            values[some] = self._values(DEPLOYED, states[some], given[:, some])
        return self._told(values)

    @torch.no_grad()
    def of_clinicians(self, states: torch.Tensor, given: torch.Tensor) -> dict[str, Predicted]:
        """By quantity, of clinicians who go on as they did; `given` as of the policy."""
        return self._told(self._values(CLINICIANS, states, given))

    def _values(self, policy: str, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """(rows, networks, quantities), the mean over draws."""
        place = (DEPLOYED, CLINICIANS).index(policy)
        parts = []
        for some, drawn in zip(
            torch.split(states, BLOCK), torch.split(doses, BLOCK, 1), strict=True
        ):
            draws, rows, count = drawn.shape
            each = self.networks.values(place, some.repeat(draws, 1), drawn.reshape(-1, count))
            parts.append(each.reshape(len(each), draws, rows, -1).mean(1))
        return torch.cat(parts, 1).transpose(0, 1).double()

    def _told(self, values: torch.Tensor) -> dict[str, Predicted]:
        heads, found = self.networks.heads, {}
        for k, name in enumerate(self.names):
            mean = values[..., k].mean(1)
            half = Z * self.widen[name] * values[..., k].std(1)
            low, high = float(heads.low[k]), float(heads.low[k] + heads.span[k])
            ends = ((mean + side * half).clip(low, high) for side in (-1, 1))
            found[name] = Predicted(mean, *ends)
        return found

    def save(self, directory: Path) -> None:
        """As every model is saved."""
        shape, heads = self.networks.stack.shape, self.networks.heads
        config = {
            "names": list(self.names),
            "networks": shape.networks,
            "hidden": shape.hidden,
            "draws": self.draws,
            "widen": dict(self.widen),
        }
        arrays = {
            "weights": self.networks.stack.flat.numpy(),
            "usual": self.networks.inputs.usual.numpy(),
            "width": self.networks.inputs.width.numpy(),
            "low": heads.low.numpy(),
            "span": heads.span.numpy(),
            "start": heads.start.numpy(),
        }
        save_model(directory, KIND, config, arrays)

    @classmethod
    def load(cls, directory: Path, history: History) -> Predictions:
        """As it was saved."""
        config, arrays = load_model(directory, KIND)
        with rebuilding(directory):
            made = {name: torch.from_numpy(each.copy()) for name, each in arrays.items()}
            inputs = Inputs(StateCodes.of(history), made["usual"], made["width"])
            names = tuple(config["names"])
            shape = Shape(config["networks"], inputs.columns, config["hidden"], len(names))
            return cls(
                names,
                Networks(
                    Perceptrons(shape, made["weights"]),
                    inputs,
                    Heads(made["low"], made["span"], made["start"]),
                ),
                int(config["draws"]),
                {name: float(config["widen"][name]) for name in names},
            )
