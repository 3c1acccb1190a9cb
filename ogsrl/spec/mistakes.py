"""Mistakes of a cohort file: where, which line, what was found and what is allowed.

Collected by the reader and its checks, and raised all at once as one CohortFileError.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ogsrl.errors import SpecError

MAX_SHOWN = 200
_MAX_ALLOWED = 12


@dataclass(frozen=True)
class Mistake:
    """One mistake of a cohort file.

    Attributes:
        path: The key's path, e.g. `observations.spo2.plausible`; empty for the whole file.
        line: Line of the file, from 1; 0 where there is none.
        message: What was found, what is allowed, and the nearest known name.
        rule: Name of the kind of mistake.
    """

    path: str
    line: int
    message: str
    rule: str

    def __str__(self) -> str:
        where = f"line {self.line}" if self.line else ""
        place = ", ".join(part for part in (where, self.path) if part)
        return f"{place}: {self.message}" if place else self.message


class CohortFileError(SpecError):
    """A cohort file is wrong; all its mistakes at once."""

    def __init__(self, file_name: str, mistakes: Iterable[Mistake]) -> None:
        self.file_name = file_name
        self.mistakes: tuple[Mistake, ...] = tuple(sorted(set(mistakes), key=_order))
        count = len(self.mistakes)
        lines = [f"{file_name}: {count} mistake{'s' if count != 1 else ''}"]
        lines += [f"  {mistake}" for mistake in self.mistakes[:MAX_SHOWN]]
        if count > MAX_SHOWN:
            lines.append(f"  and {count - MAX_SHOWN} more")
        super().__init__("\n".join(lines))


def _order(mistake: Mistake) -> tuple[int, str, str]:
    return mistake.line, mistake.path, mistake.message


Path = tuple[str | int, ...]


def dotted(path: Sequence[str | int]) -> str:
    """A path as it is shown.

    >>> dotted(("observations", "spo2", "plausible", 0))
    'observations.spo2.plausible[0]'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggestion(name: str, known: Iterable[str], *, listed: bool = True) -> str:
    """What to write instead of an unknown name: the nearest known one, and which are allowed.

    >>> suggestion("lactat", ["lactate", "ph"])
    '; did you mean `lactate`? Allowed: lactate, ph'
    """
    names = list(dict.fromkeys(known))
    lower = {item.lower(): item for item in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    text = f"; did you mean `{lower[near[0]]}`?" if near else ""
    if listed and names:
        more = f" and {len(names) - _MAX_ALLOWED} more" if len(names) > _MAX_ALLOWED else ""
        shown = ", ".join(names[:_MAX_ALLOWED]) + more
        text += f" Allowed: {shown}" if text else f"; allowed: {shown}"
    return text


def shown(value: object) -> str:
    r"""A value of the file as a message shows it: short, on one line.

    >>> shown("a\nb"), shown(True), shown([1, 2]), shown(None)
    ('the text "a b"', 'true', 'a list', 'nothing')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = " ".join(value.split())
        return f'the text "{text[:40]}..."' if len(text) > 40 else f'the text "{text}"'
    if isinstance(value, dict):
        return "keys and values"
    return "a list" if isinstance(value, list | tuple) else f"{value}"
