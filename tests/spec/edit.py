"""What a planted mistake is, and the file that it is planted in."""

from pathlib import Path
from typing import NamedTuple

BASE = (Path(__file__).parent / "demo.yaml").read_text(encoding="utf-8")


class Edit(NamedTuple):
    """One planted mistake: the rule that finds it, what is edited, and what must be said."""

    rule: str
    old: str
    new: str
    path: str
    words: str
    following: tuple[str, ...] = ()  # rules that the same edit breaks too
