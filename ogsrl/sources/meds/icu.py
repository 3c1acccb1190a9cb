"""Who was in intensive care when: ICU stays of whole subjects, and what is known of each.

Called by the MEDS source with chunks of events. Stays that cannot be placed in time are counted
by the reason, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ogsrl.sources.meds.mapping import Meaning

YEAR, DAY = 525_949.2, 1_440.0  # minutes


class Chunk:
    """Events of whole subjects, to be asked by what they mean.

    Attributes:
        events: By subject and time, as `read_events` gives them.
        meanings: Of the dataset.
    """

    def __init__(self, events: pd.DataFrame, meanings: Sequence[Meaning]) -> None:
        self.events, self.meanings = events, meanings
        self._of: dict[tuple[str, str], list[int]] = {}
        for place, meaning in enumerate(meanings):
            self._of.setdefault((meaning.kind, meaning.name), []).append(place)

    def of(self, kind: str, *names: str) -> pd.DataFrame:
        """Events of these meanings, in order."""
        places = [place for name in names for place in self._of.get((kind, name), [])]
        return self.events[self.events["meaning"].isin(places)]


def icu_stays(chunk: Chunk) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row an ICU stay, and how many were left out, by why.

    A stay without a discharge, or whose discharge is not after its admission, has no time.

    Returns:
        `subject`, `icu_in`, `icu_out`, `hospital_out`, `birth`, `death` (minutes since 1970, NaN
        where not told), `died_in_hospital`, `female` (1, 0, NaN where not told).
    """
    begun = chunk.of("moment", "icu_in")[["subject", "minute"]].rename(columns={"minute": "icu_in"})
    stays = _next(begun, chunk.of("moment", "icu_out"), "icu_in", "icu_out")
    following = stays.groupby("subject", sort=False)["icu_in"].shift(-1)
    open_ = (stays["icu_out"].isna() | (following < stays["icu_out"])).to_numpy()
    empty = (stays["icu_out"] <= stays["icu_in"]).to_numpy() & ~open_
    stays = stays[~open_ & ~empty].reset_index(drop=True)
    stays = _next(stays, chunk.of("moment", "hospital_out"), "icu_in", "hospital_out")
    for name in ("birth", "death"):
        stays[name] = stays["subject"].map(_first(chunk.of("moment", name)))
    # who dies in hospital is discharged, dead, at about that time
    dead = chunk.of("moment", "died_in_hospital")
    discharged = pd.MultiIndex.from_frame(stays[["subject", "hospital_out"]])
    told = discharged.isin(list(zip(dead["subject"], dead["minute"], strict=True)))
    before = (stays["death"] <= stays["hospital_out"].fillna(stays["icu_out"])).to_numpy()
    stays["died_in_hospital"] = told | before
    women, men = (set(chunk.of("moment", name)["subject"]) for name in ("female", "male"))
    stays["female"] = [
        1.0 if one in women - men else 0.0 if one in men - women else np.nan
        for one in stays["subject"].tolist()
    ]
    left = {"no discharge from intensive care": int(open_.sum()), "no length": int(empty.sum())}
    return stays, left


def _next(stays: pd.DataFrame, events: pd.DataFrame, after: str, name: str) -> pd.DataFrame:
    """The first of these events of the subject at that time or after it."""
    found = pd.DataFrame({"subject": events["subject"], name: events["minute"]})
    merged = pd.merge_asof(
        stays.sort_values(after, kind="stable"),
        found.dropna().sort_values(name, kind="stable"),
        left_on=after,
        right_on=name,
        by="subject",
        direction="forward",
    )
    return merged.sort_values(["subject", "icu_in"], kind="stable").reset_index(drop=True)


def _first(events: pd.DataFrame) -> dict[int, float]:
    """By subject: when first."""
    first = events.groupby("subject")["minute"].min()
    return dict(zip(first.index.tolist(), first.tolist(), strict=True))
