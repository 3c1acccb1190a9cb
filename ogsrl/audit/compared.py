"""Two cards side by side: what a reviewer looks at when one version is to follow another.

Called by the command line. It reads cards and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ogsrl.audit.card import Card, Number
from ogsrl.audit.rendered import bare, environment, number


@dataclass(frozen=True)
class Line:
    """One thing of both."""

    what: str
    left: str
    right: str


def compared(left: Card, right: Card) -> list[Line]:
    """Verdict, headline, every gate, every result of who was selected, subgroups."""
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
    yield "verdict", card.first_page.verdict
    yield "headline", card.first_page.headline
    for gate in card.gates:
        yield f"gate {gate.title}", f"{gate.verdict}: {gate.said}"
    for one in card.results:
        yield f"{one.policy}: {one.quantity}", number(one.own)
        if one.gain is not None:
            yield f"{one.policy}: {one.quantity}, than clinicians", _gain(one.gain, one.word)
    for group in card.subgroups:
        yield f"advantage, {group.label}: {group.group}", number(group.advantage)
    yield "region", f"{card.guardian.kind}: {card.guardian.promise}"
    yield "steps deferred", number(card.guardian.steps_deferred)
    yield "data", card.data.table_sha256


def _gain(gain: Number, word: str | None) -> str:
    return number(gain) if word is None else f"{number(gain)}: {word}"
