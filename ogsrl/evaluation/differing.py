"""The stays where a policy and the clinicians differ most, row by row, for a clinician to read.

Called by the stage evaluate, which writes them to private/ and nowhere else: these are patients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ogsrl.errors import EstimateError
from ogsrl.evaluation.executed import Executed
from ogsrl.preparation.tensors import StayTensors

#: Stays shown, and the steps with a dose recommended that a stay must have.
STAYS, LEAST_STEPS = 20, 3


def most_different(
    stays: StayTensors,
    executed: Executed,
    stay_ids: Sequence[str] | pd.Series,
    count: int = STAYS,
    least_steps: int = LEAST_STEPS,
) -> pd.DataFrame:
    r"""Decisions of the stays with the largest mean distance of doses, most different first.

        distance = mean over steps not deferred of |x - a|_2 / sqrt(doses),   in scaled units,

    x of the policy's first draw. Columns: `stay_id, step, distance, deferred`, for each dose
    `given_<dose>` and `recommended_<dose>` (empty where deferred), and the state's columns, all in
    clinical units. PATIENTS' ROWS: for private/ alone.

    Args:
        stays: Whole stays.
        executed: What the policy does in every row of them.
        stay_ids: Of each row of the prepared frame that `stays` was made of.
        count: Stays shown.
        least_steps: Steps not deferred that a stay must have.
    """
    if len(stay_ids) != len(stays.step):
        raise EstimateError(
            f"stay_ids: {len(stay_ids)} for {len(stays.step)} rows; give those of the same frame"
        )
    row = stays.decision.nonzero().squeeze(1)
    offered = ~executed.deferred[0, row]
    apart = (executed.doses[0, row] - stays.doses[row]).double().square().mean(1).sqrt()
    stay, many = stays.stay[row], int(stays.stay.max()) + 1 if len(row) else 0
    sums = torch.zeros(2, many, dtype=torch.float64)
    both = torch.stack([torch.where(offered, apart, 0.0), offered.double()])
    total, steps = sums.index_add_(1, stay, both)
    distance = (total / steps.clip(min=1)).numpy()
    ids = np.asarray(stay_ids, dtype=object)[row.numpy()]
    preparation = stays.history.preparation
    made = pd.DataFrame({"stay_id": ids, "step": stays.step[row].numpy()})
    made["distance"] = distance[stay.numpy()]
    made["deferred"] = ~offered.numpy()
    for j, (name, scale) in enumerate(preparation.doses.items()):
        made[f"given_{name}"] = scale.inverse(stays.doses[row, j].numpy())
        would = scale.inverse(executed.doses[0, row, j].numpy())
        made[f"recommended_{name}"] = np.where(offered.numpy(), would, np.nan)
    charted = stays.history.clinical(stays.states[row], preparation.states)
    made = pd.concat([made, pd.DataFrame(charted)], axis=1)
    enough = made[(steps >= least_steps).numpy()[stay.numpy()]]
    order = enough.groupby("stay_id")["distance"].first().reset_index()
    order = order.sort_values(["distance", "stay_id"], ascending=[False, True])[:count]
    place = {name: i for i, name in enumerate(order["stay_id"])}
    shown: pd.DataFrame = enough[enough["stay_id"].isin(place)]
    by_place = np.lexsort((shown["step"], shown["stay_id"].map(place)))
    return shown.iloc[by_place].reset_index(drop=True)
