"""What a policy's costs must not exceed.

Called by selection on validation patients and by evaluation on test patients: both judge the same
limits; what fits miss is allowed for on test patients alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ogsrl.evaluation.bounds import Bound, Interval
from ogsrl.evaluation.quantities import COST
from ogsrl.spec import Cohort


@dataclass(frozen=True)
class LimitTest:
    """That a mean does not exceed a number.

    Attributes:
        values: (fits, patients) of what the mean is of.
        most: The number.
        apart: (fits, patients) the policy's cost less the clinicians', where whoever keeps the
            limit cannot cost more than they; None for other limits.
    """

    values: torch.Tensor
    most: float
    apart: torch.Tensor | None

    def bound(self, interval: Interval, missed: float, missed_lower: float, level: float) -> Bound:
        """In two steps, where fits miss more of policies that cost more.

        What is surely below the clinicians', whatever the policy, is a policy's of which fits miss
        less. A fixed sequence: of policies that cost more than clinicians the first step errs as
        seldom as it says, of others the second. Who keeps the limit by the large miss alone is
        surely lower too, or as good as: own - r theirs is at least own - theirs where r <= 1.

        Args:
            interval: By what fits say.
            missed: What they miss beyond it, of any policy, as a standard deviation.
            missed_lower: The same of policies that do not cost more than the clinicians.
            level: Of the bound, one-sided.
        """
        lower = self.lower(interval, missed, level)
        return interval(self.values, level).less_sure(missed_lower if lower else missed)

    def lower(self, interval: Interval, missed: float, level: float) -> bool:
        """Whether the cost is surely below the clinicians', by the first step."""
        if self.apart is None:
            return False
        return interval(self.apart, level).less_sure(missed).high < 0


def limit_tests(
    own: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], cohort: Cohort
) -> dict[str, LimitTest]:
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
            usual = theirs[COST + name]
            lower = limit.relative <= 1 and limit.margin <= 0
            tests[f"relative:{name}"] = LimitTest(
                cost - limit.relative * usual, limit.margin, cost - usual if lower else None
            )
        if limit.absolute is not None:
            tests[f"absolute:{name}"] = LimitTest(cost, limit.absolute, None)
    return tests
