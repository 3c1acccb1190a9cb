"""YAML text as plain values, with the line of every key path and every mistake of form.

Called by reader.py. PyYAML's nodes are read directly: nothing is constructed from tags, no
anchor is followed, and no value is guessed (`yes` and `010` are mistakes, not true and 8).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from ogsrl.spec.mistakes import Mistake, Path, dotted

MAX_BYTES = 1_000_000
MAX_DEPTH = 12
MAX_DIGITS = 16
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_OCTAL = re.compile(r"[-+]?0[0-9]")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)
_TAGS = {"str", "int", "float", "bool", "null", "map", "seq", "timestamp", "value", "merge"}


@dataclass
class Tree:
    """A file's values, where they stand, and which keys are beyond reading (`broken`)."""

    values: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def line(self, path: Path) -> int:
        """The line of a key, or of the nearest section around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1 if path == () else 0)

    def add(self, path: Path, rule: str, message: str) -> None:
        """Note a mistake at a key, unless its value could not be read in the first place."""
        if dotted(path) in self.broken:
            return
        self.mistakes.append(Mistake(dotted(path), self.line(path), message, rule))

    def at(self, path: Path) -> Any:
        """The value at a path; None where there is none."""
        value = self.values
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value


def read_tree(text: str) -> Tree:
    r"""Read a file's text; its values are None where the form is too broken to go on.

    >>> tree = read_tree("a: 1\nb: {c: [x, 2.5]}\n")
    >>> tree.values, tree.line(("b", "c", 1))
    ({'a': 1, 'b': {'c': ['x', 2.5]}}, 2)
    """
    tree = Tree()
    if len(text) > MAX_BYTES:
        message = f"the file has {len(text)} characters, allowed are {MAX_BYTES}"
        tree.mistakes.append(Mistake("", 0, message, "too_large"))
        return tree
    try:
        _check_form(text, tree)
        node = None if tree.mistakes else yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        tree.mistakes.append(_syntax(error))
        return tree
    if tree.mistakes:
        return tree
    if node is None:
        tree.mistakes.append(Mistake("", 1, "the file is empty; see `ogsrl spec draft`", "empty"))
    elif not isinstance(node, yaml.MappingNode):
        message = "the file must be keys and values, starting with `name: ...`"
        tree.mistakes.append(Mistake("", 1, message, "not_a_mapping"))
    else:
        tree.values = _value(node, (), tree)
    return tree


def _check_form(text: str, tree: Tree) -> None:
    """Mistakes that must be found before nodes are built: anchors, depth, several documents."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents == 2:
                tree.mistakes.append(
                    Mistake(
                        "", line, "a second document (`---`); one file, one cohort", "documents"
                    )
                )
        elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            message = f"`{sign}{event.anchor[:40]}`: no anchors here; write the value out"
            tree.mistakes.append(Mistake("", line, message, "anchor"))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                message = f"nested deeper than {MAX_DEPTH} levels"
                tree.mistakes.append(Mistake("", line, message, "too_deep"))
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax(error: yaml.YAMLError) -> Mistake:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        problem = error.problem or "not readable"
        if "\\t" in problem:
            problem = "a tab; indent with spaces"
            return Mistake("", error.problem_mark.line + 1, problem, "tab")
        hint = "; quote a text that contains `: `, or check the indentation and brackets"
        return Mistake("", error.problem_mark.line + 1, f"not YAML: {problem}{hint}", "syntax")
    return Mistake("", 0, "a character that YAML does not allow; save as plain UTF-8", "character")


def _value(node: yaml.Node, path: Path, tree: Tree) -> Any:
    tree.lines.setdefault(path, node.start_mark.line + 1)
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if tag not in _TAGS:
        tree.add(path, "tag", f"YAML tags (`!{tag[-30:]}`) are not allowed; remove it")
        return None
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, tree)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, at), tree) for at, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)  # there is no fourth kind of node
    return _scalar(node, tag, path, tree)


def _mapping(node: yaml.MappingNode, path: Path, tree: Tree) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        line = key_node.start_mark.line + 1
        if key is None or (key_node.tag != "tag:yaml.org,2002:str" and key_node.style is None):
            where = dotted(path)
            found = "here" if key is None else f"`{key[:40]}`"
            message = f"the key {found} is not a text to YAML; choose a name in letters"
            tree.mistakes.append(Mistake(where, line, message, "key_not_text"))
            continue
        inner = (*path, key)
        if key in values:
            first = tree.line(inner)
            message = f"`{key}` stands here a second time, first in line {first}; keep one"
            tree.mistakes.append(Mistake(dotted(inner), line, message, "duplicate_key"))
            continue
        tree.lines[inner] = line
        values[key] = _value(value_node, inner, tree)
    return values


def _scalar(node: yaml.ScalarNode, tag: str, path: Path, tree: Tree) -> Any:
    text: str = node.value
    if node.style is not None or tag == "null":
        return None if tag == "null" and node.style is None else text
    if tag == "bool":
        return _truth(text, path, tree)
    if _INTEGER.fullmatch(text) and len(text) < MAX_DIGITS:
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)) and not _OCTAL.match(text):
        return float(text)
    value = None
    if _NOT_FINITE.fullmatch(text):
        tree.add(path, "not_finite", f"`{text}` cannot be computed with; write a finite number")
    elif _FLOAT.fullmatch(text) or tag in ("int", "float"):
        message = f"YAML reads `{text[:40]}` as another number than it looks; write plain digits"
        tree.add(path, "yaml_number", message)
    else:
        value = text
    return value


def _truth(text: str, path: Path, tree: Tree) -> bool:
    truth = text.lower() in ("true", "yes", "on")
    if text.lower() not in ("true", "false"):
        word = str(truth).lower()
        message = f"YAML reads `{text}` as {word}; write {word}, or quote the text"
        tree.add(path, "yaml_boolean", message)
    return truth
