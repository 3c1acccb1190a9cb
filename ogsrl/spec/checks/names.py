"""Checks of names: of the file, of columns, and of everything that an expression or table holds."""

from __future__ import annotations

import re
from pathlib import PurePath

from ogsrl.spec.checks.parts import COLUMN_SECTIONS, Parts
from ogsrl.spec.grammar import WORDS
from ogsrl.spec.model import RESERVED

MAX_NAME = 60
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_names(parts: Parts, file_name: str) -> None:
    """Names that the trajectory table, expressions and output files can hold."""
    tree = parts.tree
    name, stem = tree.at(("name",)), PurePath(file_name).stem
    if isinstance(name, str) and stem and name != stem:
        tree.add(
            ("name",),
            "name_not_file",
            f"`{name}` in a file called {stem}; rename one, since outputs go by this name",
        )
    first: dict[str, str] = {}
    for section in COLUMN_SECTIONS:
        for column in parts.declared(section):
            path = (section, column)
            _check_name(parts, path)
            if column in RESERVED:
                names = ", ".join(RESERVED)
                message = f"the table has its own column `{column}`; not to be used: {names}"
                tree.add(path, "reserved_name", message)
            elif column in WORDS:
                message = f"`{column}` is a word of expressions; choose another name"
                tree.add(path, "grammar_word", message)
            elif column.startswith("cost_"):
                message = "names with `cost_` are kept for constraints; choose another name"
                tree.add(path, "cost_prefix", message)
            if column in first:
                message = f"`{column}` stands in {first[column]} too; a column has one role"
                tree.add(path, "same_name", message)
            first.setdefault(column, section)
    for section in ("constraints", "hazards", "subgroups"):
        for entry in parts.declared(section):
            _check_name(parts, (section, entry))


def _check_name(parts: Parts, path: tuple[str, str]) -> None:
    name = path[1]
    if not _NAME.fullmatch(name):
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        plain = plain if _NAME.fullmatch(plain) else "a_name"
        parts.tree.add(
            path,
            "bad_name",
            f"`{name[:MAX_NAME]}` must be lower-case letters, digits and _, e.g. `{plain}`; "
            "a foreign table's own name goes to source.columns",
        )
    elif len(name) > MAX_NAME:
        message = f"the name has {len(name)} characters, allowed are {MAX_NAME}"
        parts.tree.add(path, "bad_name", message)
