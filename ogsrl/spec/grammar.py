"""The closed grammar of expressions: text in, a tree of five kinds of node out.

Called by expressions.py alone. Never evaluates anything, and never hands text to Python: every
word that is not a column, a number or one of the operators below is a mistake with a position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ogsrl.errors import SpecError

MAX_LENGTH = 1000
MAX_NESTING = 20
MAX_OPERANDS = 64
WORDS = ("and", "or", "not")
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<operator><=|>=|==|!=|<|>|\+|-|\*|/|\(|\)))",
    re.ASCII,
)
_HINTS = {
    "&&": "write `and`",
    "||": "write `or`",
    "**": "there are no powers; multiply",
    "//": "write `/`",
    "<>": "write `!=`",
    "=<": "write `<=`",
    "=>": "write `>=`",
    "≤": "write `<=`",
    "≥": "write `>=`",
    "≠": "write `!=`",
    "=": "write `==` to compare",
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`, or `!=` to compare",
    "^": "there are no powers; multiply",
    "%": "leave units out",
    ",": "write decimals with a point",
    "'": "there is no text in expressions; compare with a number",
    '"': "there is no text in expressions; compare with a number",
    "[": "use ( and )",
    "{": "use ( and )",
}


class ExpressionError(SpecError):
    """An expression that does not follow the grammar; `position` counts characters from 1."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"at character {position}: {message}")
        self.position = position


@dataclass(frozen=True)
class Number:
    """A number as written."""

    value: float


@dataclass(frozen=True)
class Column:
    """A column's value."""

    name: str


@dataclass(frozen=True)
class Unary:
    """`-` of a number, or `not` of a truth value."""

    operator: str
    operand: Node


@dataclass(frozen=True)
class Binary:
    """`+ - * /` of two numbers, or `and`, `or` of two truth values."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Compare:
    """A comparison of two numbers."""

    operator: str
    left: Node
    right: Node


Node: TypeAlias = Number | Column | Unary | Binary | Compare


def is_boolean(node: Node) -> bool:
    """Whether a node's value is true, false or unknown, rather than a number."""
    if isinstance(node, Compare):
        return True
    return isinstance(node, Unary | Binary) and node.operator in WORDS


_Method: TypeAlias = Callable[[], "Node"]


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def parse(text: str) -> Node:
    """Read one expression.

    >>> parse("spo2 < 92")
    Compare(operator='<', left=Column(name='spo2'), right=Number(value=92.0))
    """
    if not text.strip():
        raise ExpressionError("the expression is empty; write e.g. `spo2 < 92`", 1)
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"the expression has {len(text)} characters, allowed are {MAX_LENGTH}", MAX_LENGTH + 1
        )
    parser = _Parser(_tokens(text))
    node = parser.disjunction()
    parser.finish()
    return node


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        start = at + len(text[at:]) - len(text[at:].lstrip())
        pair = text[start : start + 2]
        if match is None or pair in _HINTS:
            shown = pair if pair in _HINTS else text[start]
            hint = f"; {_HINTS[shown]}" if shown in _HINTS else ""
            raise ExpressionError(f"`{shown}` is not part of an expression{hint}", start + 1)
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind], start + 1))
        at = match.end()
    found.append(_Token("end", "the end", end + 1))
    return found


