"""Who is left after each stage, as the card tells it: never how many few were left out.

Called by `ogsrl.audit.filled`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ogsrl.preparation.coverage import MIN_PATIENTS


def attrition(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence each, in order.

    Who is left in the end can be added up from the parts, so it is shown. An earlier count that is
    larger by fewer than ten would tell how many are missing, and is not: neither it nor the
    difference can be worked out.

    >>> counts = [(40, 41), (25, 26), (24, 26)]
    >>> names = ("read", "adults", "kept by the contract")
    >>> lines = [dict(step=s, patients=p, stays=n) for s, (p, n) in zip(names, counts)]
    >>> for line in attrition(lines): print(line)
    read: 40 patients, 41 stays
    adults: fewer than 10 patients more than are left, 26 stays
    kept by the contract: 24 patients, 26 stays; fewer than 10 left out
    """
    hidden = {what: _hidden([line[what] for line in lines]) for what in ("patients", "stays")}
    told = []
    for number, line in enumerate(lines):
        each = ", ".join(
            f"fewer than {MIN_PATIENTS} {what} more than are left"
            if number in hidden[what]
            else f"{line[what]:,} {what}"
            for what in hidden
        )
        out = any(number - 1 in of for of in hidden.values())
        told.append(f"{line['step']}: {each}" + (f"; fewer than {MIN_PATIENTS} left out" * out))
    return told


def _hidden(counts: Sequence[int]) -> set[int]:
    """Places of counts that are within ten of the next one shown, from the end."""
    hidden: set[int] = set()
    shown = None
    for place in reversed(range(len(counts))):
        if shown is not None and 0 < counts[place] - shown < MIN_PATIENTS:
            hidden.add(place)
        else:
            shown = counts[place]
    return hidden
