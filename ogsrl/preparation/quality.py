"""What a cohort's training patients can teach: the contents of dataset.json and its figures.

Called by the stage prepare after fit. Training patients only, aggregates only; what fewer than ten
patients share is suppressed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.constraints import (
    SOURCES,
    attach_costs,
    attach_rewards,
    constraint_rules,
    cost_sources,
    hazard_rules,
    hazards,
    reward_counts,
)
from ogsrl.preparation.config import PrepareParams
from ogsrl.preparation.coverage import (
    MIN_PATIENTS,
    Cells,
    Doses,
    cells,
    state_action_coverage,
    state_clusters,
)
from ogsrl.preparation.fitting import Preparation
from ogsrl.preparation.leakage.findings import Finding
from ogsrl.preparation.rows import Floats, TrainingRows
from ogsrl.spec import ENDS, Cohort, parse_expression
from ogsrl.trajectories import Stays

RESAMPLES = 400
LEVEL = 0.95
RETURN_BINS = 20


def describe(
    rows: TrainingRows,
    preparation: Preparation,
    params: PrepareParams,
    generator: np.random.Generator,
    *,
    attrition: Sequence[Mapping[str, Any]] = (),
    parts: Mapping[str, Mapping[str, int]] | None = None,
    leakage: Sequence[Finding] = (),
) -> dict[str, Any]:
    """The contents of dataset.json.

    Args:
        rows: The training rows.
        preparation: What was fitted on them.
        params: The stage's parameters.
        generator: Randomness of bootstrap, clusters and shuffles.
        attrition: Lines `{step, patients, stays, rows}` of earlier stages, in order.
        parts: Patients, stays and rows of each part.
        leakage: What the leakage checks found.
    """
    cohort = rows.cohort
    known: dict[str, Any] = {
        "cohort": cohort.name,
        "version": cohort.version,
        "params": params.model_dump(),
        "smallest_cell": MIN_PATIENTS,
        "columns": [asdict(column) for column in preparation.columns],
        "attrition": [dict(line) for line in attrition],
        "parts": {part: dict(counts) for part, counts in (parts or {}).items()},
        "leakage": [finding.as_dict() for finding in leakage],
    }
    if rows.patients < MIN_PATIENTS:  # whatever is said of so few is said of one of them
        return known | {"status": "too_few_patients", "needed": MIN_PATIENTS}
    table = _paid(rows)
    doses = Doses(rows, preparation.doses)
    return known | {
        "status": "complete",
        "training": {
            "patients": rows.patients,
            "stays": len(rows.stays.start),
            "rows": rows.stays.rows,
            **_ends(table, rows),
        },
        "doses": doses.summary(),
        "dose_planes": doses.planes(),
        "persistence": doses.persistence(),
        "missingness": _missingness(rows, preparation),
        "constraints": _constraints(table, rows, generator),
        "hazards": _hazards(rows),
        "returns": _returns(table, rows, generator),
        "state_action_coverage": _coverage(rows, preparation, generator),
        "rewards": {k: _count(n) for k, n in asdict(reward_counts(table, cohort)).items()},
    }


def _paid(rows: TrainingRows) -> pd.DataFrame:
    """The few columns that rewards and costs need, with rewards and costs."""
    cohort = rows.cohort
    needed = {name for rule in constraint_rules(cohort).values() for name in rule.columns}
    for text in (cohort.reward.step, cohort.reward.shaping):
        needed |= parse_expression(text).columns if text else set()
    frame = pd.DataFrame(
        {
            "stay_id": rows.stays.stay,  # the number stands for the id
            "step": rows.stays.step,
            "end": rows.series("end"),
            "died": rows.series("died"),
            **{name: rows.numpy(name) for name in sorted(needed)},
        }
    )
    return attach_costs(attach_rewards(frame, cohort), cohort)


def _ends(table: pd.DataFrame, rows: TrainingRows) -> dict[str, Any]:
    """Stays per end, and mortality at the cohort's horizon among stays with a known outcome."""
    last = table[rows.stays.last]
    end = last["end"].map(list(ENDS).index).to_numpy(np.int64)
    counted = cells(end, rows.patient, len(ENDS), total_known=True)
    ends = {name: _part_of(counted, i, len(end))["steps"] for i, name in enumerate(ENDS)}
    if rows.cohort.outcome is None:
        return {"ends": ends}
    died = last["died"].astype("boolean")
    dead = (died.fillna(False) | (last["end"] == "death")).to_numpy(bool)
    known = (died.notna() | (last["end"] == "death")).to_numpy(bool)
    outcome = cells(dead[known].astype(np.int64), rows.patient[known], 2, total_known=True)
    survivors, deaths = (
        None if i in outcome.suppressed else int(outcome.rows[i]) for i in range(2)
    )
    told = deaths is not None and survivors is not None and deaths + survivors > 0
    return {
        "ends": ends,
        "deaths": deaths,
        "survivors": survivors,
        "mortality": float(dead[known].mean()) if told else None,
        "horizon_of_deaths": rows.cohort.outcome.horizon,
    }


