"""How long the default matrix trains: bc, td3bc and ogsrl with three seeds each, as the stage does.

Called by benchmarks.training. What stages before training make is kept in the cache.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._small import HARDLY_FITTED, HARDLY_TRAINED
from benchmarks._truth_cohorts import NAME, ROOT, make
from pipelines import train
from pipelines.stage import Stage

#: Texts of params.yaml for the same code small.
SMALL: Mapping[str, str] = {
    **HARDLY_FITTED,
    **HARDLY_TRAINED,
    "seeds: [0, 1, 2]": "seeds: [0]",
}


def measure_matrix(folder: Path | None = None, *, small: bool) -> dict[str, float]:
    """Seconds of the stage train, all algorithms, processes and their start included."""
    options: dict[str, Any] = {"patients": 1_500} if small else {}
    folder = folder or ROOT / ".cache" / "benchmarks" / "training"
    place = make(folder, options, 0, SMALL if small else {})
    figures = {}
    for name in place.stage.params.train.algorithms:
        shutil.rmtree(place.stage.cache / "train", ignore_errors=True)  # nothing is gone on with
        start = time.perf_counter()
        train.run(Stage("train", NAME, place.root, name))
        figures[f"matrix_{name}_s"] = time.perf_counter() - start
    return {"matrix_s": sum(figures.values()), **figures}
