"""The card's first page: what a clinician reads in five minutes.

Called by `filled`. Every number comes from a report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ogsrl.audit.audit import Audit
from ogsrl.audit.card import NOT_STATED, FirstPage, GroupLine
from ogsrl.audit.effect_gates import NAMED
from ogsrl.audit.evidence import Evidence
from ogsrl.evaluation.quantities import MORTALITY
from ogsrl.spec.words import label

HEADLINES = {
    "passed": "Passed every gate that asked anything",
    "undecided": "Undecided: too little is known to say that it is better than clinicians",
    "failed": "Failed: it must not be used",
}


def first_page(
    evidence: Evidence, audit: Audit, population: str, groups: Iterable[GroupLine]
) -> FirstPage:
    """The page of whoever was put forward, or of nobody."""
    titles = {one.gate.name: f"{one.gate.title}: {one.said}" for one in audit.gates}
    doses = " and ".join(label(evidence.cohort, name) for name in evidence.cohort.actions)
    hours = evidence.cohort.time_step_hours
    recommends = f"Every {hours:g} hours a dose of {doses}, or that the clinician decides."
    recommends += "".join(f" {one}" for one in _mean_doses(evidence))
    if not evidence.acts:
        recommends = f"Nothing: {evidence.nobody}. Every decision is the clinician's."
    refuses = (
        "It leaves the decision to the clinician where such patients or such doses are not "
        "supported by its data, and where a hazard rule speaks: "
        f"{audit.said('steps_deferred')}; {audit.said('stays_deferred')}."
    )
    return FirstPage(
        verdict=audit.verdict,
        headline=f"{HEADLINES[audit.verdict]} ({audit.counted})",
        recommends=recommends,
        for_whom=population,
        not_for=evidence.cohort.card.out_of_scope or NOT_STATED,
        how_sure=_how_sure(evidence, audit),
        refuses=refuses if evidence.acts else "Always: all steps are left to the clinicians.",
        failed=tuple(titles[name] for name in audit.of("failed")),
        undecided=tuple(titles[name] for name in audit.of("undecided")),
        not_asked=tuple(titles[name] for name in audit.of("not asked")),
        looks_worse_for=tuple(
            f"{one.label}: {one.group}"
            for one in groups
            if one.advantage.estimate is not None and one.advantage.estimate < NAMED
        ),
        loosened=tuple(
            f"{one.gate.title}: {one.limit:g} instead of {one.default:g}"
            for one in audit.gates
            if one.loosened
        )
        + tuple(evidence.under("surer_than_default.").values()),
    )


def _mean_doses(evidence: Evidence) -> Iterator[str]:
    """What it gives beside what clinicians gave, dose by dose."""
    if not (evidence.acts and evidence.measured):
        return
    for name, dose in evidence.cohort.actions.items():
        ours, theirs = (
            evidence.told(f"selected.measures.doses.{name}.mean.{who}.estimate")
            for who in ("policy", "clinicians")
        )
        if ours is not None and theirs is not None and dose.kind == "continuous":
            yield (
                f"{label(evidence.cohort, name)}: on average {_two_digits(ours)} "
                f"{dose.unit} where clinicians gave {_two_digits(theirs)}{_any(evidence, name)}."
            )


def _any(evidence: Evidence, dose: str) -> str:
    """In how many steps any of it is given."""
    none = evidence.under(f"selected.measures.doses.{dose}.zero.")
    ours, theirs = (none.get(f"{who}.estimate") for who in ("policy", "clinicians"))
    if ours is None or theirs is None:
        return ""
    return f", any in {1 - ours:.0%} of steps where they gave any in {1 - theirs:.0%}"


def _two_digits(value: float) -> str:
    """Two digits that say something.

    >>> _two_digits(298.7), _two_digits(0.0412)
    ('300', '0.041')
    """
    return f"{float(f'{value:.2g}'):g}"


def _how_sure(evidence: Evidence, audit: Audit) -> str:
    """What the panel says of the primary quantity, as a person would."""
    if not evidence.acts:
        return "There is nobody to be sure of."
    said = f"{audit.said('better')}. {audit.said('detectable')}."
    told = evidence.under(f"selected.{MORTALITY}.gain.")
    if not told or told["estimate"] is None:
        return said
    low, high = sorted((-100 * told["lo"], -100 * told["hi"]))
    patients = evidence.dataset["parts"]["test"]["patients"]
    smallest = told["smallest_effect"]
    return (
        f"Of 100 patients {abs(100 * told['estimate']):.1f} "
        f"{'fewer' if told['estimate'] <= 0 else 'more'} would die than under their clinicians, "
        f"by our estimate from {patients:,} test patients (between {_fewer(low)} and "
        f"{_fewer(high)}; it is said to be: {told['word']})."
        + (
            f" A difference of {100 * smallest:.1f} in 100 would have been seen in 8 of 10 "
            "cohorts like this."
            if smallest is not None
            else ""
        )
        + "".join(f" {one}" for one in _unsure(evidence, told["word"]))
    )


def _unsure(evidence: Evidence, word: str) -> Iterator[str]:
    """What that rests on."""
    own = [
        one for one in evidence.estimates
        if (one["policy"], one["quantity"]) == ("selected", MORTALITY)
        and one["estimator"] != "panel"
    ]  # fmt: skip
    voted = [one["estimator"] for one in own if one["diagnosis"].startswith("votes")]
    yield f"Of {len(own)} ways to estimate it {', '.join(voted) or 'none'} had a vote."
    same = evidence.evaluation.get("selected.measures.concordance.estimate")
    if same is not None:
        yield f"It gives the dose that the clinician gave in {same:.0%} of steps."
    lost = evidence.evaluation.get("selected.sensitivity.whole_stay.tipping_gamma")
    if word == "better" and lost is not None:
        yield (
            "All this holds only if clinicians acted on nothing that is not in the data: what "
            f"changes the chance of a dose by {lost:g} times, and nobody recorded, is enough for "
            "`better` to be lost."
        )


def _fewer(deaths: float) -> str:
    """Deaths avoided, in words.

    >>> _fewer(2.19), _fewer(-1.0)
    ('2.2 fewer', '1.0 more')
    """
    return f"{abs(deaths):.1f} {'fewer' if deaths >= 0 else 'more'}"
