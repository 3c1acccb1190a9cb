"""Real patients of the openly licensed MIMIC-IV demo, where it lies beside the repository.

Tests read it there, and skip where it is absent; none of it is ever copied.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pandas as pd
import pytest

DEMO = Path(__file__).resolve().parents[2] / "shared" / "data" / "mimic_iv_demo_meds"

needs_demo = pytest.mark.skipif(
    not DEMO.is_dir(), reason="THE MIMIC-IV DEMO IS NOT HERE: nothing real was tested"
)


@lru_cache(maxsize=1)
def demo_events() -> pd.DataFrame:
    """Every event, in file order."""
    files = sorted(DEMO.glob("data/*/*.parquet"))
    return pd.concat(map(pd.read_parquet, files), ignore_index=True)
