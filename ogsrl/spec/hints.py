"""Things in a right cohort file that are worth a second look; never an error.

Called by `ogsrl spec check`.
"""

from __future__ import annotations

import difflib

from ogsrl.spec.grammar import format_number as number
from ogsrl.spec.model import Cohort, Static

_UNITS = """1 % fraction points level levels years days h hours min s kg g mg ug ng mcg lb cm m mm
    kg/m2 L mL dL U IU mmHg kPa cmH2O /min bpm breaths/min beats/min C F degC degF °C °F
    mmol/L umol/L µmol/L nmol/L pmol/L mol/L mEq/L mg/dL g/dL g/L mg/L ug/L ng/mL pg/mL ug/mL ng/L
    U/L IU/L mIU/L U/mL mOsm/kg 10^9/L 10^12/L K/uL /uL 10^3/uL s INR ratio score
    mL/h mL/kg mL/kg/h mL/min L/min L/min/m2 mL/step U/h U/min IU/h U/step
    mg/h mg/kg mg/kg/h mg/kg/min mg/day mg/step ug/h ug/min ug/kg/min mcg/kg/min ug/kg/h g/h g/day
    mL/4h mL/6h mL/12h mL/24h mL/day mmol mmol/h mEq mEq/h kcal kcal/day"""
KNOWN_UNITS = frozenset(_UNITS.split())


def hints(cohort: Cohort) -> tuple[str, ...]:
    """What a person should look at again, a line each."""
    found: list[str] = []
    for name, column in cohort.states.items():
        found += _unit(name, column.unit)
        if column.kind == "numeric":
            found += _scale(name, column)
    for name, dose in cohort.actions.items():
        found += _unit(name, dose.unit)
        low, high = dose.range
        if dose.max_change is not None and dose.max_change >= high - low:
            found.append(f"actions.{name}.max_change: as wide as the bounds, so it never binds")
    for name, constraint in cohort.constraints.items():
        if constraint.kind == "ever":
            found.append(
                f"constraints.{name}.kind: ever: it is prepared and counted, but no policy is "
                "trained under it; `share` is"
            )
    if cohort.reward.shaping is not None:
        found.append("reward.shaping: it is prepared, but no algorithm here trains on it")
    if not cohort.constraints:
        found.append("constraints: none, so nothing physiological is bounded")
    if not cohort.hazards:
        found.append("hazards: none; which dose must never be given in which state?")
    return tuple(found)


def _unit(name: str, text: str) -> list[str]:
    plain = text.replace(" ", "")
    known = {unit.replace(" ", ""): unit for unit in KNOWN_UNITS}
    if plain in known:
        return []
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.75)
    hint = f"; did you mean `{known[near[0]]}`?" if near else ""
    return [f"{name}: the unit `{text}` is not a usual spelling{hint}"]


def _scale(name: str, column: Static) -> list[str]:
    low, high = column.range
    if column.unit == "%" and high <= 1.5:
        return [f"{name}: in %, but at most {number(high)}; is it a fraction?"]
    if column.unit == "fraction" and high > 1:
        return [f"{name}: a fraction, but up to {number(high)}; is it in %?"]
    if column.unit in ("C", "degC", "°C") and high > 60:
        return [f"{name}: in Celsius, but up to {number(high)}; is it in Fahrenheit?"]
    if column.transform == "log" and high / low < 3:
        return [f"{name}: log of [{number(low)}, {number(high)}] changes next to nothing"]
    return []
