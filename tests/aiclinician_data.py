"""The AI-Clinician's table of simulated patients: what is in it, and since when."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ogsrl.sources.aiclinician.defects import score
from ogsrl.sources.aiclinician.layout import CHARTED, CHECKED, DAYS_A_YEAR, DOSES, META, STATICS
from ogsrl.sources.simulator import simulate
from ogsrl.trajectories import starts

#: Of a stay's rows, that many lie before its presumed onset.
EARLY = 2


def simulated(patients: int, seed: int = 5) -> pd.DataFrame:
    """Stays of at least five steps whose every dose is known, without gaps in what was charted."""
    frame = simulate(patients, seed)
    long = frame.groupby("stay_id")["step"].transform("size") >= EARLY + 3
    whole = ~frame.groupby("stay_id")["iv_fluid"].transform(lambda dose: dose.isna().any())
    frame = frame[long & whole].reset_index(drop=True)
    names = [name for name in CHARTED if name in frame]
    filled = frame.groupby("stay_id")[names].ffill().groupby(frame["stay_id"]).bfill()
    return frame.assign(**filled.fillna(filled.median()))


def layout(frame: pd.DataFrame) -> pd.DataFrame:
    """Row k has the doses of step k, and what was charted until the next one."""
    first = starts(frame["stay_id"])
    last = np.append(first[1:], len(frame)) - 1
    stay = np.repeat(np.arange(len(first)), last - first + 1)
    step = np.arange(len(frame)) - first[stay]
    begun = 5e9 + stay * 1e7
    after = frame.shift(-1)
    made = pd.DataFrame(
        {
            "traj": stay + 1,
            "row": step,
            "onset": begun + (EARLY - 1) * 4 * 3600 + 60,
            "time": begun + step * 4 * 3600,
            "stay": 200_000 + stay,
            "reward": 0.0,
            "age": frame["age"] * DAYS_A_YEAR,
            "female": frame["female"].astype(int),
            "weight": frame["weight"].fillna(80.0),
            "readmission": stay % 2,
        }
    )
    rng = np.random.default_rng(0)
    for name in CHARTED:
        other = rng.normal(10, 1, len(frame))  # what the simulator does not chart
        made[name] = after[name].to_numpy(np.float64) if name in frame else other
    for name in DOSES:
        made[name] = frame[name].to_numpy(np.float64)
    made["their_sofa"] = score(made)
    died = frame["died"].groupby(frame["stay_id"], sort=False).last().fillna(False).astype(bool)
    kept = np.ones(len(made), bool)
    kept[last] = False  # nothing was charted after it
    made.loc[last - 1, "reward"] = np.where(died, -1.0, 1.0)
    made["action"] = (made["iv_fluid"] > 0) * 5 + (made["vasopressor"] > 0) * 1
    return made[kept].reset_index(drop=True)


def named(made: pd.DataFrame) -> pd.DataFrame:
    """As mimic_sepsis names the columns."""
    doses = {name: theirs for name, (_, theirs) in DOSES.items()}
    theirs = {**META, **STATICS, **CHARTED, **CHECKED, **doses, "action": "a:action"}
    return made[list(theirs)].rename(columns=theirs)
