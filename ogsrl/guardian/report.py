"""What validation patients say of a guardian: false alarms, power, false support; guardian.json.

Called by the stage guardian. Validation patients alone, aggregates alone; it fits nothing but the
peers, and those to training and calibration patients as the guardian itself was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.departures import panel
from ogsrl.guardian.kde import KernelDensity
from ogsrl.guardian.neighbours import Neighbours
from ogsrl.guardian.power import departed, power_by_rarity, power_table, refused, sample
from ogsrl.guardian.protocol import Guardian, Rows
from ogsrl.guardian.region import region
from ogsrl.guardian.shares import group_shares, share
from ogsrl.guardian.shortage import Shortage
from ogsrl.guardian.survey import MAX_LEVELS
from ogsrl.preparation.coverage import MIN_PATIENTS
from ogsrl.preparation.groups import bands, subgroups
from ogsrl.preparation.tensors import StayTensors

FORMAT = 1
#: Cases of each departure, asked of every member.
CASES = 2_000
#: Cases that are divided into tenths by how rare the patient is.
RARITY_CASES = 6_000
#: Calibration patients of a peer: kernels of every training row cost time.
PEER_PATIENTS = 500
#: Largest share of clinicians' steps that a guardian who promises nothing may refuse.
MOST_REFUSED = 0.5
#: Least mean power over the departures in dose, beyond the share of real cases refused.
POWER_FLOOR = 0.2
MEMBERS: tuple[type[Guardian], ...] = (ChristoffelGuardian, KernelDensity, Neighbours, Counts)


def fit_peers(
    guardian: Guardian,
    train: Rows,
    calibration: Rows,
    params: GuardianParams,
    generator: torch.Generator,
) -> dict[str, Guardian | str]:
    """The other members, fitted to the same rows; or why one cannot judge this cohort."""
    layout = guardian.layout
    few = sample_patients(calibration, PEER_PATIENTS, generator)
    levels_only = all(kind == "categorical" for kind in layout.kinds)
    counted = layout.kinds == ("categorical",) and set(layout.dose_kinds) == {"ordinal"}
    params = params.model_copy(update={"usual": "ratio"})  # no peer is given a density
    found: dict[str, Guardian | str] = {}
    for peer in MEMBERS:
        if isinstance(guardian, peer):
            continue
        if peer is Counts and not counted:
            found[peer.kind] = "needs one categorical state and ordinal doses"
        elif peer.holds_rows and levels_only:
            found[peer.kind] = "levels have no distance"
        elif any(count > MAX_LEVELS for count in layout.levels):
            found[peer.kind] = f"looks at no column of more than {MAX_LEVELS} levels"
        else:
            fitted = peer.fit([train], layout, params, generator)
            found[peer.kind] = fitted.calibrate(few.states, few.doses, few.patient, params.alpha)
    return found


def ready(guardian: Guardian, peers: Mapping[str, Guardian | str]) -> dict[str, Guardian]:
    """The guardian and those peers that can judge."""
    able = {n: p for n, p in peers.items() if isinstance(p, Guardian) and p.status == "ready"}
    return {guardian.kind: guardian, **able}


def sample_patients(rows: Rows, patients: int, generator: torch.Generator) -> Rows:
    """The rows of at most so many patients."""
    people = torch.unique(rows.patient)
    chosen = people[torch.randperm(len(people), generator=generator)[:patients]]
    return rows.take(torch.isin(rows.patient, chosen).nonzero().squeeze(1))


def describe(
    guardian: Guardian,
    peers: Mapping[str, Guardian | str],
    train: Rows,
    validation: StayTensors,
    prepared: pd.DataFrame,
    generator: torch.Generator,
) -> dict[str, Any]:
    """The contents of guardian.json, but for what only a simulator knows.

    Args:
        guardian: Fitted and calibrated.
        peers: Other members, or why one is not evaluable.
        train: Training decisions, of which departures know the limits.
        validation: Validation stays.
        prepared: The same stays as prepared rows.
        generator: Departures are drawn with it.
    """
    threshold, real = guardian.threshold, Rows.of(validation)
    short = guardian.lacking
    if guardian.status == "ready" and len(torch.unique(real.patient)) < MIN_PATIENTS:
        short = Shortage("validation", MIN_PATIENTS)
    head = {
        "format": FORMAT,
        "kind": guardian.kind,
        "status": guardian.status,
        "needed": None if short is None else short.needed,
        "needed_of": None if short is None else short.part,
        "alpha": guardian.alpha,
        "threshold": None if threshold is None else threshold.value,
        "calibration": None
        if threshold is None
        else {"patients": threshold.patients, "share": threshold.share, "spread": threshold.spread},
        "columns": list(guardian.layout.columns),
        "doses": list(guardian.layout.doses),
        "members": {
            guardian.kind: _member(guardian),
            **{name: _member(peer) for name, peer in peers.items()},
        },
    }
    if guardian.status != "ready" or short is not None:
        nothing: dict[str, Any] = {"false_alarm": None, "power": None, "region": None, "checks": []}
        return {**head, **nothing}
    alarm = false_alarm(guardian, validation, prepared)
    found = panel(train, validation.history)
    cases = departed(found, real, CASES, generator)
    members = ready(guardian, peers)
    power = power_table(found, cases, sample(real, CASES, generator), members)
    power["by_rarity"] = power_by_rarity(
        found, sample(real, RARITY_CASES, generator), guardian, generator
    )
    report = {
        **head,
        "false_alarm": alarm,
        "power": power,
        "region": region(guardian, real, validation.history, train),
    }
    report["checks"] = checks(report)
    return report


def with_truth(report: dict[str, Any], truth: Mapping[str, Any]) -> dict[str, Any]:
    """The same report with what a simulator knows, and the checks that need it."""
    report = {**report, "truth": dict(truth)}
    return {**report, "checks": checks(report)} if report["false_alarm"] else report


def _member(peer: Guardian | str) -> dict[str, Any]:
    if isinstance(peer, str):
        return {"status": f"not evaluable: {peer}", "holds_rows": None, "promises": None}
    return {"status": peer.status, "holds_rows": peer.holds_rows, "promises": peer.promises}


def false_alarm(
    guardian: Guardian, validation: StayTensors, prepared: pd.DataFrame
) -> dict[str, Any]:
    """Share of steps and of stays of clinician-treated patients that are refused."""
    history, decided = validation.history, validation.decision.numpy()
    states, doses = validation.states, validation.doses
    flags = refused(guardian, Rows(states, doses, validation.patient)).numpy() & decided
    patient, stay = validation.patient.numpy(), validation.stay.numpy()
    stays = np.flatnonzero(np.diff(stay, prepend=-1))
    ever = np.bincount(stay, weights=flags) > 0
    length = np.bincount(stay, weights=decided).astype(np.int64)
    step = validation.step.numpy()
    groups = [
        *subgroups(prepared, history.preparation),
        bands("step", "Step", step, "step"),
        bands("length", "Steps of the stay", length[stay], "step"),
    ]
    threshold = guardian.threshold
    bound = None
    if threshold is not None and guardian.promises:
        bound = threshold.prediction_bound(len(np.unique(patient)))
    return {
        "alpha": guardian.alpha,
        "prediction_bound": bound,
        "steps": share(flags[decided], patient[decided]),
        "stays": share(ever[length > 0], patient[stays][length > 0]),
        "groups": {
            group.name: {
                "label": group.label,
                "shares": group_shares(group, flags, patient, decided),
            }
            for group in groups
        },
        "by_question": _by_question(guardian, Rows.of(validation)),
    }


def _by_question(guardian: Guardian, rows: Rows) -> dict[str, Any]:
    """Share of steps that each question alone would refuse."""
    answers = guardian.questions(rows.states, rows.doses)
    patient = rows.patient.numpy()
    return {
        name: share((~guardian.accepts(answer)).numpy(), patient)
        for name, answer in answers.items()
    }


def checks(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a guardian must pass; each names a degenerate answer that it would catch."""
    steps = report["false_alarm"]["steps"]
    kind, alpha = report["kind"], report["alpha"]
    table = report["power"]["departures"]
    doses = [n for n, entry in table.items() if entry["kind"] == "dose" and entry["power"]]
    powers = [v["estimate"] for n in doses if (v := table[n]["power"][kind]) is not None]
    power = float(np.mean(powers)) if powers else None
    real = report["power"]["real_cases"]["refused"][kind]
    lowest = None if steps is None else steps["lo"]
    promise = (
        "promise",
        "the share of steps refused is not above what was promised (who refuses everything fails)",
    )
    measured = (
        "share refused",
        "at most half of the steps are refused; nothing is promised (who refuses nearly everything "
        "fails)",
    )
    found = [
        _check(*promise, lowest, "<=", alpha)
        if alpha is not None
        else _check(*measured, lowest, "<=", MOST_REFUSED),
        _check(
            "power",
            "doses that clinicians would not give are refused more often than those they gave "
            "(who refuses nothing, or at random, fails)",
            None if power is None or real is None else power - real["estimate"],
            ">=",
            POWER_FLOOR,
        ),
    ]
    rare = _rarest(report["power"]["by_rarity"])
    if rare is not None and power is not None:
        text = "power on doses of the rarest tenth of patients is at least half of that of all"
        found.append(_check("rare patients", text, rare[0], ">=", rare[1] / 2))
    truth = report.get("truth") or {}
    if (support := truth.get("false_support")) is not None:
        found.append(_support_check(support, kind))
    if (variant := truth.get("deadly")) is not None and variant["status"] == "ready":
        shares = variant["asks"]["random"]
        known = shares["supported_kills"] is not None and shares["kills"] is not None
        text = "of random doses, those supported kill at most half as often as all"
        value = shares["supported_kills"]["estimate"] if known else None
        limit = shares["kills"]["estimate"] / 2 if known else None
        found.append(_check("deadly variant", text, value, "<=", limit))
    return found


