"""Gates on what the policy is worth: against clinicians, cloning, in subgroups, between seeds.

Registered in `ogsrl.audit.audit`. Advantage is of the primary quantity, more is better.
"""

from __future__ import annotations

from ogsrl.audit.evidence import Evidence
from ogsrl.audit.gate import Found, Gate

GAMMA = "Gamma: by how many times what nobody recorded may have changed the chance of a dose"
#: A subgroup's advantage below this is named on the card's first page.
NAMED = -0.02


def _better(evidence: Evidence) -> Found:
    if not evidence.acts:
        return Found(evidence.nobody)
    if not evidence.measured:
        return Found(evidence.few, open=True)
    told = evidence.under(f"selected.{evidence.decisive}.gain.")
    low, high = sorted((evidence.sign * told["lo"], evidence.sign * told["hi"]))
    estimate = told["estimate"] and evidence.sign * told["estimate"]
    said = f"than the clinicians: {told['word']}"
    if estimate is not None:
        said += f"; advantage {estimate:+.4f} ({low:+.4f} to {high:+.4f})"
    if not told["voters"]:
        said += "; no estimator may be believed"
    return Found(said, low, estimate, low, high, open=told["word"] != "worse")


def _cloning(evidence: Evidence) -> Found:
    if not evidence.acts:
        return Found(evidence.nobody)
    if not evidence.measured:
        return Found(evidence.few, open=True)
    told = evidence.under("selected.than.cloning.")
    if not told:
        return Found("behaviour cloning was not measured beside it")
    return Found(
        f"advantage over behaviour cloning {told['estimate']:+.4f} ({told['lo']:+.4f} to "
        f"{told['hi']:+.4f}), on the same patients",
        compared=told["lo"],
        estimate=told["estimate"],
        low=told["lo"],
        high=told["hi"],
    )


def _subgroups(evidence: Evidence) -> Found:
    if not evidence.cohort.subgroups:
        return Found("the cohort file names no subgroup", idle=True)
    if not evidence.measured:
        return Found(evidence.few)
    told = evidence.under("selected.groups.")
    numbers = sorted({int(key.partition(".")[0]) for key in told})
    shown = [n for n in numbers if told[f"{n}.estimate"] is not None]
    if not shown:
        return Found("every subgroup is of too few patients")

    def name(n: int) -> str:
        label = told[f"{n}.label"]
        return (
            f"{label} {told[f'{n}.group']} ({told[f'{n}.patients']} patients, worth "
            f"{told[f'{n}.effective']:.0f}): {told[f'{n}.estimate']:+.4f}"
        )

    high = {n: told[f"{n}.adjusted_hi"] for n in shown}
    worst = min(shown, key=lambda n: high[n])
    harmed = [name(n) for n in shown if high[n] < 0]
    low = [name(n) for n in shown if told[f"{n}.estimate"] < NAMED and high[n] >= 0]
    few = [f"{told[f'{n}.label']} {told[f'{n}.group']}" for n in numbers if n not in shown]
    said = f"{len(shown)} subgroups, {len(harmed)} surely worse off"
    said += f": {'; '.join(harmed)}" if harmed else ""
    said += f"; looking worse off: {'; '.join(low)}" if low else ""
    said += f"; of too few patients: {', '.join(few)}" if few else ""
    return Found(
        said,
        compared=high[worst],
        estimate=told[f"{worst}.estimate"],
        low=told[f"{worst}.lo"],
        high=told[f"{worst}.hi"],
    )


def _detectable(evidence: Evidence) -> Found:
    if not evidence.acts:
        return Found(evidence.nobody)
    if not evidence.measured:
        return Found(evidence.few, open=True)
    smallest = evidence.told(f"selected.{evidence.decisive}.gain.smallest_effect")
    if smallest is None:
        return Found(
            "too few patients: no estimator may be believed, so no effect is seen", open=True
        )
    said = f"an advantage of {smallest:.4f} would have been seen in 8 of 10 cohorts like this"
    return Found(said, smallest, smallest, open=True)


