"""Which patients are too few, and how many are needed.

Kept by every guardian that refuses everything for want of patients, and told by the report. How
many there were is not kept: fewer than ten are nobody's business.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Part = Literal["training", "calibration", "validation"]


@dataclass(frozen=True)
class Shortage:
    """Patients that are too few.

    Attributes:
        part: Whose patients.
        needed: How many are needed at least.

    >>> str(Shortage("calibration", 19))
    'at least 19 calibration patients are needed'
    """

    part: Part
    needed: int

    def __str__(self) -> str:
        return f"at least {self.needed} {self.part} patients are needed"

    def to_json(self) -> dict[str, Any]:
        """Plain values; Shortage(**values) reads them back."""
        return asdict(self)
