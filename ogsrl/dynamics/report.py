"""reports/NAME/dynamics.json: how far the dynamics can be trusted, from validation patients.

Called by the stage dynamics. Plain numbers with standard errors over patients; no row of anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from ogsrl.dynamics.calibration import normal_scores
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.errors_ahead import (
    HORIZONS,
    PARTICLES,
    PEERS,
    SIGNAL,
    ahead_report,
    errors_ahead,
    worst_gain,
)
from ogsrl.dynamics.interventions import is_simulated, questions
from ogsrl.dynamics.measures import (
    FEWEST,
    auroc,
    chance_report,
    of_many,
    pooled,
    share,
    tellable,
)
from ogsrl.dynamics.other_doses import answers, other_doses_report
from ogsrl.dynamics.outcomes import ENDS, Outcomes, outcomes
from ogsrl.dynamics.peers import LinearDynamics, NeighbourDynamics
from ogsrl.preparation.tensors import StayTensors

#: Nearest training rows averaged by the peers; the paper takes one.
NEIGHBOURS = {"nearest neighbour": 1, "10 neighbours": 10}
LEVELS = (0.5, 0.9)
STARTS = 3_000
QUESTIONS = 600


def too_few_report(needed: int) -> dict[str, Any]:
    """What stands where there were too few patients to fit."""
    return {"status": "too_few_patients", "needed": needed}


def describe(
    dynamics: Dynamics,
    train: StayTensors,
    validation: StayTensors,
    generator: torch.Generator,
    *,
    horizons: Sequence[int] = HORIZONS,
    starts: int = STARTS,
    asked: int = QUESTIONS,
) -> dict[str, Any]:
    """Everything the report says.

    Args:
        dynamics: The fitted ensemble.
        train: The patients that it and its peers were fitted on.
        validation: Other patients, on whom all is measured.
        generator: Starts, draws and questions come from it.
        horizons: Steps ahead; those beyond the cohort's longest stay are left out.
        starts: Decisions rolled out at most.
        asked: Questions about other doses, per kind, on simulated cohorts.
    """
    layout, cohort = dynamics.layout, dynamics.history.preparation.cohort
    truth = outcomes(validation, layout)
    patients = len(torch.unique(truth.patient))
    if patients < FEWEST:
        return {"status": "too_few_validation_patients", "needed": FEWEST}
    reached = min(_longest(train), _longest(validation), cohort.max_steps - 1)
    steps = [k for k in horizons if k <= reached]
    linear = LinearDynamics.of(train, layout, steps)
    decisions = truth.row[torch.randperm(len(truth), generator=generator)[:starts]].sort().values
    columns = ahead_report(
        dynamics, errors_ahead(dynamics, linear, validation, decisions, generator, steps, PARTICLES)
    )
    measured = Measured(dynamics, truth)
    known = outcomes(train, layout)
    report: dict[str, Any] = {
        "status": "fitted",
        "members": dynamics.members,
        "patients": {"train": known.patients, "validation": patients},
        "horizons": steps,
        "peers": list(PEERS),
        "signal": f"the better linear model explains at least {100 * SIGNAL:.0f} % of the variance",
        "columns": {
            name: {
                "label": cohort.observations[name].label or name,
                "unit": cohort.observations[name].unit,
                "charted_step": _step(dynamics, name),
                "ahead": ahead,
                "intervals": measured.intervals(name),
            }
            for name, ahead in columns.items()
        },
        "worst_gain": {peer: worst_gain(columns, peer) for peer in PEERS},
        "ends": measured.ends(),
        "ends_apart": measured.ends_apart(),
        "constraints": measured.constraints(),
        "codes": measured.codes(),
        "disagreement": measured.disagreement(),
        "other_doses": None,
    }
    if is_simulated(cohort):
        report["other_doses"] = _other_doses(dynamics, linear, known, generator, asked)
    return report


def _step(dynamics: Dynamics, name: str) -> float:
    chart, i = dynamics.fitted.chart, dynamics.layout.numeric.index(name)
    return float(f"{float(chart.up[i]) / float(chart.down[i]):.6g}")


class Measured:
    """What the ensemble said of the validation rows, computed once."""

    def __init__(self, dynamics: Dynamics, truth: Outcomes) -> None:
        self.dynamics = dynamics
        self.truth = truth
        self.heads = dynamics.heads(truth.states, truth.doses)
        self.predicted = dynamics.predict(truth.states, truth.doses)
        self.scores, self.known = normal_scores(dynamics, self.heads, truth)

    def intervals(self, name: str) -> dict[str, Any]:
        """Share of charted values within central intervals, and where in them values fall.

        Places are tenths of the predicted distribution, put together until ten patients are in
        each: the share of values up to `below`, from the place before.
        """
        i = self.dynamics.layout.numeric.index(name)
        own = self.known[:, i]
        patient = self.truth.patient[own]
        if not of_many(patient):
            return {"within": {}, "score_sd": None, "places": []}
        place = torch.special.ndtr(self.scores[own, i])
        inside = {str(level): (place - 0.5).abs() <= level / 2 for level in LEVELS}
        told = all(tellable(hits, patient) for hits in inside.values())
        return {
            "within": {level: share(hits, patient) for level, hits in inside.items() if told},
            "score_sd": float(self.scores[own, i].double().std()),
            "places": _places(place, patient),
        }

    def ends(self) -> dict[str, Any]:
        """How good the chance of each end is; None where none was seen in training."""
        found: dict[str, Any] = dict.fromkeys(ENDS)
        for i, name in enumerate(ENDS):
            own = self.truth.at_risk[:, i]
            if bool(self.dynamics.fitted.seen_ends[i]) and bool(own.any()):
                chance = self.heads.ends.mean(0)[own, i]
                found[name] = chance_report(
                    chance, self.truth.ends[own, i], self.truth.patient[own]
                )
        return found

    def ends_apart(self) -> dict[str, float] | None:
        """How well death is told from discharge where a stay ends with one of them: an AUROC.

        That it ends hangs on how long it lasted; which it was hangs on the patient alone. None
        where either is of fewer than ten patients.
        """
        place = [ENDS.index(name) for name in ("death", "discharge")]
        own = self.truth.ends[:, place].any(1)
        died, patient = self.truth.ends[own, place[0]], self.truth.patient[own]
        if not bool(own.any()) or not tellable(died, patient):
            return None
        chance = self.heads.ends.mean(0)[own][:, place]
        return auroc(chance[:, 0] / chance.sum(1).clip(min=1e-12), died)

    def constraints(self) -> dict[str, Any]:
        """How good the chance of being unsafe is, on rows that have a next row."""
        own = self.truth.follows
        rules = self.dynamics.history.preparation.cohort.constraints
        return {
            name: {
                "label": rules[name].label or name,
                **chance_report(chance[own], self.truth.unsafe[own, i], self.truth.patient[own]),
            }
            for i, (name, chance) in enumerate(self.predicted.unsafe.items())
        }

    def codes(self) -> dict[str, Any]:
        """How good the chance of each binary column is; of codes, the share of the likeliest."""
        layout = self.dynamics.layout
        found: dict[str, Any] = {}
        for i, name in enumerate((*layout.binary, *layout.categorical)):
            own = self.truth.codes_charted[:, i]
            chance = self.heads.codes[name].mean(0)[own]
            code, patient = self.truth.codes[own, i], self.truth.patient[own]
            likeliest = chance.argmax(1) == code
            if not of_many(patient):
                found[name] = None
            elif name in layout.binary:
                found[name] = chance_report(chance[:, 1], code > 0, patient)
            elif tellable(likeliest, patient):
                found[name] = {"likeliest": share(likeliest, patient)}
            else:
                found[name] = None
        return found

    def disagreement(self) -> dict[str, Any]:
        """Errors by tenth of disagreement, in deviations that the linear part leaves.

        Tenths are put together until ten patients are in each.
        """
        wrong = (self.truth.numeric - self.heads.mean.mean(0)) / self.dynamics.fitted.left
        known = self.known.double()
        rows = known.sum(1) > 0
        error = (wrong.square() * known).sum(1)[rows] / known.sum(1)[rows]
        apart, patient = self.predicted.disagreement[rows], self.truth.patient[rows]
        if not of_many(patient) or float(apart.std()) == 0:
            return {"rank_correlation": None, "deciles": []}
        together = float(spearmanr(apart.numpy(), error.numpy()).statistic)
        tenths = torch.argsort(apart, stable=True).tensor_split(10)
        deciles = [
            {"disagreement": float(apart[own].mean()), "error": float(error[own].mean().sqrt())}
            for own in pooled(tenths, lambda own: of_many(patient[own]))
        ]
        return {"rank_correlation": together, "deciles": deciles}


def _places(place: torch.Tensor, patient: torch.Tensor) -> list[dict[str, float]]:
    """Share of values by tenth of the distribution, which is where they would fall if it held."""
    tenth = (place * 10).long().clip(0, 9)
    cells = pooled(
        ((tenth == i).nonzero().squeeze(1) for i in range(10)), lambda rows: of_many(patient[rows])
    )
    ends = [(int(tenth[rows].max()) + 1) / 10 for rows in cells]
    return [
        {"below": end, "share": len(rows) / len(place)}
        for rows, end in zip(cells, [*ends[:-1], 1.0], strict=True)
    ]


def _other_doses(
    dynamics: Dynamics,
    linear: LinearDynamics,
    train: Outcomes,
    generator: torch.Generator,
    asked: int,
) -> dict[str, Any]:
    """Fresh simulated patients, asked about doses that they were not given."""
    seed, order = torch.randint(2**31, (2,), generator=generator).tolist()
    found = questions(dynamics.history, max(asked // 4, 20), np.random.default_rng(seed))
    rows = np.random.default_rng(order).permutation(len(next(iter(found.values()))))[:asked]
    chosen = {name: each.take(torch.from_numpy(np.sort(rows))) for name, each in found.items()}
    peers = {n: NeighbourDynamics.of(dynamics.layout, train, k) for n, k in NEIGHBOURS.items()}
    return other_doses_report(dynamics, chosen, answers(dynamics, linear, peers))


def _longest(stays: StayTensors) -> int:
    """The most steps ahead for which enough patients have a stay that long."""
    lasted = torch.zeros(int(stays.patient.max()) + 1, dtype=torch.long)
    lasted = lasted.scatter_reduce(0, stays.patient, stays.step.long(), "amax")
    return int(lasted.sort(descending=True).values[:FEWEST][-1]) if len(lasted) >= FEWEST else 0
