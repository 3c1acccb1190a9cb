"""What a gate is: a measure, a limit, why it exists, and what becomes of what cannot be measured.

Called by every module of gates. What is missing never passes; what nobody asks neither passes nor
fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ogsrl.audit.evidence import Evidence

Verdict = Literal["passed", "undecided", "failed"]
#: Of one gate: what asks nothing of anybody is no pass.
GateVerdict = Literal["passed", "undecided", "failed", "not asked"]


@dataclass(frozen=True)
class Found:
    """What a gate measured.

    Attributes:
        said: In a sentence, with the numbers.
        compared: What is compared with the limit; None where nothing could be measured.
        estimate: The number itself, if the one compared is a bound of it.
        low: Of its interval.
        high: Of its interval.
        open: Whether it is for want of patients that nothing better is known.
        idle: Whether the cohort file has nothing that the gate is about.
    """

    said: str
    compared: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    open: bool = False
    idle: bool = False


@dataclass(frozen=True)
class Gate:
    """One pass line.

    Attributes:
        name: Its key under `audit:`.
        title: As the card says it.
        why: What it is there for.
        relation: What the compared number must be of the limit.
        measure: Reads the evidence.
        otherwise: What is said first where it does not pass.
        worst: The worst that can be measured, if there is one: a limit that even this keeps asks
            nothing.
    """

    name: str
    title: str
    why: str
    relation: Literal["<=", ">=", ">"]
    measure: Callable[[Evidence], Found]
    otherwise: str = ""
    worst: float | None = None

    def holds(self, compared: float, limit: float) -> bool:
        """Whether the number is on the right side."""
        if self.relation == "<=":
            return compared <= limit
        return compared >= limit if self.relation == ">=" else compared > limit

    def asks(self, limit: float) -> bool:
        """Whether anybody could be on the wrong side of this limit."""
        return self.worst is None or not self.holds(self.worst, limit)

    def looser(self, limit: float, default: float) -> bool:
        """Whether more passes than by default."""
        return limit > default if self.relation == "<=" else limit < default


@dataclass(frozen=True)
class Judged:
    """A gate, judged.

    Attributes:
        gate: Which.
        limit: What was asked.
        default: What is asked by default.
        found: What was measured.
        verdict: What follows.
    """

    gate: Gate
    limit: float
    default: float
    found: Found
    verdict: GateVerdict = field(init=False)

    def __post_init__(self) -> None:
        """What is not known fails, unless patients were too few to know."""
        compared = self.found.compared
        verdict: GateVerdict = "undecided" if self.found.open else "failed"
        if self.found.idle:
            verdict = "not asked"
        elif compared is not None and self.gate.holds(compared, self.limit):
            verdict = "passed" if self.gate.asks(self.limit) else "not asked"
        object.__setattr__(self, "verdict", verdict)

    @property
    def said(self) -> str:
        """In a sentence."""
        first, said = self.gate.otherwise, self.found.said
        told = self.verdict in ("passed", "not asked") or said.startswith(first)
        return said if told else f"{first}: {said}"

    @property
    def loosened(self) -> bool:
        """Whether its limit lets more pass than the default."""
        return self.gate.looser(self.limit, self.default)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.gate.name,
            "title": self.gate.title,
            "why": self.gate.why,
            "verdict": self.verdict,
            "said": self.said,
            "measured": self.found.compared,
            "estimate": self.found.estimate,
            "lo": self.found.low,
            "hi": self.found.high,
            "relation": self.gate.relation,
            "limit": self.limit,
            "default_limit": self.default,
            "loosened": self.loosened,
        }
