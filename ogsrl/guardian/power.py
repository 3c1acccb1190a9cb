"""How often guardians refuse what they should: the panel of departures at calibrated thresholds.

Called by the report and the benchmark on validation patients. Every guardian is asked the same
cases. Power alone proves nothing: who refuses everything has it all, so it stands beside the share
of real cases refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ogsrl.guardian.departures import Departure
from ogsrl.guardian.protocol import Guardian, Rows
from ogsrl.guardian.shares import share
from ogsrl.preparation.coverage import MIN_PATIENTS

DECILES = 10
#: The question whose answer says how rare a patient is, whatever the dose.
PATIENT = "patient"


def sample(rows: Rows, size: int, generator: torch.Generator) -> Rows:
    """At most so many rows, drawn without replacement."""
    if size >= len(rows):
        return rows
    return rows.take(torch.randperm(len(rows), generator=generator)[:size].sort().values)


def departed(
    panel: Sequence[Departure], rows: Rows, size: int, generator: torch.Generator
) -> dict[str, Rows]:
    """The cases of each evaluable departure, `size` at most, the same for every guardian."""
    cases = {}
    for departure in panel:
        if departure.apply is not None:
            cases[departure.name] = sample(departure.apply(rows, generator), size, generator)
    return cases


def refused(guardian: Guardian, rows: Rows) -> torch.Tensor:
    """Whether each case is refused."""
    return ~guardian.supported(rows.states, rows.doses)


def power_table(
    panel: Sequence[Departure],
    cases: Mapping[str, Rows],
    real: Rows,
    members: Mapping[str, Guardian],
) -> dict[str, Any]:
    """Per departure and guardian the share refused, and the same of the real cases."""
    table: dict[str, Any] = {}
    for departure in panel:
        entry: dict[str, Any] = {
            "label": departure.label,
            "kind": departure.kind,
            "status": "evaluated" if departure.name in cases else "not evaluable",
            "missing": departure.missing or None,
            "cases": None,
            "power": {},
        }
        if departure.name in cases:
            found = {
                name: _share(member, cases[departure.name]) for name, member in members.items()
            }
            if all(value is None for value in found.values()):
                entry["status"] = "too few patients"
            else:
                entry["cases"] = len(cases[departure.name])
                entry["power"] = found
        table[departure.name] = entry
    real_shares = {name: _share(member, real) for name, member in members.items()}
    return {"departures": table, "real_cases": {"cases": len(real), "refused": real_shares}}


def _share(guardian: Guardian, rows: Rows) -> dict[str, Any] | None:
    return share(refused(guardian, rows).numpy(), rows.patient.numpy())


def power_by_rarity(
    panel: Sequence[Departure], real: Rows, guardian: Guardian, generator: torch.Generator
) -> list[dict[str, Any]] | None:
    """Power on doses by decile of how rare the patient is; None if the guardian cannot say.

    `power` counts every refusal. `by_dose` counts only patients whose real dose is supported, so
    that what is refused is the dose and not the patient.
    """
    answers = guardian.questions(real.states, real.doses)
    if PATIENT not in answers or guardian.threshold is None:
        return None
    rarity = answers[PATIENT].numpy()
    edges = np.quantile(rarity, np.arange(1, DECILES) / DECILES)
    decile = torch.from_numpy(np.searchsorted(edges, rarity, side="left"))
    known = guardian.supported(real.states, real.doses)
    found = []
    for number in range(DECILES):
        here = real.take((decile == number).nonzero().squeeze(1))
        safe = real.take(((decile == number) & known).nonzero().squeeze(1))
        entry: dict[str, Any] = {"decile": number + 1, "refused": _share(guardian, here)}
        entry["departures"] = {
            departure.name: {
                "power": _power(departure, here, guardian, generator),
                "by_dose": _power(departure, safe, guardian, generator),
            }
            for departure in panel
            if departure.apply is not None and departure.kind == "dose"
        }
        found.append(entry)
    return found


def _power(
    departure: Departure, rows: Rows, guardian: Guardian, generator: torch.Generator
) -> dict[str, Any] | None:
    if departure.apply is None or len(torch.unique(rows.patient)) < MIN_PATIENTS:
        return None
    return _share(guardian, departure.apply(rows, generator))
