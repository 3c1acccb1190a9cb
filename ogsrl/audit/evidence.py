"""What the gates read: the reports of every stage, as one typed whole.

Built by the stage audit. It holds aggregates alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ogsrl.errors import OgsrlError
from ogsrl.evaluation.quantities import VALUE, primary
from ogsrl.spec import Cohort

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """All that is known of the policy put forward.

    Attributes:
        cohort: Whose.
        ingest: Report of ingest (cohort.json).
        validation: Of validate.
        dataset: Of prepare.
        behaviour: Of behaviour.
        dynamics: Of dynamics.
        guardian: Of guardian.
        train: Of train, by algorithm.
        selection: Of select.
        evaluation: Of evaluate: flat.
        estimates: Rows of evaluation.parquet.
        coverage: Figures of the coverage benchmark; empty where it never ran.
        uses: Policies ever measured on these test patients.
        with_rows: Files of the model that hold rows of patients.
    """

    cohort: Cohort
    ingest: Report
    validation: Report
    dataset: Report
    behaviour: Report
    dynamics: Report
    guardian: Report
    train: Mapping[str, Report]
    selection: Report
    evaluation: Report
    estimates: Sequence[Mapping[str, Any]]
    coverage: Mapping[str, float]
    uses: int
    with_rows: Sequence[str]

    @property
    def decisive(self) -> str:
        """The quantity that decides."""
        return primary(self.cohort)

    @property
    def sign(self) -> int:
        """1 where more of it is better, -1 where less is."""
        return 1 if self.decisive == VALUE else -1

    @property
    def measured(self) -> bool:
        """Whether anything was measured on test patients."""
        return bool(self.evaluation.get("status") == "evaluated")

    @property
    def few(self) -> str:
        """Why nothing was measured."""
        needed, of = (self.evaluation.get(name) for name in ("needed", "needed_of"))
        who = f": fewer than {needed} {of}" if needed else ""
        return f"too few patients{who}; nothing was measured on test patients"

    @property
    def acts(self) -> bool:
        """Whether anybody was put forward who may act."""
        return self.selection.get("chosen") is not None

    @property
    def nobody(self) -> str:
        """That nobody was put forward, and whether there were too few patients to learn from."""
        few = self.selection.get("status") == "too_few_patients"
        return "nobody was put forward" + (": too few patients to learn from" if few else "")

    def told(self, name: str) -> Any:
        """An entry of evaluation.json; None where it could not be told.

        Raises:
            OgsrlError: There is no such entry: the report is of another version.
        """
        try:
            return self.evaluation[name]
        except KeyError:
            raise OgsrlError(f"audit: evaluation.json has no {name}; run evaluate again") from None

    def groups(self) -> list[dict[str, Any]]:
        """What is told of each subgroup of who was put forward."""
        told = self.under("selected.groups.")
        made: dict[int, dict[str, Any]] = {}
        for key, value in told.items():
            number, _, name = key.partition(".")
            made.setdefault(int(number), {})[name] = value
        return [made[number] for number in sorted(made)]

    def under(self, prefix: str) -> dict[str, Any]:
        """Entries whose names begin so, without it."""
        cut = len(prefix)
        return {name[cut:]: x for name, x in self.evaluation.items() if name.startswith(prefix)}
