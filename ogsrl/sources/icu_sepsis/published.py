"""The process of the PyPI package `icu-sepsis`, as arrays without the rows of its ended states.

Read from the package's file alone: importing it would import two gym libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ogsrl.errors import SourceError

Floats = NDArray[np.float64]

PACKAGE: Final = "icu-sepsis==2.0.1"
#: States in which a patient is treated: 0 to 712. Then come death, survival and what follows both.
STATES: Final = 713
#: Levels of each of the two doses, and of both: fluid x 5 + vasopressor.
LEVELS: Final = 5
COMBINATIONS: Final = LEVELS**2


@dataclass(frozen=True)
class Process:
    """The process; outcomes are the states, then death, then discharge.

    Attributes:
        follows: (states, combinations, outcomes) chances of what follows.
        begun: (states,) share of stays that begin there.
        clinicians: (states, combinations) the package's `expert_policy`.
        listed: (states, combinations) whether the package calls the pair admissible; what follows
            any other is the mean over the state's listed pairs.
    """

    follows: Floats
    begun: Floats
    clinicians: Floats
    listed: NDArray[np.bool_]

    @property
    def given(self) -> NDArray[np.bool_]:
        """(states, combinations) whether clinicians ever give it."""
        return self.clinicians > 0


@lru_cache(maxsize=2)
def process(*, deadly: bool = False) -> Process:
    """The published process, or the variant in which what clinicians never give kills at once.

    Raises:
        SourceError: The package is not installed, or is another version.
    """
    found = find_spec("icu_sepsis")
    if found is None or found.origin is None:
        raise SourceError(
            f"source.kind icu_sepsis: the package is not installed; run `pip install {PACKAGE}`, "
            "or `make install`, which installs it"
        )
    assets = Path(found.origin).parent / "envs" / "assets"
    made = _read(assets)
    return _deadly(made) if deadly else made


def _read(assets: Path) -> Process:
    try:
        with np.load(assets / "dynamics.npz", allow_pickle=False) as arrays:
            chances, begun = arrays["tx_mat"], arrays["d_0"]
            clinicians = arrays["expert_policy"]
        listed = _listed(assets / "admissible_actions.txt")
    except (OSError, KeyError, ValueError):
        raise SourceError(f"icu-sepsis: its files are not those of {PACKAGE}; install it") from None
    whole = (STATES + 3, COMBINATIONS, STATES + 3)
    if chances.shape != whole or bool(chances[:STATES, :, STATES + 2].any()):
        raise SourceError(
            f"icu-sepsis: a table of shape {chances.shape}, expected {whole}; install {PACKAGE}"
        )
    made = Process(
        follows=np.ascontiguousarray(chances[:STATES, :, : STATES + 2]),
        begun=begun[:STATES].copy(),
        clinicians=clinicians[:STATES].copy(),
        listed=listed,
    )
    return _frozen(made)


def _listed(file: Path) -> NDArray[np.bool_]:
    """How many pairs each state has, on the first line; then a line of them for each."""
    counts, *lines = file.read_text(encoding="ascii").splitlines()
    found = np.zeros((STATES, COMBINATIONS), dtype=np.bool_)
    for state, (count, line) in enumerate(zip(counts.split()[:STATES], lines, strict=False)):
        found[state, [int(pair) for pair in line.split()]] = True
        if found[state].sum() != int(count):
            raise ValueError(state)
    return found


def _deadly(made: Process) -> Process:
    follows = made.follows.copy()
    follows[~made.given] = 0.0
    follows[~made.given, STATES] = 1.0
    return _frozen(Process(follows, made.begun, made.clinicians, made.listed))


def _frozen(made: Process) -> Process:
    """Shared by everybody in this program: nobody may write into it."""
    for array in (made.follows, made.begun, made.clinicians, made.listed):
        array.setflags(write=False)
    return made
