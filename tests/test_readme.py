"""README says what benchmarks measured, and nothing else."""

import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = {
    path.stem: json.loads(path.read_text())["figures"]
    for path in (REPOSITORY / "benchmarks" / "results").glob("*.json")
}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (REPOSITORY / "README.md").read_text().splitlines()
    if line.count("|") == 5 and line.strip("|").split("|")[0].strip() in RESULTS
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_figure_in_the_readme_is_the_last_full_run_s(row: list[str]) -> None:
    benchmark, names, _, measured = row
    said = [text.replace(",", "") for text in re.findall(r"-?\d[\d,]*\.?\d*", measured)]
    quoted = re.split(", | of ", names)
    assert len(said) >= len(quoted) > 0
    for name, text in zip(quoted, said, strict=False):  # intervals and stages may follow
        digits = len(text.partition(".")[2])
        assert float(text) == round(RESULTS[benchmark][name], digits), name


def test_every_benchmark_is_in_the_readme_and_was_run_in_full() -> None:
    modules = {path.stem for path in (REPOSITORY / "benchmarks").glob("[!_]*.py")}
    assert modules == set(RESULTS) == {row[0] for row in ROWS}
    for name in modules:
        result = json.loads((REPOSITORY / "benchmarks" / "results" / f"{name}.json").read_text())
        assert set(result) == {"name", "date", "machine", "command", "revision", "figures"}
        assert "--quick" not in result["command"]
