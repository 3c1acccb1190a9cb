"""Reads a cohort file: YAML with lines, the typed model, then the checks between sections.

Called by every stage and by `ogsrl spec`. All mistakes of a file are raised at once as one
CohortFileError. Nothing of the file is ever executed or guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ogsrl.spec.checks import check_all, read_parts
from ogsrl.spec.mistakes import CohortFileError, Mistake, Path, dotted, shown, suggestion
from ogsrl.spec.model import Cohort
from ogsrl.spec.tree import Tree, read_tree

_MISSING_HINTS: dict[Path, str] = {
    ("name",): "write the file's name without .yaml",
    ("version",): "start with 1",
    ("time_step_hours",): "the length of a step, e.g. 4",
    ("max_steps",): "decisions in the longest stay, e.g. 18",
    ("discount",): "e.g. 0.99",
    ("source",): "e.g. `source: {kind: table, path: data.csv}`",
    ("observations",): "the columns that are charted over time",
    ("actions",): "the doses that a policy chooses",
    ("reward",): "e.g. `reward: {terminal: {death: -1, discharge: 1, horizon: 1}}`",
    ("guardian",): "e.g. `guardian: {columns: [age, spo2]}`",
}
_NEEDED = {
    "string_type": ("text_needed", "a text"),
    "int_type": ("whole_number_needed", "a whole number"),
    "int_from_float": ("whole_number_needed", "a whole number"),
    "float_type": ("number_needed", "a number"),
    "bool_type": ("truth_needed", "true or false"),
    "tuple_type": ("list_needed", "a list in [ ]"),
    "dict_type": ("section_needed", "keys and values"),
    "model_type": ("section_needed", "keys and values"),
    "model_attributes_type": ("section_needed", "keys and values"),
}


def load_cohort(path: FilePath | str) -> Cohort:
    """Read and check a cohort file.

    Raises:
        CohortFileError: With every mistake of the file, each with its key path and line.
    """
    path = FilePath(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = sorted(item.stem for item in path.parent.glob("*.yaml")) if path.parent else []
        message = f"no such file{suggestion(path.stem, near)}"
        raise CohortFileError(str(path), [Mistake("", 0, message, "no_file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        message = (
            "not UTF-8 text; save it as UTF-8"
            if isinstance(error, UnicodeDecodeError)
            else "cannot be read; is it a file that you may open?"
        )
        raise CohortFileError(str(path), [Mistake("", 0, message, "unreadable")]) from None
    return parse_cohort(text, str(path))


def parse_cohort(text: str, file_name: str) -> Cohort:
    r"""Read and check the text of a cohort file; its name must be that of the cohort.

    >>> try:
    ...     parse_cohort("name: sepsis\nversoin: 1", "sepsis.yaml")
    ... except CohortFileError as error:
    ...     print(error.mistakes[0])
    ...     print(len(error.mistakes), "mistakes, the last:", error.mistakes[-1].message[:44])
    line 1: `actions` is missing: the doses that a policy chooses
    10 mistakes, the last: not a key here; did you mean `version`? Allo
    """
    tree = read_tree(text)
    if not isinstance(tree.values, dict):
        raise CohortFileError(file_name, tree.mistakes)
    cohort = _validate(tree)
    tree.broken = {mistake.path for mistake in tree.mistakes}
    tree.broken |= {path.partition("[")[0] for path in tree.broken}  # a list with its items
    check_all(read_parts(tree), file_name)
    if cohort is None or tree.mistakes:
        raise CohortFileError(file_name, tree.mistakes)
    return cohort


def _validate(tree: Tree) -> Cohort | None:
    """The typed cohort; the mistakes of form are not reported twice."""
    noted = {mistake.path for mistake in tree.mistakes}
    for written in tree.lines:
        free = written[:1] == ("overrides",) or written[:2] == ("source", "options")
        if tree.at(written) is None and not free and dotted(written) not in noted:
            message = "nothing is written after the colon; write a value, or remove the key"
            tree.add(written, "nothing_written", message)
    broken = {mistake.path for mistake in tree.mistakes}
    try:
        return Cohort.model_validate_json(json.dumps(tree.values), strict=True)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=True):
            path: Path = tuple(detail["loc"])
            if dotted(path) not in broken and detail["type"] != "default_factory_not_called":
                _translate(tree, path, detail)
        return None


def _translate(tree: Tree, path: Path, detail: ErrorDetails) -> None:
    kind, value = detail["type"], tree.at(path)
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "missing":
        _missing(tree, path)
    elif kind == "extra_forbidden":
        known = _known_keys(path[:-1])
        tree.add(path, "unknown_key", f"not a key here{_key_hint(tree, path, known)}")
    elif kind == "literal_error":
        allowed = _literal_values(path)
        message = f"found {shown(value)}{suggestion(str(value), allowed)}"
        tree.add(path, "unknown_value", message)
    elif kind in _NEEDED:
        rule, needed = _NEEDED[kind]
        message = f"needs {needed}, found {shown(value)}"
        if isinstance(value, str) and rule in ("number_needed", "whole_number_needed"):
            rule, message = _quoted(value, rule, message)
        if rule == "text_needed" and isinstance(value, int | float):
            message += "; put it in quotes"
        tree.add(path, rule, message)
    elif kind in ("too_long", "too_short"):
        _length(tree, path, value)
    elif kind == "string_pattern_mismatch":
        message = f"found {shown(value)}, allowed: lower-case letters, digits and _, at most 40"
        tree.add(path, "name_pattern", message)
    else:
        limits = {
            "greater_than": ("above", "gt"),
            "greater_than_equal": ("at least", "ge"),
            "less_than": ("below", "lt"),
            "less_than_equal": ("at most", "le"),
        }
        word, key = limits.get(kind, ("", ""))
        allowed_text = f"{word} {context[key]:g}" if key else "another value"
        tree.add(path, "out_of_range", f"found {shown(value)}, allowed: {allowed_text}")


def _missing(tree: Tree, path: Path) -> None:
    if isinstance(path[-1], int):
        _length(tree, path[:-1], tree.at(path[:-1]))
        return
    hint = _MISSING_HINTS.get(path) or _description(path)
    parent = dotted(path[:-1])
    message = f"`{path[-1]}` is missing" + (f": {hint}" if hint else "")
    tree.mistakes.append(Mistake(parent, tree.line(path[:-1]), message, "missing_key"))


def _length(tree: Tree, path: Path, value: Any) -> None:
    if isinstance(value, dict):
        tree.add(path, "section_empty", "needs at least one entry, found none")
    else:
        count = len(value) if isinstance(value, list) else 0
        tree.add(path, "pair_needed", f"needs [lowest, highest], found {count} numbers")


def _quoted(value: str, rule: str, message: str) -> tuple[str, str]:
    try:
        float(value)
    except ValueError:
        comma = value.count(",") == 1 and value.replace(",", "").strip("+-").isdigit()
        return rule, message + ("; write decimals with a point" if comma else "")
    return "quoted_number", message + "; remove the quotes"


def _key_hint(tree: Tree, path: Path, known: Iterable[str]) -> str:
    parent = tree.at(path[:-1])
    unused = [key for key in known if not isinstance(parent, dict) or key not in parent]
    return suggestion(str(path[-1]), unused)


def _model_at(path: Path) -> tuple[type[BaseModel] | None, Any]:
    """The section that a path leads to, and the type of the key it ends with."""
    model: type[BaseModel] | None = Cohort
    hint: Any = Cohort
    for part in path:
        if model is not None and isinstance(part, str) and part in model.model_fields:
            hint = model.model_fields[part].annotation
        else:  # a name inside a section of named entries
            hint = next(iter(get_args(hint)[1:]), None)
        model = _section(hint)
    return model, hint


def _section(hint: Any) -> type[BaseModel] | None:
    for candidate in (hint, *get_args(hint)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate if get_args(hint)[:1] != (str,) else None
    return None


def _known_keys(path: Path) -> list[str]:
    model = _model_at(path)[0]
    return list(model.model_fields) if model is not None else []


def _description(path: Path) -> str:
    model = _model_at(path[:-1])[0]
    text = (model.model_fields[str(path[-1])].description or "") if model is not None else ""
    return text[:1].lower() + text[1:].rstrip(".")


def _literal_values(path: Path) -> list[str]:
    return [str(value) for value in get_args(_model_at(path)[1])]
