"""What is wrong with the AI-Clinician's table: what follows from how it is made, and what is found.

Called by the source. Published uses of this table seldom tell; report and card do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ogsrl.sources.aiclinician.layout import CHARTED, OLDEST_DAYS
from ogsrl.sources.reading import Warned
from ogsrl.sources.sofa import READ, sofa, total

#: Steps of 4 hours in a day.
STEPS_A_DAY = 6
#: Where the published code gives no point at all: a boundary that belongs to neither side.
HOLES = (("pf_ratio", 400.0), ("platelets", 150.0), ("bilirubin", 12.0), ("creatinine", 5.0))
#: What nobody can find in the table, for it is how the table is made.
BY_MAKING = (
    "Who is in the cohort was decided by what came later: the highest SOFA from a day before to "
    "two days after the presumed infection; some who died early, or stopped vasopressors before "
    "they died, were left out",
    "The presumed onset is the first of antibiotic and culture, which was known only once the "
    "second came",
    "What was not charted was filled from the nearest row of anybody, of any time, before patients "
    "were split: rows know of other patients and of what came later, and it is not told what was "
    "charted",
    "The vasopressor is the highest rate of any one drug: drugs that ran together are not added",
    "What was charted or given on the border of two steps counts in both",
    "When a patient died is not told: a stay whose record ends has ended as if the patient left, "
    "and a death counts whenever it came",
    "Cultures, orders for comfort care, renal replacement and steroids are not in the table",
)


def found(table: pd.DataFrame) -> Iterator[Warned]:
    """What is wrong with this table, and in how many rows."""
    charted = [name for name in CHARTED if name not in ("urine", "urine_total", "balance")]
    full = [name for name in charted if not table[name].isna().any()]
    if full:
        yield Warned(
            "filled",
            None,
            len(full),
            f"{len(full)} of {len(charted)} charted columns have no gap in {len(table)} rows: what "
            "was not charted was filled in",
        )
    oldest = int(np.isclose(table["age"], OLDEST_DAYS).sum())
    if oldest:
        yield Warned("oldest", "age", oldest, f"age: {oldest} rows say 91.4 years: 90 or older")
    for name, where in HOLES:
        count = int((table[name] == where).sum())
        if count:
            message = f"{name}: {count} rows lie on a boundary for which their SOFA has no points"
            yield Warned("hole_in_sofa", name, count, message)
    other = int((score(table) != table["their_sofa"]).sum())
    if other:
        yield Warned(
            "another_sofa",
            "sofa",
            other,
            f"sofa: in {other} of {len(table)} rows theirs is not what its parts come to; it is "
            "made anew",
        )
    count = int(((table["iv_fluid"] > 0) | (table["vasopressor"] > 0)).sum())
    yield Warned(
        "dose_in_state",
        None,
        count,
        f"o:max_dose_vaso, o:input_4hourly: the doses of their own row, in {count} of {len(table)} "
        "rows not 0: not in the state; o:cumulated_balance holds them: moved a step down",
    )
    if "action" in table:
        given = (table["iv_fluid"] > 0).astype(int) * 2 + (table["vasopressor"] > 0)
        code = table["action"].astype(int)
        told = (code // 5 > 0).astype(int) * 2 + (code % 5 > 0)
        other = int((given != told).sum())
        if other:
            message = f"a:action: in {other} of {len(table)} rows it is not of the row's own doses"
            yield Warned("another_action", None, other, message)


def score(table: pd.DataFrame) -> pd.Series:
    """SOFA of each row from its parts, as its own table scores them: everybody is ventilated."""
    known = {name: table[name].to_numpy(np.float64) for name in READ if name in table}
    unknown = np.full(len(table), np.nan)
    known |= {
        "ventilated": np.ones(len(table)),
        "dopamine": unknown,
        "pressors": table["vasopressor"].to_numpy(np.float64),
        "urine_day": table["urine"].to_numpy(np.float64) * STEPS_A_DAY,
    }
    return pd.Series(total(sofa(known)), index=table.index)
