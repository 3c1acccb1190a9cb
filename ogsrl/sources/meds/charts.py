"""What was charted, by name: plausible values in our units, and those made of several.

Called by the MEDS source with chunks of whole subjects. A value is made only of what was charted by
then: a ratio of the oxygen fraction before it, a coma scale of its latest three parts.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from ogsrl.sources.meds.icu import Chunk
from ogsrl.sources.meds.mapping import CodeMap

#: Minutes for which the last oxygen fraction, parts of the coma scale and an arterial line count.
FRACTION, COMA, LINE = 1_440, 360, 60
CHARTED = ["subject", "minute", "value"]
GCS = ("gcs_eye", "gcs_verbal", "gcs_motor")


def charted(
    chunk: Chunk, mapping: CodeMap, left: Counter[tuple[str, str]]
) -> dict[str, pd.DataFrame]:
    """By name: `subject`, `minute`, `value`, by time; concepts of the mapping and what they make.

    `left` counts values outside the plausible range, or no number, by why and concept.
    """
    found = {name: _concept(chunk, mapping, name, left) for name in mapping.concepts}
    for name in ("map", "sbp"):
        if f"{name}_cuff" in found:
            found[name] = _pressure(found[f"{name}_arterial"], found[f"{name}_cuff"])
    if {*GCS} <= {*found}:
        found["gcs"] = _coma(*(found[name] for name in GCS))
    if {"pao2", "fio2"} <= {*found}:
        found["pf_ratio"] = _ratio(found["pao2"], found["fio2"])
    if "irrigant" in found:
        taken = found["irrigant"].assign(value=-found["irrigant"]["value"])
        found["urine"] = _by_time(pd.concat([found["urine"], taken]))
    return found


def _by_time(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["minute", "subject"], kind="stable").reset_index(drop=True)


def _concept(
    chunk: Chunk, mapping: CodeMap, name: str, left: Counter[tuple[str, str]]
) -> pd.DataFrame:
    events = chunk.of("concept", name)[CHARTED]
    low, high = mapping.concepts[name].plausible
    value = events["value"].to_numpy(np.float64)
    number, timed = ~np.isnan(value), events["minute"].notna().to_numpy()
    inside = (value >= low) & (value <= high)
    left["no number", name] += int((~number).sum())
    left["implausible", name] += int((number & ~inside).sum())
    left["no time", name] += int((inside & ~timed).sum())
    return _by_time(events[inside & timed])


def _pressure(line: pd.DataFrame, cuff: pd.DataFrame) -> pd.DataFrame:
    """The arterial line's where it read in the hour before, else the cuff's."""
    read = line[["subject", "minute"]].assign(read=True)
    last = pd.merge_asof(cuff, read, on="minute", by="subject", tolerance=LINE)
    alone = last["read"].isna().to_numpy()
    return _by_time(pd.concat([line, cuff[alone]]))


def _coma(eye: pd.DataFrame, verbal: pd.DataFrame, motor: pd.DataFrame) -> pd.DataFrame:
    """Each time that a part was charted, the sum of the latest three."""
    times = pd.concat([eye, verbal, motor])[["subject", "minute"]].drop_duplicates()
    found = _by_time(times)
    for name, part in zip(GCS, (eye, verbal, motor), strict=True):
        last = part.rename(columns={"value": name})
        found = pd.merge_asof(found, last, on="minute", by="subject", tolerance=COMA)
    found["value"] = found[list(GCS)].sum(axis=1, skipna=False)
    return found[CHARTED].dropna().reset_index(drop=True)


def _ratio(oxygen: pd.DataFrame, fraction: pd.DataFrame) -> pd.DataFrame:
    """PaO2 over the last known FiO2."""
    last = fraction.rename(columns={"value": "fraction"})
    found = pd.merge_asof(oxygen, last, on="minute", by="subject", tolerance=FRACTION)
    found["value"] = found["value"] / found["fraction"]
    return found[CHARTED].dropna().reset_index(drop=True)
