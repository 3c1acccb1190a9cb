"""A model's directory: config.json, weights.safetensors and manifest.json; no pickle, no rows.

Called by every `save(directory)` and `load(directory)` of something fitted. A file that is not what
its manifest says is refused; a directory is whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ogsrl.errors import ModelError

FORMAT = 1
CONFIG, WEIGHTS, MANIFEST = "config.json", "weights.safetensors", "manifest.json"
Arrays = Mapping[str, npt.NDArray[Any]]


def save_model(directory: Path, kind: str, config: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a model beside its place, then rename; the same content gives the same bytes."""
    beside = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    content = {"format": FORMAT, "kind": kind, "config": config}
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    (beside / CONFIG).write_text(text, encoding="utf-8")
    (beside / WEIGHTS).write_bytes(save({n: np.ascontiguousarray(a) for n, a in arrays.items()}))
    hashes = {name: _sha256(beside / name) for name in (CONFIG, WEIGHTS)}
    (beside / MANIFEST).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    beside.rename(directory)


def load_model(directory: Path, kind: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The config and the arrays of a model of this kind, once its files are found untouched."""
    name = directory.name
    try:
        hashes = dict(json.loads((directory / MANIFEST).read_text(encoding="utf-8")))
        found = {file: _sha256(directory / file) for file in (CONFIG, WEIGHTS)}
    except (OSError, ValueError, TypeError):
        raise ModelError(
            f"{name}: not a whole model directory ({CONFIG}, {WEIGHTS}, {MANIFEST}); run its "
            "stage again"
        ) from None
    changed = [
        file for file in found if not isinstance(hashes, dict) or hashes.get(file) != found[file]
    ]
    if changed:
        raise ModelError(
            f"{name}: {', '.join(changed)} is not what {MANIFEST} says; somebody changed it, run "
            "its stage again"
        )
    try:
        content = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        arrays = load((directory / WEIGHTS).read_bytes())
        written = (content["format"], content["kind"])
        config = content["config"]
    except (ValueError, KeyError, TypeError, SafetensorError):
        raise ModelError(f"{name}: not what `ogsrl` writes; run its stage again") from None
    if written != (FORMAT, kind):
        raise ModelError(
            f"{name}: holds a model of kind {written[1]!r}, format {written[0]}; expected "
            f"{kind!r}, format {FORMAT}"
        )
    return config, arrays


@contextmanager
def rebuilding(directory: Path) -> Iterator[None]:
    """While a model is built from its config and arrays: what they lack is told as such."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError):
        raise ModelError(
            f"{directory.name}: {CONFIG} and {WEIGHTS} are not those of this version of `ogsrl`; "
            "run its stage again"
        ) from None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
