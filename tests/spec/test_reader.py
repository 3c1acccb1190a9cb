"""Mistakes of a cohort file: every kind is found, at its key and line, and all at once."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ogsrl.errors import SpecError
from ogsrl.spec import Cohort, CohortFileError, Mistake, load_cohort, parse_cohort
from tests.spec.edit import BASE
from tests.spec.planted import BROKEN_FORM, EDITS

SEPSIS = Path(__file__).parents[2] / "data_contracts" / "sepsis.yaml"


# These leave nothing of their section that could be checked, or rename what others edit.
SOLITARY = {
    "a constraint that cannot name a column",
    "a missing key",
    "a name with capitals",
    "a simulator with a path",
    "an increment above the range",
    "an unknown section",
    "an unknown source",
    "an unknown value",
    "no bounds",
}


def mistakes(text: str) -> tuple[Mistake, ...]:
    with pytest.raises(CohortFileError) as caught:
        parse_cohort(text, "demo.yaml")
    assert isinstance(caught.value, SpecError)
    return caught.value.mistakes


def line_of(text: str, path: str) -> int:
    """The line of a dotted path in a block-style file, or of the nearest section around it."""
    line, at, rows = 1, 0, text.splitlines()
    path, _, item = path.partition("[")
    for depth, key in enumerate(path.split(".") if path else []):
        indent = "  " * depth
        while at < len(rows) and not rows[at].startswith(f"{indent}{key}:"):
            at += 1
            if at < len(rows) and not rows[at].startswith(indent):
                return line
        if at == len(rows):
            return line
        line = at + 1
        at += 1
    items = item and rows[line].lstrip().startswith("- ")  # one a line
    return line + 1 + int(item.partition("]")[0]) if items else line


def test_the_demo_cohort_is_right():
    cohort = parse_cohort(BASE, "some/where/demo.yaml")
    assert isinstance(cohort, Cohort)
    assert cohort.static["age"].max_missing == 0
    assert cohort.observations["spo2"].plausible == (40.0, 100.0)


def test_the_default_cohort_is_right():
    cohort = load_cohort(SEPSIS)
    assert cohort.constraints["oliguria"].parsed.columns == {"urine", "weight"}
    assert len(cohort.hazards) == 4


@pytest.mark.parametrize("name", EDITS)
def test_a_mistake_is_found_at_its_key_and_line_and_is_the_only_one(name):
    edit = EDITS[name]
    assert BASE.count(edit.old) == 1, "the edit must be unambiguous"
    text = BASE.replace(edit.old, edit.new)
    found = mistakes(text)
    match = [mistake for mistake in found if (mistake.rule, mistake.path) == (edit.rule, edit.path)]
    assert match, found
    assert edit.words in match[0].message
    if edit.rule not in ("duplicate_key", "key_not_text"):
        assert match[0].line == line_of(text, edit.path)
    assert {mistake.rule for mistake in found} - {edit.rule} == set(edit.following)


@pytest.mark.parametrize("rule", BROKEN_FORM)
def test_a_file_of_broken_form_is_refused(rule):
    text, words = BROKEN_FORM[rule]
    found = mistakes(text)
    assert {mistake.rule for mistake in found} == {rule}
    assert words in found[0].message


def test_at_least_forty_kinds_of_mistakes_are_known():
    assert len({edit.rule for edit in EDITS.values()} | BROKEN_FORM.keys()) >= 80


def test_all_mistakes_are_reported_at_once():
    """As many edits as can be made side by side, each on lines that no other edit touches."""
    text, taken, planted = BASE, set(), {}
    for name, edit in EDITS.items():
        first = BASE[: BASE.index(edit.old)].count("\n")
        touched = set(range(first, first + edit.old.rstrip("\n").count("\n") + 1))
        if name in SOLITARY or taken & touched or len(touched) > 1:
            continue
        text = text.replace(edit.old, edit.new)
        taken |= touched
        planted[name] = edit
    found = {(mistake.rule, mistake.path) for mistake in mistakes(text)}
    missed = [name for name, edit in planted.items() if (edit.rule, edit.path) not in found]
    assert not missed
    assert len(planted) >= 40


def test_mistakes_stand_in_the_order_of_lines_and_in_the_message():
    text = BASE.replace("spo2 < 92", "spo2 = 92").replace("discount: 0.99", "discount: 2")
    with pytest.raises(CohortFileError) as caught:
        parse_cohort(text, "demo.yaml")
    lines = [mistake.line for mistake in caught.value.mistakes]
    assert lines == sorted(lines)
    assert str(caught.value).startswith("demo.yaml: 2 mistakes\n  line ")
    assert "constraints.hypoxia.expression: at character 6" in str(caught.value)


def test_a_file_that_is_not_there_is_a_mistake_with_the_nearest_name(tmp_path):
    (tmp_path / "sepsis.yaml").write_text("name: sepsis\n")
    with pytest.raises(SpecError, match="did you mean `sepsis`"):
        load_cohort(tmp_path / "sepsys.yaml")


def test_a_file_in_another_encoding_is_a_mistake(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_bytes(BASE.replace("%", "é").encode("latin-1"))
    with pytest.raises(SpecError, match="save it as UTF-8"):
        load_cohort(path)
    with pytest.raises(SpecError, match="cannot be read"):
        load_cohort(tmp_path)


def test_a_byte_order_mark_and_windows_lines_are_no_mistake(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert load_cohort(path).name == "demo"


def test_plain_exponents_are_numbers():
    assert parse_cohort(BASE.replace("0.05", "5e-2"), "demo.yaml") == parse_cohort(
        BASE, "demo.yaml"
    )


def test_settings_may_hold_anything():
    text = BASE.replace("  seed: 3", "  train: {seeds: [0, 1], note: null, on_refusal: stop}")
    assert parse_cohort(text, "demo.yaml").overrides["train"]["seeds"] == [0, 1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_file_is_read_or_refused_but_never_crashes(data):
    rows = BASE.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(rows) - 1))
        rows[at] = data.draw(
            st.sampled_from(["", rows[at] + "x", rows[at].strip(), "  " + rows[at], "- a", "a: 1"])
            | st.text(max_size=12)
        )
    with contextlib.suppress(CohortFileError):
        parse_cohort("\n".join(rows), "demo.yaml")


def test_levels_may_be_given_by_their_number() -> None:
    text = BASE.replace("levels: [none, low, high]", "levels: 3")
    assert text != BASE
    assert parse_cohort(text, "demo.yaml").actions["oxygen"].levels == ("0", "1", "2")
    for wrong, said in (("1", "at least two levels"), ("true", "list"), ("-3", "list")):
        (mistake,) = mistakes(BASE.replace("levels: [none, low, high]", f"levels: {wrong}"))
        assert mistake.path == "actions.oxygen.levels"
        assert said in mistake.message
