"""The audit's figures show who failed, and nothing of few patients."""

from __future__ import annotations

from matplotlib.patches import Rectangle

from ogsrl.audit.audit import audit
from ogsrl.audit.config import AuditParams
from ogsrl.figures.audit import COLOURS, gates, subgroups
from tests.audit.told import changed, group


def test_a_gate_that_failed_lies_where_it_is_hatched_and_no_other() -> None:
    worse = changed(**{"selected.measures.deferred_steps.hi": 0.3, "than.cloning.lo": -0.2})
    said = audit(worse, AuditParams()).plain()
    judged = {gate["title"]: gate for gate in said["gates"]}
    seen = set()
    for axes in gates(said).axes:
        (title,) = [label.get_text() for label in axes.get_yticklabels()]
        gate = judged[title]
        (hatched,) = [one for one in axes.patches if isinstance(one, Rectangle)]
        if gate["measured"] is None or gate["verdict"] not in ("passed", "failed"):
            continue
        left, right = hatched.get_x(), hatched.get_x() + hatched.get_width()
        inside = left <= gate["measured"] <= right and gate["measured"] != gate["limit"]
        assert inside == (gate["verdict"] == "failed"), title
        assert axes.texts[0].get_color() == COLOURS[gate["verdict"]]
        seen.add(gate["verdict"])
    assert seen == {"passed", "failed"}


def test_a_subgroup_surely_worse_off_is_seen_and_few_patients_are_not_told() -> None:
    shown = changed(**group(0, "young", 0.02), **group(1, "old", -0.1, adjusted_hi=-0.02)).groups()
    hidden = {**shown[0], "group": "few"} | dict.fromkeys(
        ("patients", "estimate", "lo", "hi", "adjusted_hi")
    )
    (axes,) = subgroups([*shown, hidden]).axes
    colours = [line.get_color() for line in axes.lines if line.get_marker() == "o"]
    assert colours == ["#0072B2", "#D55E00"]
    assert [text.get_text().strip() for text in axes.texts] == ["fewer than ten patients"]
    assert [label.get_text() for label in axes.get_yticklabels()][-1].endswith(": few")
    assert "No subgroup" in subgroups([]).axes[0].texts[0].get_text()