def _support_check(support: Mapping[str, Any], kind: str) -> dict[str, Any]:
    text = (
        "of random doses, those supported have an error beyond the 99th percentile of clinicians' "
        "own at most half as often as all"
    )
    shares = [
        support["members"][name]["asks"].get("random", {}).get("beyond_high")
        for name in (kind, "no guardian")
    ]
    mine, every = (None if found is None else found["estimate"] for found in shares)
    return _check("false support", text, mine, "<=", None if every is None else every / 2)


def _rarest(deciles: list[dict[str, Any]] | None) -> tuple[float, float] | None:
    """Mean power on doses by dose alone: of the rarest tenth, and over all tenths."""
    if deciles is None:
        return None
    means = []
    for decile in deciles:
        shares = [entry["by_dose"] for entry in decile["departures"].values()]
        known = [found["estimate"] for found in shares if found is not None]
        means.append(float(np.mean(known)) if known else None)
    known_means = [mean for mean in means if mean is not None]
    return (means[-1], float(np.mean(known_means))) if means[-1] is not None else None


def _check(
    name: str, text: str, value: float | None, relation: str, limit: float | None
) -> dict[str, Any]:
    passed = None
    if value is not None and limit is not None:
        passed = value <= limit if relation == "<=" else value >= limit
    return {
        "name": name,
        "text": text,
        "value": value,
        "relation": relation,
        "limit": limit,
        "passed": passed,
    }
