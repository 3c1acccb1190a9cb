"""What is true of a policy in a simulated cohort: treated to the end at the simulator's bedside.

Called by evaluation, which puts it beside estimates, and by benchmarks. Nothing learned may ever
read a number from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ogsrl.constraints import Rule, constraint_rules, hazard_rules
from ogsrl.evaluation.bedside import Bedside
from ogsrl.evaluation.quantities import COST, MORTALITY, REFUSAL, VALUE
from ogsrl.policies.deployed import Deployed
from ogsrl.sources.simulator import Policy, SimulatorConfig, Truth, true_value
from ogsrl.sources.simulator.config import MAX_STEPS, Floats
from ogsrl.spec import Cohort

#: Rewards that the simulator's own value is made of.
REWARDS = (-1.0, 1.0, 1.0)


def simulated_truth(
    policy: Policy | Deployed, cohort: Cohort, config: SimulatorConfig, patients: int, seed: int
) -> Truth:
    """What is true of a policy, each constraint and hazard of the cohort counted."""
    return true_value(
        Bedside(policy) if isinstance(policy, Deployed) else policy,
        patients,
        seed,
        config,
        discount=cohort.discount,
        constraints={n: _unsafe(r) for n, r in constraint_rules(cohort).items()},
        hazards={n: _hazardous(r) for n, r in hazard_rules(cohort).items()},
    )


def each_patient(truth: Truth, cohort: Cohort) -> dict[str, Floats]:
    """By quantity: what came of each patient, of quantities that mean the same there and here."""
    found = {MORTALITY: truth.each["mortality"], REFUSAL: truth.each["deferred"] / MAX_STEPS}
    for name, constraint in cohort.constraints.items():
        if constraint.kind == "share":
            found[COST + name] = truth.each[f"cost:{name}"]
    terminal = cohort.reward.terminal
    paid = terminal and (terminal.death, terminal.discharge, terminal.horizon)
    if paid == REWARDS and cohort.reward.step is None:
        found[VALUE] = truth.each["value"]
    return found


def _unsafe(rule: Rule) -> Any:
    def met(known: Mapping[str, Floats]) -> Any:
        return rule.numpy({name: known[name] for name in rule.columns}) == 1

    return met


def _hazardous(rule: Rule) -> Any:
    """On the chart and the doses given; what is not charted now is no hazard."""

    def met(charted: Mapping[str, Floats], given: Mapping[str, Floats]) -> Any:
        values = {**charted, **given}
        return rule.numpy({name: values[name] for name in rule.columns}) == 1

    return met
