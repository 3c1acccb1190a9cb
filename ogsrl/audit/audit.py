"""All gates and one verdict.

Called by the stage audit. A gate is added by its one line in a module of gates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ogsrl.audit import data_gates, effect_gates, region_gates, safety_gates
from ogsrl.audit.config import AuditParams
from ogsrl.audit.evidence import Evidence
from ogsrl.audit.gate import Gate, GateVerdict, Judged, Verdict

#: In the order in which a person reads them.
GATES: Mapping[str, Gate] = {
    gate.name: gate
    for gate in (
        *data_gates.GATES,
        *region_gates.GATES,
        *safety_gates.GATES,
        *effect_gates.GATES,
    )
}
_DEFAULTS = AuditParams()
TOO_FEW = "too few patients"


@dataclass(frozen=True)
class Audit:
    """Every gate, judged."""

    gates: tuple[Judged, ...]

    @property
    def verdict(self) -> Verdict:
        """Failed if any gate is; else undecided if any is. What was not asked says nothing."""
        verdicts = {one.verdict for one in self.gates}
        if "failed" in verdicts:
            return "failed"
        return "undecided" if "undecided" in verdicts else "passed"

    def of(self, verdict: GateVerdict) -> tuple[str, ...]:
        """Names of gates with this verdict."""
        return tuple(one.gate.name for one in self.gates if one.verdict == verdict)

    @property
    def asked(self) -> int:
        """How many gates asked anything."""
        return len(self.gates) - len(self.of("not asked"))

    @property
    def counted(self) -> str:
        """How many passed, of how many; what was not asked; and whether patients were too few."""
        idle = self.of("not asked")
        few = any(TOO_FEW in one.said for one in self.gates if one.verdict != "passed")
        return "; ".join(
            (
                f"{len(self.of('passed'))} of {self.asked} gates passed",
                *([f"not asked: {', '.join(idle)}"] if idle else []),
                *([TOO_FEW] if few else []),
            )
        )

    def said(self, name: str) -> str:
        """What a gate found, in words."""
        return next(one.said for one in self.gates if one.gate.name == name)

    def plain(self) -> dict[str, Any]:
        """For audit.json."""
        return {
            "verdict": self.verdict,
            "failed": list(self.of("failed")),
            "undecided": list(self.of("undecided")),
            "not_asked": list(self.of("not asked")),
            "loosened": [one.gate.name for one in self.gates if one.loosened],
            "gates": [one.plain() for one in self.gates],
        }


def audit(evidence: Evidence, params: AuditParams) -> Audit:
    """Judge all gates."""
    judged = []
    for name, gate in GATES.items():
        limit, default = getattr(params, name).limit, getattr(_DEFAULTS, name).limit
        judged.append(Judged(gate, limit, default, gate.measure(evidence)))
    return Audit(tuple(judged))
