"""The card as Markdown and as one HTML page that needs nothing from the network.

Called by the stage audit. It shows what the card holds and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import jinja2
from markupsafe import Markup

from ogsrl.audit.card import Card, GateLine, Number

#: Figures of reports/NAME/figures/ that the page holds, with what they show.
PICTURES: Mapping[str, str] = {
    "evaluate_plane": "In the steps where it recommends a dose: what clinicians gave, and what it "
    "recommends",
    "evaluate_doses": "Doses that the policy recommends, and what clinicians gave in those steps",
    "evaluate_panel": "What each policy comes to on test patients, by all estimators",
    "evaluate_truth": "The same beside the truth, where it is known",
    "guardian_region": "What is supported, and what is refused",
    "evaluate_calibration": "Predicted and observed deaths",
    "audit_gates": "Every gate beside its limit: | is what is compared with it",
    "audit_subgroups": "Every subgroup beside the clinicians",
}
#: A verdict's sign, so that colours are not needed.
SIGNS = {"passed": "\u2713", "undecided": "?", "failed": "\u2717", "not asked": "\u2013"}
#: What a gate asks of what was measured.
RELATIONS = {"<=": "at most", ">=": "at least", ">": "more than"}


def markdown(card: Card) -> str:
    """For an editor or a registry's description."""
    return environment(escape=False).get_template("card.md.j2").render(card=card) + "\n"


def html(card: Card, pictures: Mapping[str, str]) -> str:
    """One page.

    Args:
        card: What to show.
        pictures: SVG by name, of PICTURES.
    """
    drawn = [
        (PICTURES[name], Markup(bare(pictures[name]))) for name in PICTURES if name in pictures
    ]
    template = environment(escape=True).get_template("card.html.j2")
    return template.render(card=card, pictures=drawn) + "\n"


def environment(*, escape: bool) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("ogsrl.audit"),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {"number": number, "share": _share, "cell": _cell}
    made.filters |= {"limit": limit, "interval": _interval, "truth": _truth}
    made.filters["about_results"] = _about_results
    made.globals["signs"] = SIGNS
    return made


def bare(svg: str) -> str:
    """An SVG without what comes before its own element."""
    return svg[svg.index("<svg") :]


def number(number: Number | None) -> str:
    """With its interval.

    >>> number(Number(estimate=0.16, lo=0.1, hi=0.22))
    '0.160 (0.100 to 0.220)'
    """
    if number is None or number.estimate is None:
        return "not told"
    if number.lo is None or number.hi is None:
        return f"{number.estimate:.3f}"
    return f"{number.estimate:.3f} ({number.lo:.3f} to {number.hi:.3f})"


def limit(gate: GateLine) -> str:
    """What is asked; whether that is looser than by default."""
    asked = f"{RELATIONS[gate.relation]} {gate.limit:g}"
    return f"{asked}, loosened from {gate.default_limit:g}" if gate.loosened else asked


def _interval(gate: GateLine) -> str:
    """The estimate that the measured number is a bound of, with its interval."""
    if gate.estimate is None:
        return ""
    if gate.lo is None or gate.hi is None:
        return f"{gate.estimate:.3g}"
    return f"{gate.estimate:.3g} ({gate.lo:.3g} to {gate.hi:.3g})"


def _truth(value: float | None, held: bool | None) -> str:
    """What is true, and whether the interval missed it.

    >>> _truth(0.146, True), _truth(-0.057, False)
    ('0.146', '-0.057, beyond the interval')
    """
    if value is None:
        return "not known"
    return f"{value:.3f}" + (", beyond the interval" if held is False else "")


def _about_results(card: Card) -> str:
    """How sure intervals are, and why a limit's bound is another."""
    level = next((one.own.level for one in card.results if one.own.level is not None), None)
    sure = "" if level is None else f"Intervals are two-sided, at {level:.0%}, each by itself. "
    return (
        f"{sure}Where the truth is known it stands beside them. What a limit must not exceed is "
        "judged by a one-sided bound of its own, with what fits of costs were found to miss: it "
        "may be surer than the interval of the gain here."
    )


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.0%}"


def _cell(text: object) -> str:
    """In a table of Markdown."""
    return "" if text is None else str(text).replace("|", "\\|").replace("\n", " ")