def _missingness(rows: TrainingRows, preparation: Preparation) -> dict[str, Any]:
    hours = rows.cohort.time_step_hours
    stays = len(rows.stays.start)
    result = {}
    for name, column in rows.cohort.states.items():
        if name not in rows.missingness:
            rows.numpy(name)
        seen = rows.missingness[name]
        since = [None if np.isnan(steps) else steps * hours for steps in seen.steps_since]
        result[name] = {
            "label": column.label or name,
            "share": seen.share,
            "stays_never_charted": None if _count(seen.never) is None else seen.never / stays,
            "hours_since_charted": dict(zip(("25", "50", "90"), since, strict=True)),
            "filled_by": column.missing,
            "constant": preparation.states[name].constant,
        }
    return result


def _constraints(
    table: pd.DataFrame, rows: TrainingRows, generator: np.random.Generator
) -> dict[str, Any]:
    """Logged shares per stay (the V_j of clinicians at first decisions), and what they rest on.

    A censored stay's later steps and death are not seen; counted as free of cost they would make
    the clinicians look safer than they are, so shares are over stays that were seen to their end.
    `share` is the mean over stays of a stay's cost; `before_death` and `death` are its two terms.
    Intervals: percentile bootstrap over patients.
    """
    cohort = rows.cohort
    sources = cost_sources(table, cohort)
    patient = np.repeat(rows.patient, rows.stays.length)
    death = (table["end"] == "death").fillna(False).to_numpy(bool)
    seen = (table["end"][rows.stays.last] != "censored").to_numpy(bool)
    result: dict[str, Any] = {}
    for name, rule in constraint_rules(cohort).items():
        cost = np.nan_to_num(table[f"cost_{name}"].to_numpy(np.float64))
        terms = np.column_stack(
            [cost, np.where(death, 0.0, cost), np.where(death, cost, 0.0), cost > 0]
        )
        per_stay = np.column_stack([rows.stays.sum(term) for term in terms.T])
        estimates = bootstrap(per_stay, rows, generator, seen)
        transitions = int((~rows.stays.last).sum())
        resting = cells(sources[name], patient, len(SOURCES), total_known=True)
        entry = cohort.constraints[name]
        result[name] = {
            "label": rule.label,
            "expression": str(rule.expression),
            "kind": rule.kind,
            "limit": entry.limit.model_dump(),
            "share": estimates[0],
            "before_death": estimates[1],
            "death": estimates[2],
            "next_rows": {
                kind: _part_of(resting, place, transitions)
                for place, kind in enumerate(SOURCES)
                if place
            },
        }
    return result


def bootstrap(
    per_stay: Floats,
    rows: TrainingRows,
    generator: np.random.Generator,
    seen: npt.NDArray[np.bool_] | None = None,
) -> list[dict[str, float | int]]:
    """Mean over stays of each column, with a percentile interval over resampled patients.

    Only over the stays in `seen`, if it is given.
    """
    people = rows.patients
    patient = rows.patient
    if seen is not None and seen.any():
        per_stay, patient = per_stay[seen], patient[seen]
    totals = np.column_stack(
        [np.bincount(patient, weights=column, minlength=people) for column in per_stay.T]
    )
    stays = np.bincount(patient, minlength=people).astype(np.float64)
    drawn = np.empty((RESAMPLES, per_stay.shape[1]))
    for resample in range(RESAMPLES):
        weight = np.bincount(generator.integers(0, people, people), minlength=people)
        drawn[resample] = weight @ totals / max(float(weight @ stays), 1.0)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return [
        {
            "estimate": float(totals[:, i].sum() / stays.sum()),
            "lo": float(low[i]),
            "hi": float(high[i]),
            "level": LEVEL,
            "patients": people,
        }
        for i in range(per_stay.shape[1])
    ]


def _hazards(rows: TrainingRows) -> dict[str, Any]:
    """How often clinicians did what must never be recommended, or which columns are missing."""
    cohort = rows.cohort
    columns = {name for rule in hazard_rules(cohort).values() for name in rule.columns}
    known = {*cohort.states, *cohort.actions}
    frame = pd.DataFrame({name: rows.numpy(name) for name in sorted(columns & known)})
    patient = np.repeat(rows.patient, rows.stays.length)
    result: dict[str, Any] = {}
    for name, found in hazards(frame, cohort).items():
        label = cohort.hazards[name].label or name
        if found.values is None:
            result[name] = {
                "label": label,
                "status": "not evaluable",
                "missing_columns": list(found.missing),
            }
            continue
        unknown = np.isnan(found.values)
        met = cells(np.where(unknown, 2, found.values).astype(np.int64), patient, 3)
        evaluable = int((~unknown).sum())
        result[name] = {
            "label": label,
            "status": "evaluable",
            "steps_unknown": _part_of(met, 2, len(unknown))["steps"],
            **_part_of(met, 1, evaluable),
        }
    return result


