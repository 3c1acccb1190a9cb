"""What a clinician reads: labels, units, words for signs; and hints that are not mistakes."""

from pathlib import Path

import pytest

from ogsrl.spec import Limit, load_cohort, parse_cohort, parse_expression
from ogsrl.spec.hints import hints
from ogsrl.spec.show import show
from ogsrl.spec.words import expression_words, limit_words, reward_words
from tests.spec.edit import BASE
from tests.spec.planted_rules import PROTOCOL

SEPSIS = load_cohort(Path(__file__).parents[2] / "data_contracts" / "sepsis.yaml")


def test_every_column_dose_and_rule_of_the_default_cohort_is_shown():
    text = show(SEPSIS)
    named = [*SEPSIS.states, *SEPSIS.actions, *SEPSIS.constraints, *SEPSIS.hazards]
    assert all(name in text for name in named)
    assert all(column.label in text for column in SEPSIS.states.values())
    assert "one decision every 4 h, at most 18 (72 h)" in text
    assert "at most 0.9 x the clinicians' share of steps" in text
    assert "Festor et al. 2022" in text
    assert "{" not in text


def test_a_row_holds_label_unit_range_and_what_is_bad():
    row = next(line for line in show(SEPSIS).splitlines() if line.startswith("  lactate"))
    assert row.split() == (
        ["lactate", "Lactate", "mmol/L", "0.2", "to", "30", "1", "last", "known", "90", "%", "high"]
    )


def test_a_cohort_without_deaths_says_so():
    text = BASE.replace(BASE[BASE.index("outcome:") : BASE.index("  step:")], "reward:\n")
    shown = show(parse_cohort(text, "demo.yaml"))
    assert "none in this cohort" in shown
    assert "each step: -0.01 * lactate" in shown
    assert "none, low, high" in shown
    assert "sinus, af" in shown


def test_a_protocol_is_said_line_by_line():
    shown = show(parse_cohort(BASE + PROTOCOL, "demo.yaml"))
    assert "Fluid, then oxygen" in shown
    assert "where map below 65 mmHg: 250 mL/4 h more than before" in shown
    assert "where map above 90 mmHg: 250 mL/4 h less than before" in shown
    assert "otherwise: as before" in shown
    assert "above 70 years: high" in shown
    assert "protocol" not in show(SEPSIS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spo2 < 92", "Oxygen saturation below 92 %"),
        ("92 > spo2", "92 above Oxygen saturation"),
        ("not (map < 55 or map > 95)", "not (Mean arterial pressure below 55 mmHg or"),
        ("urine / weight / 4 < 0.5", "Urine in the last 4 hours / Weight / 4 below 0.5"),
        ("(sbp - map) * 2 >= 40", "(Systolic pressure - Mean arterial pressure) * 2 at least 40"),
        ("ventilated == 1", "Mechanical ventilation is 1"),
    ],
)
def test_an_expression_is_said_in_words(text, words):
    assert words in expression_words(SEPSIS, parse_expression(text))


def test_limits_are_said_in_percent():
    assert limit_words(Limit(relative=1.1, margin=0.02)).endswith("share of steps plus 2 %")
    assert limit_words(Limit(absolute=0.05), "ever") == "at most 5 % of stays"


def test_a_reward_of_truth_is_said_as_one_if():
    text = BASE.replace("step: -0.01 * lactate", "step: spo2 >= 92")
    assert "each step: 1 if spo2 at least 92 %" in reward_words(parse_cohort(text, "demo.yaml"))


def test_the_default_cohort_needs_no_second_look():
    assert hints(SEPSIS) == ()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("unit: mmHg", "unit: mmhg", "map: the unit `mmhg` is not a usual spelling; did you mean"),
        ("unit: mmol/L", "unit: fraction", "a fraction, but up to 30"),
        ("[40, 100]\n    normal: 98", "[0.4, 1]", "in %, but at most 1"),
        ("max_change: 500", "max_change: 2000", "never binds"),
        ("[0.2, 30]", "[20, 30]", "changes next to nothing"),
    ],
)
def test_an_odd_unit_or_scale_is_worth_a_second_look_but_no_mistake(old, new, words):
    text = BASE.replace(old, new).replace(
        "spo2 < 92", "spo2 < 0.92" if "0.4" in new else "spo2 < 92"
    )
    assert any(words in hint for hint in hints(parse_cohort(text, "demo.yaml")))


def test_no_constraint_and_no_hazard_are_worth_a_second_look():
    text = BASE.replace(BASE[BASE.index("constraints:") : BASE.index("guardian:")], "")
    found = " ".join(hints(parse_cohort(text, "demo.yaml")))
    assert "constraints: none" in found
    assert "hazards: none" in found
