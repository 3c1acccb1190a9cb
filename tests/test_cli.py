"""The command line: what it prints, its exit codes, and that it never shows a traceback."""

import json
import re
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from ogsrl.cli import OgsrlGroup, main
from ogsrl.spec import load_cohort
from tests.spec.edit import BASE
from tests.spec.test_draft import diabetes

SEPSIS = str(Path(__file__).parents[1] / "data_contracts" / "sepsis.yaml")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def commands(group=main, path=()):
    yield path, group
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_every_command_has_help_with_an_example(path):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "Example: ogsrl" in result.output


def test_a_right_file_is_ok():
    result = run("spec", "check", SEPSIS)
    assert result.exit_code == 0
    assert "ok, 25 columns, 2 doses" in result.output


def test_a_wrong_file_ends_with_two_and_every_mistake_on_stderr(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(BASE.replace("spo2 < 92", "spo2 = 92").replace("discount: 0.99", "discount: 2"))
    result = run("spec", "check", path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "2 mistakes" in result.stderr
    assert "line 5, discount" in result.stderr
    assert "Traceback" not in result.stderr


def test_mistakes_can_be_had_as_json(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(BASE.replace("discount: 0.99", "discount: 2"))
    result = run("spec", "check", "--json", path)
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert not found["ok"]
    assert found["mistakes"][0]["path"] == "discount"
    assert json.loads(run("spec", "check", "--json", SEPSIS).stdout)["ok"]


def test_a_cohort_is_shown_as_a_table_or_as_json():
    assert "Oxygen saturation below 92 %" in run("spec", "show", SEPSIS).output
    shown = json.loads(run("spec", "show", "--json", SEPSIS).output)
    assert shown == load_cohort(SEPSIS).model_dump(mode="json")


@pytest.mark.parametrize("command", ["check", "show", "draft"])
def test_a_file_that_is_not_there_ends_with_two(command, tmp_path):
    result = run("spec", command, tmp_path / "none.csv")
    assert result.exit_code == 2
    assert "no such file" in result.stderr


def test_a_wrong_option_ends_with_two():
    assert run("spec", "show", "--colour", SEPSIS).exit_code == 2


@pytest.mark.parametrize("kind", ["csv", "semicolon", "parquet"])
def test_a_draft_of_a_file_passes_the_check(kind, tmp_path):
    table = tmp_path / ("glucose.parquet" if kind == "parquet" else "glucose.csv")
    if kind == "parquet":
        diabetes().to_parquet(table)
    else:
        diabetes().to_csv(table, index=False, sep=";" if kind == "semicolon" else ",")
    out = tmp_path / "glucose.yaml"
    result = run("spec", "draft", table, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert run("spec", "check", out).exit_code == 0
    assert run("spec", "draft", table).output == out.read_text()
    assert run("spec", "draft", table, "--out", out).exit_code == 2, "nothing is overwritten"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b'a,b\n"1,2\n3', b"PAR1 broken"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_unreadable_table_is_named_without_what_is_in_it(content, ending, tmp_path):
    table = tmp_path / f"bad.{ending}"
    table.write_bytes(content)
    result = run("spec", "draft", table)
    assert result.exit_code == 2
    assert "garbage" not in result.output
    assert "Traceback" not in result.output


def test_a_defect_is_told_without_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OGSRL_DEBUG", raising=False)
    group = OgsrlGroup("group")

    @group.command()
    def broken() -> None:
        raise ValueError("patient 7713 has lactate 4.2")

    @group.command()
    def closed() -> None:
        raise BrokenPipeError  # who reads it has gone, as in `| head`

    found = CliRunner().invoke(group, ["broken"])
    assert found.exit_code == 70
    assert "unexpected ValueError" in found.output
    assert "in broken" in found.output
    assert "7713" not in found.output
    assert "defect" not in CliRunner().invoke(group, ["closed"]).output
    monkeypatch.setenv("OGSRL_DEBUG", "1")
    assert isinstance(CliRunner().invoke(group, ["broken"]).exception, ValueError)


# asking a policy


def test_query_writes_answers_and_prints_counts_alone(
    models: Path, rows: pd.DataFrame, tmp_path: Path
) -> None:
    rows.to_csv(tmp_path / "rows.csv", index=False)
    out = tmp_path / "answers.parquet"
    words = ["query", "--model", str(models), "--cohort", str(tmp_path / "rows.csv")]
    found = CliRunner().invoke(main, [*words, "--similar", "--out", str(out), "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.output)
    answers = pd.read_parquet(out)
    assert len(answers) == len(rows) == told["rows"] == told["recommended"] + told["deferred"]
    assert told["deferred"] == (answers["verdict"] == "defer").sum() == sum(told["rules"].values())
    assert "similar_mean_iv_fluid" in answers
    assert not set(rows["stay_id"]) & set(found.output.split())


def test_a_page_of_a_stay_is_written_to_private_alone(
    models: Path, rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows.to_parquet("rows.parquet")
    stay = rows["stay_id"].iloc[0]
    words = ["query", "--model", str(models), "--cohort", "rows.parquet", "--stay"]
    found = CliRunner().invoke(main, [*words, stay])
    assert found.exit_code == 0, found.output
    (page,) = (tmp_path / "private" / "sepsis").iterdir()
    assert stay not in page.name
    text = page.read_text()
    assert stay in text
    assert not re.search(r'(src|href)="(https?:)?//', text)
    assert "<script" not in text
    assert text.count("<tr class=") == (rows["stay_id"] == stay).sum()
    missing = CliRunner().invoke(main, [*words, "nobody"])
    assert (missing.exit_code, missing.output) == (2, "rows.parquet: no such stay in it\n")


def test_what_cannot_be_asked_is_a_mistake_without_a_row(
    models: Path, rows: pd.DataFrame, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    rows.assign(temperature=98.625).to_csv(file, index=False)
    found = CliRunner().invoke(main, ["query", "--model", str(models), "--cohort", str(file)])
    assert found.exit_code == 2
    assert "temperature" in found.output
    assert "98.6" not in found.output
    found = CliRunner().invoke(main, ["query", "--model", "models:/none@champion", "--cohort", "x"])
    assert found.exit_code == 2
    assert "no such model" in found.output


def test_a_stay_is_named_as_its_file_names_it(
    models: Path, rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = ["007", "7", "07", "NA", "12E4"]
    first = rows[rows["stay_id"].isin(rows["stay_id"].unique()[: len(odd)])]
    named = first.assign(
        stay_id=first["stay_id"].map(dict(zip(first["stay_id"].unique(), odd, strict=True))),
        patient_id="01",
    )
    named.to_csv("rows.csv", index=False)
    named.to_parquet("rows.parquet")
    answers = []
    for kind in ("csv", "parquet"):
        words = ["query", "--model", str(models), "--cohort", f"rows.{kind}", "--out"]
        found = CliRunner().invoke(main, [*words, f"{kind}.parquet"])
        assert found.exit_code == 0, found.output
        answers.append(pd.read_parquet(f"{kind}.parquet"))
    pd.testing.assert_frame_equal(*answers)
    assert answers[0]["stay_id"].tolist() == named["stay_id"].tolist()
    words = ["query", "--model", str(models), "--cohort", "rows.csv", "--json", "--stay"]
    found = CliRunner().invoke(main, [*words, "007"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.output)["rows"] == (named["stay_id"] == "007").sum()
    named.assign(stay_id=named["stay_id"].where(named["step"] > 0, "")).to_csv("gap.csv")
    found = CliRunner().invoke(main, ["query", "--model", str(models), "--cohort", "gap.csv"])
    assert "stay_id: 5 rows without a stay" in found.output


def test_of_a_column_only_cells_that_are_no_numbers_are_wrong(
    models: Path, rows: pd.DataFrame, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    words = ["query", "--model", str(models), "--cohort", str(file)]
    few = rows.head(41).astype({"map": object, "female": object})
    few.loc[few.index[3], "map"] = "1,5"
    few.loc[few.index[4], "map"] = None
    few.loc[few.index[5], "female"] = "MARKER7731"
    few.to_csv(file, index=False)
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 2
    assert "map: 1 values are no numbers" in found.output
    assert "female: 1 values are no numbers" in found.output
    assert "1,5" not in found.output
    assert "MARKER7731" not in found.output
    few.to_csv(file, index=False, sep=";", decimal=",")
    assert "lactate: " in CliRunner().invoke(main, words).output  # a decimal comma is no number
