r"""Clipped per-decision importance sampling, with a bound that holds for any number of patients.

Clipping makes a mean of what is never negative smaller, so with paid' in [0, 1] of its range

    E[G] >= E[sum_t g^t min(w_t, c) paid'_t],  1 - E[G] >= E[min(w_T, c) (1 - G)],

and empirical Bernstein bounds both means below: c is known before any weight is seen. How many
stays patients have on average, and have at most, is taken as known, and so is the range of a value
where steps pay: there the bound holds as far as those are right.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ogsrl.evaluation.estimators.base import Asked, Estimate, judged
from ogsrl.evaluation.intervals import Interval, bernstein
from ogsrl.evaluation.record import Record, Support

#: c, the largest weight that counts.
LARGEST = 10.0


def estimate(record: Record, asked: Asked) -> Estimate:
    """The middle of what is certain; of a gain too, what was logged being bounded in the same way.

    A gain's interval then holds more often than it says: it is the difference of two that hold.
    """
    own = _certain(record, asked.level)
    if asked.gain:
        theirs = _certain(replace(record, ratio=torch.ones_like(record.ratio)), asked.level)
        own = Interval(own.low - theirs.high, own.high - theirs.low)
    return judged(record, asked, Support.of(record), (own.low + own.high) / 2, own)


def _certain(record: Record, level: float) -> Interval:
    span = record.high - record.low
    if span <= 0:
        return Interval(record.low, record.high)
    weights = record.weights.clip(max=LARGEST)
    last = weights[:, -1]
    returns = ((record.returns - record.low) / span).clip(0, 1)
    if record.low == 0 and bool((record.paid >= 0).all()):
        met = (weights * record.discounted).sum(1) / span
    else:
        met = last * returns
    # the mean over stays: how many each patient had is taken as known
    each = float(record.stays.mean())
    most, one_sided = LARGEST * float(record.stays.max()) / each, (1 + level) / 2
    low = bernstein(record.by_patient(met.clip(max=LARGEST)) / each, most, one_sided)
    high = 1 - bernstein(record.by_patient(last * (1 - returns)) / each, most, one_sided)
    return Interval(record.low + span * min(low, high), record.low + span * max(low, high))
