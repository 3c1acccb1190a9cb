"""How wrong the dynamics are about doses that were not given, where the truth is known.

Called by the report of a simulated cohort and by the benchmark. Errors are in deviations of the
training rows, over the learned numeric columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from scipy.stats import spearmanr

from ogsrl.dynamics.chart import Scaling
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.interventions import Questions
from ogsrl.dynamics.measures import by_patient
from ogsrl.dynamics.peers import LinearDynamics, NeighbourDynamics, ridge_predict

#: Clinical means of numeric columns, and chance of death (None: not predicted).
Answer = Callable[[Questions], tuple[torch.Tensor, torch.Tensor | None]]
LOGGED = "logged"


def answers(
    dynamics: Dynamics, linear: LinearDynamics, neighbours: Mapping[str, NeighbourDynamics]
) -> dict[str, Answer]:
    """Ours and its peers, asked alike."""
    layout = dynamics.layout
    scaling = Scaling([layout.history.preparation.states[name] for name in layout.numeric])

    def ours(asked: Questions) -> tuple[torch.Tensor, torch.Tensor | None]:
        predicted = dynamics.predict(asked.states, asked.doses)
        place = [predicted.names.index(name) for name in layout.numeric]
        return predicted.mean[:, place], predicted.p_death

    def line(asked: Questions) -> tuple[torch.Tensor, torch.Tensor | None]:
        inputs = layout.inputs(asked.states, asked.doses)
        return scaling.clinical(ridge_predict(linear.slopes, inputs)), None

    def near(peer: NeighbourDynamics) -> Answer:
        def ask(asked: Questions) -> tuple[torch.Tensor, torch.Tensor | None]:
            mean, death = peer.mean(asked.states, asked.doses)
            return scaling.clinical(mean), death

        return ask

    return {"ours": ours, "linear": line, **{name: near(p) for name, p in neighbours.items()}}


def other_doses_report(
    dynamics: Dynamics, asked: Mapping[str, Questions], models: Mapping[str, Answer]
) -> dict[str, Any]:
    """Errors of the mean, of the difference that a dose makes, and of death, per ask and model."""
    names = dynamics.layout.numeric
    columns = dynamics.history.preparation.states
    spread = torch.tensor([columns[name].spread for name in names])
    truth = {
        ask: torch.stack([questions.expected[name] for name in names], dim=1) / spread
        for ask, questions in asked.items()
    }
    said = {
        name: {ask: model(questions) for ask, questions in asked.items()}
        for name, model in models.items()
    }
    report: dict[str, Any] = {"asks": {}, "all": {}}
    total: dict[str, list[torch.Tensor]] = {name: [] for name in models}
    makes: dict[str, list[torch.Tensor]] = {name: [] for name in models}
    for ask, questions in asked.items():
        entry: dict[str, Any] = {"rows": len(questions)}
        report["asks"][ask] = entry
        for name in models:
            mean, death = said[name][ask]
            error = (mean / spread - truth[ask]).square().mean(1)
            cell: dict[str, Any] = {"error": _root(error, questions.stay)}
            if ask != LOGGED:
                ours = mean / spread - said[name][LOGGED][0] / spread
                made = (ours - (truth[ask] - truth[LOGGED])).square().mean(1)
                cell["effect_error"] = _root(made, questions.stay)
                total[name].append(error)
                makes[name].append(made)
            if death is not None:
                cell["death_error"] = _root((death - questions.death).square(), questions.stay)
            entry[name] = cell
    stay = torch.cat([q.stay for ask, q in asked.items() if ask != LOGGED])
    for name in models:
        report["all"][name] = {
            "error": _root(torch.cat(total[name]), stay),
            "effect_error": _root(torch.cat(makes[name]), stay),
        }
    report["disagreement"] = _disagreement(dynamics, asked, said["ours"], truth, spread)
    return report


def _root(squares: torch.Tensor, patient: torch.Tensor) -> dict[str, float]:
    """Root of the mean, with its standard error over patients."""
    a, n = by_patient(squares, patient), by_patient(torch.ones(len(squares)), patient)
    mean = float(a.sum() / n.sum())
    spread = float((a - mean * n).square().sum().sqrt() / n.sum())
    return {"estimate": mean**0.5, "se": spread / (2 * max(mean, 1e-12) ** 0.5)}


def _disagreement(
    dynamics: Dynamics,
    asked: Mapping[str, Questions],
    said: Mapping[str, tuple[torch.Tensor, torch.Tensor | None]],
    truth: Mapping[str, torch.Tensor],
    spread: torch.Tensor,
) -> dict[str, Any]:
    """Whether members disagree where they are wrong, over all asks together."""
    apart = torch.cat([dynamics.disagreement(q.states, q.doses) for q in asked.values()])
    wrong = torch.cat(
        [(said[ask][0] / spread - truth[ask]).square().mean(1).sqrt() for ask in asked]
    )
    together = float(spearmanr(apart.numpy(), wrong.numpy()).statistic)
    order = torch.argsort(apart, stable=True).tensor_split(10)
    return {
        "rank_correlation": together if math.isfinite(together) else None,
        "deciles": [
            {"disagreement": float(apart[rows].mean()), "error": float(wrong[rows].mean())}
            for rows in order
            if len(rows)
        ],
    }