def _returns(
    table: pd.DataFrame, rows: TrainingRows, generator: np.random.Generator
) -> dict[str, Any]:
    """Returns per stay, undiscounted, and the trajectory quality of the data.

    Means are over stays that were seen to their end; the histogram holds all.

    Trajectory quality, after TQ of Schweighofer et al. (arXiv 2111.04714): there, the data's mean
    return between a random policy's and an expert's. Patients have neither, so here it lies
    between the worst and the best return that the reward can give: end rewards, plus the least
    and the largest charted step reward on every step of the longest stay.
    """
    cohort, stays = rows.cohort, rows.stays
    reward = np.nan_to_num(table["reward"].to_numpy(np.float64))
    total = stays.sum(reward)
    discounted = stays.sum(reward * cohort.discount**stays.step)
    seen = (table["end"][stays.last] != "censored").to_numpy(bool)
    both = np.column_stack([total, discounted])
    mean, mean_discounted = bootstrap(both, rows, generator, seen)
    worst, best = _range_of_returns(reward, stays, cohort)
    width = best - worst
    edges = (
        np.linspace(worst, best, RETURN_BINS + 1).round(12)
        if width
        else np.array([worst, worst + 1.0])
    )
    place = np.clip(np.searchsorted(edges, total, "right") - 1, 0, len(edges) - 2)
    counted = cells(place, rows.patient, len(edges) - 1)
    return {
        "worst_possible": worst,
        "best_possible": best,
        "mean": mean,
        "mean_discounted": mean_discounted,
        "discount": cohort.discount,
        "trajectory_quality": (float(mean["estimate"]) - worst) / width if width else None,
        "edges": edges.tolist(),
        "stays": counted.rows.tolist(),
        "stays_suppressed": counted.suppressed_rows,
    }


def _range_of_returns(reward: Floats, stays: Stays, cohort: Cohort) -> tuple[float, float]:
    ends = list(cohort.reward.terminal.model_dump().values()) if cohort.reward.terminal else [0.0]
    worst, best = float(min(ends)), float(max(ends))
    if cohort.reward.step is not None:
        steps = reward[~stays.last]
        least, most = (float(steps.min()), float(steps.max())) if len(steps) else (0.0, 0.0)
        least, most = _outward(least), _outward(most)
        worst += (cohort.max_steps - 1) * min(least, 0.0)
        best += (cohort.max_steps - 1) * max(most, 0.0)
    return worst, best


def _outward(value: float) -> float:
    """Away from 0 to one significant digit, so that nobody's own value is told.

    >>> _outward(-243.77), _outward(0.2), _outward(0.0)
    (-300.0, 0.2, 0.0)
    """
    if value == 0:
        return 0.0
    size = 10.0 ** np.floor(np.log10(abs(value)))
    return float(np.sign(value) * np.ceil(abs(value) / size - 1e-9) * size)


def _coverage(
    rows: TrainingRows, preparation: Preparation, generator: np.random.Generator
) -> dict[str, Any]:
    """SACo on the sample: clusters of the guardian's columns against bands of the doses."""
    sample = TrainingRows.of(rows.sample(), rows.cohort)
    doses = Doses(sample, preparation.doses)
    states = preparation.state_columns(rows.sample())
    scaled = states[list(rows.cohort.guardian.columns)].to_numpy(np.float64)[doses.decision]
    cluster = state_clusters(scaled, generator)
    band = doses.combined_band()
    width = int(band.max(initial=0)) + 1
    counted = cells(
        cluster * width + band, doses.patient, (int(cluster.max(initial=0)) + 1) * width
    )
    return {
        "saco": state_action_coverage(cluster, band, generator),
        "state_clusters": int(cluster.max(initial=0)) + 1,
        "steps": len(band),
        "share_in_cells_of_ten_patients": float(counted.rows.sum() / max(len(band), 1)),
    }


def _part_of(counted: Cells, cell: int, total: int) -> dict[str, Any]:
    """A cell's count and its share of a total; None where it was suppressed."""
    if cell in counted.suppressed:
        return {"steps": None, "share": None}
    count = int(counted.rows[cell])
    return {"steps": count, "share": count / total if total else None}


def _count(number: int) -> int | None:
    """A count, or None for one to nine."""
    return None if 0 < number < MIN_PATIENTS else number
