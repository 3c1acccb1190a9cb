"""What evaluation tells of each estimator, and what it keeps to itself."""

from __future__ import annotations

import pytest

from ogsrl.evaluation.estimators.base import Estimate
from ogsrl.evaluation.evaluate import Answers
from ogsrl.evaluation.panel import panel
from ogsrl.evaluation.report import agreement, rows_of


def said(patients: int, steps: int) -> Estimate:
    return Estimate(0.1, 0.0, 0.2, 0.95, None, None, patients, steps, True, "")


@pytest.mark.parametrize(
    ("patients", "steps", "told"),
    [(500, 4000, True), (490, 3900, True), (491, 3900, False), (500, 3999, False)],
)
def test_how_few_were_lost_from_sight_cannot_be_had_by_subtraction(
    patients: int, steps: int, told: bool
) -> None:
    each = {"fqe": said(500, 4000), "wis": said(patients, steps), "rollouts": said(500, 3990)}
    rows = {row["estimator"]: row for row in rows_of(Answers(each, panel(each, 0.0, 1.0, 0.95)))}
    assert [rows["fqe"][name] for name in ("patients", "steps")] == [500, 4000]
    assert [rows["panel"][name] for name in ("patients", "steps")] == [500, 4000]
    wanted = [patients, steps] if told else [None, None]
    assert [rows["wis"][name] for name in ("patients", "steps")] == wanted
    assert [rows["rollouts"][name] for name in ("patients", "steps")] == [500, 3990]


def test_who_says_nothing_agrees_with_nobody() -> None:
    fqe = said(500, 4000)
    silent = Estimate(0.5, 0.0, 1.0, 0.95, 0.0, 1.0, 500, 4000, False, "")
    apart = Estimate(0.3, 0.25, 0.4, 0.95, 300.0, 0.01, 500, 4000, True, "")
    for others, agrees in (
        ({"pdis_clipped": silent}, None),
        ({"wis": silent}, None),
        ({"wis": fqe}, 1.0),
        ({"wis": fqe, "wdr": apart, "dr": silent}, 0.5),
    ):
        each = {"fqe": fqe, **others}
        assert agreement(Answers(each, panel(each, 0.0, 1.0, 0.95))) == agrees
