"""The catalogue of corruptions: every one caught by the rule it names, clean cohorts left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import corruptions
from benchmarks._corruptions_catalogue import CATALOGUE
from benchmarks._corruptions_files import FILES


def test_the_catalogue_has_fifty_kinds_of_different_names() -> None:
    names = [item.name for item in (*CATALOGUE, *FILES)]
    assert len(set(names)) == len(names) >= 50


def test_the_quick_benchmark_catches_all_it_tries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "corruptions.json"
    corruptions.main(["--quick", "--json", str(file)])
    figures = json.loads(file.read_text())["figures"]
    assert figures["corruptions_caught"] == figures["corruptions_total"] >= 10, capsys.readouterr()
    assert figures["false_alarms"] == 0


@pytest.mark.slow
def test_the_whole_catalogue_is_caught() -> None:
    figures = corruptions.main([])
    assert figures["corruptions_caught"] == figures["corruptions_total"] >= 50
    assert figures["false_alarms"] == 0