class _Parser:
    """Recursive descent; one method a precedence, loosest first."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.nesting = 0
        self.operands = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self, *texts: str) -> _Token | None:
        """The next token if it is one of these, else None."""
        token = self.token
        if token.kind in ("operator", "name") and token.text in texts:
            self.at += 1
            return token
        return None

    def finish(self) -> None:
        token = self.token
        if token.kind == "end":
            return
        if token.text == ")":
            raise ExpressionError("`)` without a `(` before it", token.position)
        raise ExpressionError(
            f"an operator is missing before `{token.text}`{_case_hint(token)}", token.position
        )

    def disjunction(self) -> Node:
        return self._logical("or", self.conjunction)

    def conjunction(self) -> Node:
        return self._logical("and", self.negation)

    def _logical(self, word: str, operand: _Method) -> Node:
        position = self.token.position
        node = operand()
        while token := self.take(word):
            _want_boolean(node, word, position)
            position = self.token.position
            right = operand()
            _want_boolean(right, word, position)
            node, position = Binary(token.text, node, right), token.position
        return node

    def negation(self) -> Node:
        if not self.take("not"):
            return self.comparison()
        position = self.token.position
        node = self._nested(self.negation)
        _want_boolean(node, "not", position)
        return Unary("not", node)

    def comparison(self) -> Node:
        position = self.token.position
        left = self.sum()
        parts: list[Node] = []
        while token := self.take(*COMPARISONS):
            _want_number(left, token.text, position)
            position = self.token.position
            right = self.sum()
            _want_number(right, token.text, position)
            parts.append(Compare(token.text, left, right))
            left = right
        if not parts:
            return left
        node = parts[0]
        for part in parts[1:]:
            node = Binary("and", node, part)
        return node

    def sum(self) -> Node:
        return self._arithmetic(("+", "-"), self.product)

    def product(self) -> Node:
        return self._arithmetic(("*", "/"), self.unary)

    def _arithmetic(self, operators: tuple[str, ...], operand: _Method) -> Node:
        position = self.token.position
        node = operand()
        while token := self.take(*operators):
            _want_number(node, token.text, position)
            position = self.token.position
            right = operand()
            _want_number(right, token.text, position)
            node, position = Binary(token.text, node, right), token.position
        return node

    def unary(self) -> Node:
        if not self.take("-"):
            return self.primary()
        position = self.token.position
        node = self._nested(self.unary)
        _want_number(node, "-", position)
        return Unary("-", node)

    def primary(self) -> Node:
        token = self.token
        if token.kind == "number":
            return Number(self._number(token))
        if token.kind == "name" and token.text not in WORDS:
            self._operand(token)
            if self.token.text == "(" and self.token.kind == "operator":
                hint = _case_hint(token) or "; there are no functions"
                raise ExpressionError(f"`{token.text}(` is not known{hint}", token.position)
            return Column(token.text)
        if self.take("("):
            node = self._nested(self.disjunction)
            if not self.take(")"):
                raise ExpressionError(
                    f"`(` is not closed before `{self.token.text}`"
                    if self.token.kind != "end"
                    else "`(` is never closed",
                    token.position,
                )
            return node
        before = f" after `{self.tokens[self.at - 1].text}`" if self.at else ""
        raise ExpressionError(
            f"a column or number is missing{before}, found "
            + (token.text if token.kind == "end" else f"`{token.text}`"),
            token.position,
        )

    def _number(self, token: _Token) -> float:
        self._operand(token)
        value = float(token.text)
        if not math.isfinite(value):
            raise ExpressionError("the number is too large", token.position)
        return value

    def _operand(self, token: _Token) -> None:
        self.at += 1
        self.operands += 1
        if self.operands > MAX_OPERANDS:
            raise ExpressionError(
                f"more than {MAX_OPERANDS} columns and numbers in one expression", token.position
            )

    def _nested(self, inner: _Method) -> Node:
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise ExpressionError(f"nested deeper than {MAX_NESTING} levels", self.token.position)
        node = inner()
        self.nesting -= 1
        return node


def _case_hint(token: _Token) -> str:
    return f"; write `{token.text.lower()}`" if token.text.lower() in WORDS else ""


def _want_boolean(node: Node, operator: str, position: int) -> None:
    if not is_boolean(node):
        raise ExpressionError(
            f"`{operator}` needs comparisons, found the number `{to_text(node)}`; "
            "compare it, e.g. `column == 1`",
            position,
        )


def _want_number(node: Node, operator: str, position: int) -> None:
    if is_boolean(node):
        raise ExpressionError(
            f"`{operator}` needs numbers, found the truth value `{to_text(node)}`", position
        )


_BINDING = {"or": 1, "and": 2, "+": 5, "-": 5, "*": 6, "/": 6}


def _binding(node: Node) -> int:
    """How tightly a node's own operator holds its operands together; more is tighter."""
    if isinstance(node, Binary):
        return _BINDING[node.operator]
    if isinstance(node, Compare):
        return 4
    if isinstance(node, Unary):
        return 3 if node.operator == "not" else 7
    return 8


def _plain_name(name: str) -> str:
    return name


def _plain_compare(node: Compare, left: str, right: str) -> str:
    return f"{left} {node.operator} {right}"


def to_text(
    node: Node,
    name: Callable[[str], str] = _plain_name,
    compare: Callable[[Compare, str, str], str] = _plain_compare,
) -> str:
    """Write a tree as text; by default such that it parses to the same tree.

    Args:
        node: The tree.
        name: How a column is written.
        compare: How a comparison is written, given its two sides.

    >>> to_text(parse("40<map<55 and not(urine/4>=2)"))
    '40 < map and map < 55 and not urine / 4 >= 2'
    """

    def inside(inner: Node, binding: int) -> str:
        text = to_text(inner, name, compare)
        return text if _binding(inner) >= binding else f"({text})"

    if isinstance(node, Number):
        return format_number(node.value)
    if isinstance(node, Column):
        return name(node.name)
    own = _binding(node)
    if isinstance(node, Unary):
        operand = inside(node.operand, own)
        return f"not {operand}" if node.operator == "not" else f"-{operand}"
    if isinstance(node, Compare):
        return compare(node, inside(node.left, own + 1), inside(node.right, own + 1))
    # Left-associative: an equally tight right operand was in parentheses.
    return f"{inside(node.left, own)} {node.operator} {inside(node.right, own + 1)}"


def format_number(value: float) -> str:
    """A number without a needless `.0`."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
