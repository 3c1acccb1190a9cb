"""Who is left is told; how many few were left out is not, and cannot be worked out."""

from __future__ import annotations

import re

import pytest

from ogsrl.audit.attrition import attrition


def lines(*counts: tuple[int, int]) -> list[dict[str, object]]:
    return [
        {"step": f"step {number}", "patients": patients, "stays": stays}
        for number, (patients, stays) in enumerate(counts)
    ]


def test_where_nobody_or_many_are_left_out_all_counts_are_shown() -> None:
    assert attrition(lines((20_000, 21_010), (20_000, 21_010), (19_900, 20_900))) == [
        "step 0: 20,000 patients, 21,010 stays",
        "step 1: 20,000 patients, 21,010 stays",
        "step 2: 19,900 patients, 20,900 stays",
    ]


@pytest.mark.parametrize("out", [1, 9])
def test_one_patient_in_quarantine_is_not_told(out: int) -> None:
    first, last = attrition(lines((20_000, 21_010), (20_000 - out, 21_010 - out)))
    assert "20,000" not in first
    assert "21,010" not in first
    assert last.endswith("; fewer than 10 left out")


def test_one_stay_of_a_patient_who_is_kept_is_not_told() -> None:
    first, last = attrition(lines((500, 520), (500, 519)))
    assert first == "step 0: 500 patients, fewer than 10 stays more than are left"
    assert last == "step 1: 500 patients, 519 stays; fewer than 10 left out"


def test_no_two_counts_on_the_card_are_less_than_ten_apart() -> None:
    for counts in ([30, 25, 21, 20], [40, 31, 25, 16, 15], [100, 95, 94, 94]):
        told = attrition(lines(*((n, n) for n in counts)))
        shown = [int(n) for line in told for n in re.findall(r"(\d+) patients,", line)]
        apart = [a - b for a in shown for b in shown if a > b]
        assert all(one >= 10 for one in apart)
        assert shown[-1] == counts[-1]
