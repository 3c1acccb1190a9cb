"""From clinical units to what learners see, and exactly back: one small object a column.

Fitted by fitting.py on training patients, applied to every part and every query. Scaled values
are float32; the way back gives six significant digits, so a charted 92 is 92 again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ogsrl.errors import PreparationError
from ogsrl.trajectories import Stays

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
DIGITS = 6

_FORWARD: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
}


def _back(transform: str, values: Any) -> Any:
    """The inverse of a transform, on arrays and tensors alike."""
    match transform:
        case "log":
            return np.exp(values) if isinstance(values, np.ndarray) else values.exp()
        case "log1p":
            return np.expm1(values) if isinstance(values, np.ndarray) else values.expm1()
        case "sqrt":
            return values.clip(min=0) ** 2
    return values


@dataclass(frozen=True)
class ColumnTransform:
    """How one state column is filled and scaled.

    Numeric: (transform(x) - center) / scale, mean 0 and deviation 1 over training rows. Binary:
    0 and 1 become -1 and 1. Categorical: the code itself.

    Attributes:
        name: The column.
        kind: numeric, binary or categorical.
        transform: identity, log, log1p or sqrt.
        center: Subtracted after the transform.
        scale: Divides; 1 for a constant column.
        low: Least plausible value.
        high: Largest plausible value.
        missing: carry, median, normal or never.
        fill: Fills what nothing else fills; None under `never`.
        indicator: Whether the column has a `missing_<name>` beside it.
        constant: Whether training rows hold one value only.
        spread: Standard deviation in clinical units; sets the rounding of the way back.
        shares: Of training rows, by level (numeric: charted), then the gaps; what fewer than ten
            patients have is 0.

    >>> log = ColumnTransform("lactate", "numeric", "log", 0.5, 0.25, 0.2, 30.0, "carry", 1.5,
    ...                       True, False, 2.0)
    >>> log.inverse(log.forward(np.array([0.9, 2.0, 11.3])))
    array([ 0.9,  2. , 11.3])
    """

    name: str
    kind: str
    transform: str
    center: float
    scale: float
    low: float
    high: float
    missing: str
    fill: float | None
    indicator: bool
    constant: bool
    spread: float
    shares: tuple[float, ...] = ()

    def checked(self, values: Floats) -> Floats:
        """The values, if each is missing, or in range and of a known level."""
        outside = (values < self.low) | (values > self.high)
        if outside.any():
            what = (
                f"outside {self.low:g} to {self.high:g}"
                if self.kind == "numeric"
                else "of no known level"
            )
            raise PreparationError(
                f"{self.name}: {int(outside.sum())} values {what}; check the unit, or validate "
                "the table first"
            )
        if self.kind != "numeric":
            broken = int((np.mod(values, 1) > 0).sum())
            if broken:
                raise PreparationError(
                    f"{self.name}: {broken} values are no code of a level; levels are whole numbers"
                )
        return values

    @property
    def levels(self) -> int:
        """How many levels a column of codes has; a numeric one counts as one."""
        return 1 if self.kind == "numeric" else int(self.high) + 1

    def cells(self, values: Floats) -> npt.NDArray[np.int64]:
        """The place of each value in `shares`: its level, or the gaps' after them."""
        known = 0.0 * values if self.kind == "numeric" else values
        return np.where(np.isnan(known), self.levels, known).astype(np.int64)

    def filled(self, values: Floats, stays: Stays) -> Floats:
        """The values with every gap filled as the cohort file says."""
        gaps = np.isnan(values)
        if not gaps.any():
            return values
        if self.fill is None:
            raise PreparationError(
                f"{self.name}: {int(gaps.sum())} values are missing where the cohort file says "
                "`missing: never`; chart them or choose another policy"
            )
        known = stays.carry(values) if self.missing == "carry" else values
        return np.where(np.isnan(known), self.fill, known)

    def forward(self, values: Floats) -> Singles:
        """Clinical units to scaled values."""
        scaled = (_FORWARD[self.transform](values) - self.center) / self.scale
        return np.asarray(scaled, np.float32)

    def inverse(self, scaled: npt.NDArray[Any]) -> Floats:
        """Scaled values to clinical units, to six significant digits."""
        values = _back(self.transform, scaled.astype(np.float64) * self.scale + self.center)
        return _rounded(values, self.spread)

    def inverse_torch(self, scaled: torch.Tensor) -> torch.Tensor:
        """The same on tensors, unrounded, so that gradients pass."""
        result: torch.Tensor = _back(self.transform, scaled * self.scale + self.center)
        return result


@dataclass(frozen=True)
class DoseTransform:
    """How one dose goes to [-1, 1] and back; the bounds alone decide, nothing is fitted.

    >>> fluid = DoseTransform("iv_fluid", "sqrt", 0.0, 2000.0)
    >>> fluid.forward(np.array([0.0, 500.0, 2000.0])).tolist()
    [-1.0, 0.0, 1.0]
    >>> fluid.inverse(fluid.forward(np.array([0.0, 50.0, 1250.0]))).tolist()
    [0.0, 50.0, 1250.0]
    """

    name: str
    transform: str
    low: float
    high: float

    def checked(self, values: Floats) -> Floats:
        """The doses, if each is missing or within bounds."""
        outside = int(((values < self.low) | (values > self.high)).sum())
        if outside:
            raise PreparationError(
                f"{self.name}: {outside} doses outside {self.low:g} to {self.high:g}; check the "
                "unit, or validate the table first"
            )
        return values

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = (float(_FORWARD[self.transform](x)) for x in (self.low, self.high))
        return low, high - low if high > low else 1.0

    def forward(self, doses: Floats) -> Singles:
        """Clinical units to [-1, 1]."""
        low, width = self._ends
        return np.asarray(2 * (_FORWARD[self.transform](doses) - low) / width - 1, np.float32)

    def inverse(self, scaled: npt.NDArray[Any]) -> Floats:
        """[-1, 1] to clinical units, to six digits of the bounds' width."""
        low, width = self._ends
        values = _back(self.transform, (scaled.astype(np.float64) + 1) / 2 * width + low)
        return _rounded(values, self.high - self.low).clip(self.low, self.high)

    def inverse_torch(self, scaled: torch.Tensor) -> torch.Tensor:
        """The same on tensors, unrounded, so that gradients pass."""
        low, width = self._ends
        result: torch.Tensor = _back(self.transform, (scaled + 1) / 2 * width + low)
        return result


def _rounded(values: Floats, spread: float) -> Floats:
    """Six significant digits of the value or the spread, whichever is larger.

    >>> _rounded(np.array([91.9999998, 1e-12, 12345.6789]), 3.0).tolist()
    [92.0, 0.0, 12345.7]
    """
    size = np.maximum(np.abs(values), max(spread, 1e-300))
    decimals = DIGITS - np.ceil(np.log10(size, where=size > 0, out=np.zeros_like(size)))
    up, down = 10.0 ** np.maximum(decimals, 0), 10.0 ** np.maximum(-decimals, 0)
    rounded: Floats = np.round(values * up / down) * down / up
    return rounded