def _seeds(evidence: Evidence) -> Found:
    chosen = evidence.selection.get("chosen")
    if chosen is None:
        return Found(evidence.nobody)
    seeds = evidence.train[chosen["algorithm"]]["seeds"]
    ended = {seed: one["status"] for seed, one in seeds.items() if one["status"] != "done"}
    if ended:
        each = ", ".join(f"seed {seed}: {status}" for seed, status in ended.items())
        return Found(f"{len(ended)} of {len(seeds)} seeds did not end well ({each})")
    if not evidence.measured:
        return Found(evidence.few)
    own = evidence.told(f"selected.{evidence.decisive}.estimate")
    names = [f"{chosen['algorithm']}_seed_{seed}" for seed in seeds if int(seed) != chosen["seed"]]
    found = {
        name: evidence.evaluation.get(f"{name}.{evidence.decisive}.estimate") for name in names
    }
    others = {name: one for name, one in found.items() if one is not None}
    if own is None or not others:
        return Found("no other seed was measured beside it")
    apart = {name: abs(one - own) for name, one in others.items()}
    most = max(apart.values())
    return Found(f"{len(apart)} other seeds are up to {most:.4f} apart from it", most, most)


def _confounding(evidence: Evidence) -> Found:
    if not evidence.acts:
        return Found(evidence.nobody)
    if not evidence.measured:
        return Found(evidence.few)
    told = evidence.under("selected.sensitivity.")
    word = evidence.told(f"selected.{evidence.decisive}.gain.word")
    strongest = [
        f"{key.split('.')[1]} {value:.2f}"
        for key, value in told.items()
        if key.startswith("recorded.") and key.endswith(".gamma")
    ]
    beside = f"; recorded columns come to: {', '.join(strongest)}" if strongest else ""
    whole, first = _withstood(evidence, "whole_stay"), _withstood(evidence, "first_dose")
    said = (
        f"of the whole stay `{word}` is said{whole}; of the first dose "
        f"`{told['first_dose.word']}`{first}{beside} ({GAMMA})"
    )
    withstood = evidence.told("selected.sensitivity.whole_stay.withstood_gamma")
    return Found(said, withstood if word == "better" else 1.0)


def _withstood(evidence: Evidence, what: str) -> str:
    """Up to which Gamma a word is said; empty where it is `cannot tell`, whatever Gamma is."""
    told = evidence.under(f"selected.sensitivity.{what}.")
    withstood = evidence.told(f"selected.sensitivity.{what}.withstood_gamma")
    if withstood is None:
        return ""
    lost = told["tipping_gamma"]
    if lost is None:
        return f" still at Gamma {withstood:g}, the largest asked"
    if withstood == 1:
        return f" only where nothing is hidden, no longer at Gamma {lost:g}"
    return f" still at Gamma {withstood:g}, no longer at Gamma {lost:g}"


GATES = (
    Gate(
        "better",
        "Better than the clinicians",
        "Who is not surely better than those who treat today should not advise them.",
        ">",
        _better,
    ),
    Gate(
        "cloning",
        "Not worse than imitation",
        "Imitating clinicians is simple and safe: whoever is worse than that has learned harm.",
        ">=",
        _cloning,
    ),
    Gate(
        "subgroups",
        "No group of patients pays for the others",
        "A good average can hide deaths in one group.",
        ">=",
        _subgroups,
    ),
    Gate(
        "detectable",
        "Enough patients to see a difference",
        "`Cannot tell` of few patients is no sign that nothing is there.",
        "<=",
        _detectable,
        otherwise="too few patients",
    ),
    Gate(
        "seeds",
        "Training again gives the same",
        "A policy that one seed finds and others do not was found by luck.",
        "<=",
        _seeds,
    ),
    Gate(
        "confounding",
        "What clinicians saw and nobody wrote down",
        "If clinicians knew more than the record, doses of the sickest look deadly.",
        ">=",
        _confounding,
        worst=1.0,
    ),
)
