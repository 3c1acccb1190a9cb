"""What is true of each policy on the same fresh patients, a resumable part a policy.

Called by benchmarks.truth and benchmarks._oracle. Parts hold simulated patients alone and lie in
the cache; nothing learned may ever read them.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load, save

from benchmarks._truth_cohorts import Place, code_files, digest
from ogsrl.evaluation.simulated import simulated_truth
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.limits import limit_of
from ogsrl.sources.simulator import Policy, Truth, paired_difference
from ogsrl.sources.simulator.truth import CHUNK
from ogsrl.spec import Cohort

#: Code that decides what a policy proposes, beyond the place's own.
CODE = ("ogsrl/policies/actors.py", "ogsrl/policies/codes.py", "ogsrl/policies/networks.py")


@dataclass(frozen=True)
class Named:
    """A policy with the name under which it is told, and a key of all that it is made of."""

    name: str
    policy: Policy | Deployed
    key: str


@dataclass(frozen=True)
class Patients:
    """Which fresh patients: how many, and of which seed."""

    count: int
    seed: int


def truth_of(policy: Policy | Deployed, place: Place, patients: Patients) -> Truth:
    """What is true of a policy in the cohort's simulator."""
    return simulated_truth(policy, place.cohort, place.config, patients.count, patients.seed)


def measured(named: Named, place: Place, patients: Patients, folder: Path) -> Truth:
    """The truth of a policy, from its part if that was finished."""
    code = [file.read_bytes() for file in code_files(CODE)]
    key = digest(code, place.fingerprint, named.key, patients.count, patients.seed)
    file, arrays = folder / f"{key}.json", folder / f"{key}.safetensors"
    common = (patients.count, patients.seed, place.config, CHUNK)
    if file.exists() and arrays.exists():
        told = json.loads(file.read_text(encoding="utf-8"))
        return Truth(**told["truth"], each=load(arrays.read_bytes()), common=common)
    start = time.monotonic()
    truth = truth_of(named.policy, place, patients)
    folder.mkdir(parents=True, exist_ok=True)
    scalars = {
        field.name: getattr(truth, field.name)
        for field in dataclasses.fields(Truth)
        if field.name not in ("each", "common")
    }
    part = {"name": named.name, "seconds": round(time.monotonic() - start, 1), "truth": scalars}
    beside = folder / f".{key}.partial"
    beside.write_bytes(save(dict(truth.each)))
    beside.replace(arrays)
    beside.write_text(json.dumps(part), encoding="utf-8")
    beside.replace(file)  # last: where it is, the part is whole
    return truth


@dataclass(frozen=True)
class Margins:
    """By how much a policy exceeds what is allowed, above 0 where it does."""

    constraints: Mapping[str, float]
    refusal: float

    @property
    def feasible(self) -> bool:
        """Whether every constraint is met and refusals are rare enough."""
        return self.refusal <= 0 and max(self.constraints.values(), default=0.0) <= 0

    @property
    def broken(self) -> tuple[str, ...]:
        """The constraints exceeded."""
        return tuple(name for name, excess in self.constraints.items() if excess > 0)


def margins(truth: Truth, clinicians: Truth, cohort: Cohort, max_refusal: float) -> Margins:
    """A policy's true costs against the limits that follow from the clinicians' true costs."""
    if truth.common != clinicians.common:
        raise ValueError("the policy and the clinicians were measured on different patients")
    excess = {
        name: truth.costs[name] - limit_of(entry.limit, clinicians.costs[name])
        for name, entry in cohort.constraints.items()
    }
    return Margins(excess, truth.steps_deferred - max_refusal)


def table(
    truths: Mapping[str, Truth], reference: Truth, pessimistic: Mapping[str, float] | None = None
) -> str:
    """The truth table as text: a line a policy.

    Args:
        truths: By policy.
        reference: Whose patients die more or less often.
        pessimistic: Told in the column "worst", the one estimate here: more mortality where each
            deferral is met by the worst supported dose.
    """
    first = next(iter(truths.values()))
    head = ["policy", "mortality", "less", "se", *[f"{n} (alive)" for n in first.costs]]
    head += ["hazards", "steps def.", "stays def.", "worst", *first.doses]
    lines = [head]
    for name, truth in truths.items():
        less, error = paired_difference(reference, truth)
        costs = [f"{c:.4f} ({truth.costs_before_death[n]:.4f})" for n, c in truth.costs.items()]
        lines.append(
            [
                name,
                f"{truth.mortality:.4f}",
                f"{less:+.4f}",
                f"{error:.4f}",
                *costs,
                f"{sum(truth.hazards.values()):.5f}",
                f"{truth.steps_deferred:.4f}",
                f"{truth.stays_deferred:.4f}",
                f"{pessimistic[name]:+.4f}" if pessimistic and name in pessimistic else "",
                *[f"{dose:.4g}" for dose in truth.doses.values()],
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
