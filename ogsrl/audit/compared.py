"""Two cards side by side: what a reviewer looks at when one version is to follow another.

Called by the command line. It reads cards and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ogsrl.audit.card import Card, Number
from ogsrl.audit.rendered import bare, environment, limit, number


@dataclass(frozen=True)
class Line:
    """One thing of both."""

    what: str
    left: str
    right: str


def compared(left: Card, right: Card) -> list[Line]:
    """The first page, every gate and its limit, results, subgroups; then all else on the cards."""
    both = [dict(_lines(card)) for card in (left, right)]
    names = list(dict.fromkeys([*both[0], *both[1]]))
    return [Line(name, *(one.get(name, "not there") for one in both)) for name in names]


def page(name: str, versions: Sequence[int], lines: Sequence[Line], planes: Sequence[str]) -> str:
    """One page that needs nothing from the network.

    Args:
        name: Of the model.
        versions: Of both.
        lines: As `compared` makes them.
        planes: Both dose planes as SVG; empty where there is none.
    """
    template = environment(escape=True).get_template("compared.html.j2")
    drawn = [Markup(bare(plane)) if plane else "" for plane in planes]
    return template.render(name=name, versions=versions, lines=lines, planes=drawn) + "\n"


def _lines(card: Card) -> Iterator[tuple[str, str]]:
    yield from _told("", card.first_page.model_dump())
    for gate in card.gates:
        yield f"gate {gate.title}", f"{gate.verdict}: {gate.said}"
        yield f"gate {gate.title}, limit", limit(gate)
    for one in card.results:
        yield f"{one.policy}: {one.quantity}", number(one.own)
        if one.gain is not None:
            yield f"{one.policy}: {one.quantity}, than clinicians", _gain(one.gain, one.word)
    for group in card.subgroups:
        yield f"advantage, {group.label}: {group.group}", number(group.advantage)
    shown = {"first_page", "gates", "results", "subgroups", "estimators"}
    yield from _told("", card.model_dump(exclude=shown))


def _told(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every entry by its place; of several that have names, by theirs."""
    if isinstance(value, Mapping) and "estimate" in value:
        yield name.replace("_", " "), number(Number.model_validate(value))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _told(f"{name}: {key}" if name else key, one)
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for one in value:
            yield from _told(f"{name}: {one['name']}", one)
    else:
        several = value if isinstance(value, list | tuple) else [value]
        told = ("none" if one is None else str(one) for one in several)
        yield name.replace("_", " "), "; ".join(told)


def _gain(gain: Number, word: str | None) -> str:
    return number(gain) if word is None else f"{number(gain)}: {word}"
