"""Whether the files of a model hold rows of patients.

Called by the stage audit. Tests look for planted values; here it is by form: an array as long as
there are patients, stays or rows in some part is taken for theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.numpy import load_file

#: Arrays shorter than this are never taken for rows.
LEAST = 20


def with_rows(directories: Mapping[str, Path], counts: set[int]) -> list[str]:
    """`<model>: <array>` for each array that is as long as a part of the cohort.

    Args:
        directories: Of the models, by name.
        counts: How many patients, stays and rows the parts have.
    """
    suspect = {count for count in counts if count >= LEAST}
    return [
        f"{name}: {array}"
        for name, directory in directories.items()
        for array, shape in _shapes(directory)
        if suspect.intersection(shape)
    ]


def _shapes(directory: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for file in sorted(directory.rglob("*.safetensors")):
        for name, array in load_file(file).items():
            yield name, array.shape
