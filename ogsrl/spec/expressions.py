"""Expressions over columns, such as `urine / weight / 4 < 0.5`, compiled once and run anywhere.

Used by constraints, hazards and rewards, on numpy arrays and torch tensors alike. Truth has three
values: 1.0, 0.0 and NaN for unknown. Text is never evaluated, and torch is imported only when used.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ogsrl.errors import SpecError
from ogsrl.spec.grammar import (
    Binary,
    Column,
    Compare,
    ExpressionError,
    Node,
    Number,
    Unary,
    is_boolean,
    parse,
    to_text,
)

if TYPE_CHECKING:
    import torch

__all__ = ["Comparison", "Expression", "ExpressionError", "parse_expression"]

_Program = tuple[tuple[str, str | float], ...]
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_COMPARISON: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class Comparison(NamedTuple):
    """One comparison inside an expression."""

    left: Expression
    operator: str
    right: Expression


@dataclass(frozen=True)
class Expression:
    """A parsed expression; equal to another if both have the same tree.

    Attributes:
        root: The tree.
        text: What was written.
        columns: Names of the columns that it needs.
        is_boolean: Whether its value is true, false or unknown, rather than a number.
    """

    root: Node
    text: str = field(compare=False)

    @cached_property
    def columns(self) -> frozenset[str]:
        """Names of the columns that the expression needs."""
        return frozenset(str(name) for kind, name in self._program if kind == "column")

    @cached_property
    def is_boolean(self) -> bool:
        """Whether the value is true, false or unknown, rather than a number."""
        return is_boolean(self.root)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons of the expression from left to right; `2 < x < 5` has two."""
        return tuple(
            Comparison(_of(node.left), node.operator, _of(node.right))
            for node in _walk(self.root)
            if isinstance(node, Compare)
        )

    @cached_property
    def _program(self) -> _Program:
        return tuple(_instructions(self.root))

    def numpy(self, values: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.float64]:
        """The value for every row; truth as 1, 0 and NaN for unknown.

        >>> hypotension = parse_expression("map < 55 and vasopressor == 0")
        >>> hypotension.numpy({"map": [50, 80, 50], "vasopressor": [0, float("nan"), float("nan")]})
        array([ 1.,  0., nan])
        """
        self._check(values)
        with np.errstate(all="ignore"):
            stack: list[Any] = []
            for kind, operand in self._program:
                if kind == "number":
                    stack.append(np.float64(operand))
                elif kind == "column":
                    stack.append(np.asarray(values[str(operand)], np.float64))
                else:
                    _apply(kind, stack, _Library(np.where, np.isnan, np.float64(1)))
        return np.array(stack[0], np.float64, copy=len(self._program) == 1 or None)

    def torch(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The same as `numpy`, on tensors, in their type and on their device."""
        import torch  # noqa: PLC0415 - whoever only reads cohort files must not wait for it

        self._check(values)
        tensors = {name: values[name] for name in sorted(self.columns)}
        floating = [tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()]
        dtype = reduce(torch.promote_types, floating) if floating else torch.float64
        device = next((tensor.device for tensor in tensors.values()), None)
        true = torch.tensor(1.0, dtype=dtype, device=device)
        stack: list[Any] = []
        for kind, operand in self._program:
            if kind == "number":
                stack.append(true * operand)
            elif kind == "column":
                stack.append(tensors[str(operand)].to(dtype))
            else:
                _apply(kind, stack, _Library(torch.where, torch.isnan, true))
        result: torch.Tensor = stack[0]
        return result.clone() if len(self._program) == 1 else result

    def _check(self, values: Mapping[str, Any]) -> None:
        absent = sorted(self.columns - values.keys())
        if absent:
            raise SpecError(f"`{self.text}` needs columns that are not there: {', '.join(absent)}")

    def __str__(self) -> str:
        return to_text(self.root)


@lru_cache(maxsize=1024)
def parse_expression(text: str) -> Expression:
    """Read one expression, or raise an ExpressionError that says where and why not.

    >>> unsafe = parse_expression("urine / weight / 4 < 0.5")
    >>> sorted(unsafe.columns), unsafe.is_boolean, str(unsafe)
    (['urine', 'weight'], True, 'urine / weight / 4 < 0.5')
    """
    return Expression(parse(text), text.strip())


def _of(node: Node) -> Expression:
    return Expression(node, to_text(node))


def _walk(node: Node) -> Iterator[Node]:
    """Every node after its operands, left before right."""
    if isinstance(node, Unary):
        yield from _walk(node.operand)
    elif isinstance(node, Binary | Compare):
        yield from _walk(node.left)
        yield from _walk(node.right)
    yield node


def _instructions(root: Node) -> Iterator[tuple[str, str | float]]:
    for node in _walk(root):
        if isinstance(node, Number):
            yield "number", node.value
        elif isinstance(node, Column):
            yield "column", node.name
        elif isinstance(node, Unary):
            yield ("negative" if node.operator == "-" else "not"), ""
        else:
            yield node.operator, ""


class _Library(NamedTuple):
    """What an array library calls these things; `true` is 1 in the type of the operands."""

    where: Any
    isnan: Any
    true: Any


def _apply(kind: str, stack: list[Any], library: _Library) -> None:
    """Replace the operands on top of the stack by their result; arrays and tensors alike."""
    where, isnan, true = library
    right = stack.pop()
    if kind in ("negative", "not"):
        stack.append(-right if kind == "negative" else true - right)
        return
    left = stack.pop()
    unknown = true * float("nan")
    if kind in _ARITHMETIC:
        divisor = where(right == 0, unknown, right) if kind == "/" else right
        result = _ARITHMETIC[kind](left, divisor)
    elif kind == "and":  # a known false decides
        result = where(left == 0, left, where(right == 0, right, left * right))
    elif kind == "or":  # a known true decides
        result = where(left == 1, left, where(right == 1, right, left + right))
    else:
        truth = where(_COMPARISON[kind](left, right), true, true - true)
        result = where(isnan(left) | isnan(right), unknown, truth)
    stack.append(result)
