"""A model directory is whole and untouched, or it is refused."""

from pathlib import Path

import numpy as np
import pytest

from ogsrl.errors import ModelError
from ogsrl.modeldir import load_model, save_model

ARRAYS = {"b": np.arange(3.0), "a": np.ones((2, 2), np.float32), "codes": np.array([1, 2])}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "thing", "thing", {"width": 2}, ARRAYS)
    return tmp_path / "thing"


def test_what_is_saved_comes_back(saved: Path) -> None:
    config, arrays = load_model(saved, "thing")
    assert config == {"width": 2}
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_the_same_content_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    backwards = dict(reversed(ARRAYS.items()))
    save_model(tmp_path / "again", "thing", {"width": 2}, backwards)
    for path in saved.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_saving_again_replaces_and_leaves_nothing_beside(saved: Path) -> None:
    save_model(saved, "thing", {"width": 3}, {"a": np.zeros(1)})
    config, arrays = load_model(saved, "thing")
    assert config == {"width": 3}
    assert set(arrays) == {"a"}
    assert [path.name for path in saved.parent.iterdir()] == ["thing"]


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_a_changed_file_is_refused(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[-2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"thing: {name} is not what manifest.json says"):
        load_model(saved, "thing")


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "manifest.json"])
def test_a_missing_file_is_refused(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ModelError, match="not a whole model directory"):
        load_model(saved, "thing")


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "null"])
def test_a_broken_manifest_is_refused(saved: Path, text: str) -> None:
    (saved / "manifest.json").write_text(text)
    with pytest.raises(ModelError):
        load_model(saved, "thing")


def test_a_model_of_another_kind_is_refused(saved: Path) -> None:
    with pytest.raises(ModelError, match="kind 'thing', format 1; expected 'other'"):
        load_model(saved, "other")
