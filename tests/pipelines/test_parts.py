"""Stages that learn see the parts they may read, and no other."""

from pathlib import Path

import pytest

from ogsrl.errors import PreparationError
from pipelines.__main__ import STAGES
from pipelines.parts import MAY_READ_TEST, load_frame
from pipelines.stage import Stage


@pytest.mark.parametrize("name", [name for name in STAGES if name not in MAY_READ_TEST])
def test_test_patients_are_kept_from_every_stage_that_fits_or_picks(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(PreparationError, match="test patients are for evaluate, audit, register"):
        load_frame(Stage(name, "sepsis", tmp_path), "test")
