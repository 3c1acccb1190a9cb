"""What a policy's costs must not exceed.

Called by selection on validation patients and by evaluation on test patients: both judge the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ogsrl.evaluation.quantities import COST
from ogsrl.spec import Cohort


def limit_tests(
    own: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], cohort: Cohort
) -> dict[str, tuple[torch.Tensor, float]]:
    """By limit: values whose mean must not exceed a number.

    `relative:<constraint>`: the policy's cost less the clinicians' share of theirs that the limit
    allows; `absolute:<constraint>`: the cost itself.

    Args:
        own: (fits, patients) values of the policy, by quantity.
        theirs: The same of the clinicians.
        cohort: Whose limits.
    """
    tests = {}
    for name, constraint in cohort.constraints.items():
        limit, cost = constraint.limit, own[COST + name]
        if limit.relative is not None:
            allowed = limit.relative * theirs[COST + name]
            tests[f"relative:{name}"] = (cost - allowed, limit.margin)
        if limit.absolute is not None:
            tests[f"absolute:{name}"] = (cost, limit.absolute)
    return tests
