"""Doses from infusions: volumes and rates in our units, and when a dose cannot be known.

Called by the MEDS source with chunks of whole subjects. A rate of absolute amounts is divided by
the patient's real weight; where that is not known, nor is the dose: it is marked, never assumed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.sources.meds.icu import Chunk
from ogsrl.sources.meds.infusions import Counts, pair
from ogsrl.sources.meds.mapping import CodeMap

Doubles = npt.NDArray[np.float64]

#: A rate whose amount is another by more than this share is not to be believed.
CONTRADICTED = 0.1
#: Meanings of what runs; how findings tell of their events, and of those that another is like.
INFUSED = ("rate", "amount", "flow", "volume")
EVENTS, TWICE = "infusion events", "infusion events that are there twice"
SPAN = ["subject", "name", "start", "end", "value", "told"]


@dataclass(frozen=True)
class Given:
    """What was given; `subject`, `name` (drug or fluid), `start`, `end`, `value`, `told`.

    Attributes:
        rates: Of drugs, in their unit; NaN where it cannot be known. `told` is what was said at the
            start, whatever came of it.
        volumes: Of fluids, in mL as given; NaN where it cannot be known.
        findings: What was wrong with infusions, and how often.
    """

    rates: pd.DataFrame
    volumes: pd.DataFrame
    findings: Counter[str]


def doses_given(chunk: Chunk, mapping: CodeMap) -> Given:
    """Every infusion that the mapping knows."""
    counts: Counter[str] = Counter()
    infused = [place for place, one in enumerate(chunk.meanings) if one.kind in INFUSED]
    events = chunk.events[chunk.events["meaning"].isin(infused)]
    counts[EVENTS] += len(events)
    counts[TWICE] += int(events.duplicated().sum())
    weights = _weights(chunk)
    rates = [_rates(chunk, mapping, name, weights, counts) for name in mapping.drugs]
    volumes = [_volumes(chunk, mapping, name, counts) for name in mapping.fluids]
    none = pd.DataFrame({name: pd.Series(dtype="float64") for name in SPAN})
    return Given(
        pd.concat([none, *rates], ignore_index=True),
        pd.concat([none, *volumes], ignore_index=True),
        counts,
    )


def _weights(chunk: Chunk) -> pd.DataFrame:
    """Real weights by time; what was noted at an infusion counts with the others."""
    known = chunk.of("concept", "weight", "weight_at_infusion")[["subject", "minute", "value"]]
    known = known.dropna().drop_duplicates(["subject", "minute"], keep="last")
    return known.rename(columns={"value": "weight"}).sort_values("minute", kind="stable")


def _rates(
    chunk: Chunk, mapping: CodeMap, name: str, weights: pd.DataFrame, counts: Counter[str]
) -> pd.DataFrame:
    drug = mapping.drugs[name]
    events = chunk.of("rate", name).assign(ends=False)
    events = pd.concat([events, chunk.of("amount", name).assign(ends=True)])
    if events.empty:
        return events.reindex(columns=SPAN)
    events = pd.merge_asof(
        events.sort_values("minute", kind="stable"), weights, on="minute", by="subject"
    )
    by_weight = np.array([one.conversion.per_kg for one in chunk.meanings])
    absolute = by_weight[events["meaning"].to_numpy()]
    weight = events["weight"].to_numpy(np.float64)
    value = events["value"].to_numpy(np.float64)
    rate = np.where(absolute, value / weight, value)
    begins = ~events["ends"].to_numpy()
    low, high = drug.plausible
    below, beyond = begins & (rate < low), begins & (rate > high)
    rate = np.where(below | beyond, np.nan, rate)
    counts[f"{name}: rates below {low:g}"] += int(below.sum())
    counts[f"{name}: rates above {high:g} {drug.unit}"] += int(beyond.sum())
    counts[f"{name}: rates without a weight"] += int((absolute & np.isnan(weight)).sum())
    flow = rate * drug.minute.factor * (weight if drug.minute.per_kg else 1.0)
    events = events.assign(
        item=name, flow=np.where(events["ends"], np.nan, flow), amount=value, rate=rate
    )
    found, made = pair(events)
    return _spans(found, events["rate"].to_numpy(), name, counts, made)


def _spans(
    found: pd.DataFrame, rate: Doubles, name: str, counts: Counter[str], made: Counts
) -> pd.DataFrame:
    _unpaired(name, made, counts)
    start, end = found["start"].to_numpy(), found["end"].to_numpy()
    begun = found["row_start"].to_numpy()
    value = np.where(begun >= 0, rate[begun], np.nan)
    came = found["flow"].to_numpy() * (end - start)
    amount = found["amount"].to_numpy()
    # times are told by the minute
    spare = CONTRADICTED * np.maximum(amount, came) + found["flow"].to_numpy()
    off = np.abs(came - amount) > spare
    counts[f"{name}: rates that amounts contradict"] += int(off.sum())
    return pd.DataFrame(
        {
            "subject": found["subject"],
            "name": name,
            "start": start,
            "end": end,
            "value": np.where(off, np.nan, value),
            "told": value,
        }
    )


def _unpaired(name: str, made: Counts, counts: Counter[str]) -> None:
    counts[f"{name}: starts without an end"] += made.without_end
    counts[f"{name}: ends without a start"] += made.without_start


def _volumes(chunk: Chunk, mapping: CodeMap, name: str, counts: Counter[str]) -> pd.DataFrame:
    low, high = mapping.fluids[name].plausible
    events = chunk.of("flow", name).assign(ends=False)
    events = pd.concat([events, chunk.of("volume", name).assign(ends=True)])
    if events.empty:
        return events.reindex(columns=SPAN)
    items = np.array([one.item for one in chunk.meanings])
    value = events["value"].to_numpy(np.float64)
    below, beyond = value < low, events["ends"].to_numpy() & (value > high)
    counts[f"{name}: volumes or flows below {low:g}"] += int(below.sum())
    counts[f"{name}: volumes above {high:g} mL"] += int(beyond.sum())
    value = np.where(below | beyond, np.nan, value)
    events = events.assign(
        item=items[events["meaning"].to_numpy()], flow=value / 60, amount=value
    ).sort_values(["subject", "minute"], kind="stable")
    found, made = pair(events.reset_index(drop=True))
    _unpaired(name, made, counts)
    # a volume whose start is not told came in when it was noted
    start = found["start"].fillna(found["end"])
    return pd.DataFrame(
        {
            "subject": found["subject"],
            "name": name,
            "start": start,
            "end": found["end"],
            "value": found["amount"],
            "told": np.nan,
        }
    )
