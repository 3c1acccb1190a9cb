"""The `ogsrl` command: one group a topic, each command a few lines around the library.

A mistake that a user can mend ends with exit code 2 and a message on stderr, never a traceback;
a defect of the program with 70, without its message, which could quote a patient's value.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
import pandas as pd

from ogsrl.errors import DEFECT, OgsrlError, SourceError, without_values
from ogsrl.spec import CohortFileError, load_cohort
from ogsrl.spec.draft import draft
from ogsrl.spec.hints import hints
from ogsrl.spec.show import show

MISTAKE = 2
_DRAFT_ROWS = 500_000
_PATH = click.Path(path_type=Path)


class OgsrlGroup(click.Group):
    """A group whose commands end with a message, not a traceback, on a mistake of the user."""

    def invoke(self, context: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(context)
        except OgsrlError as error:
            click.echo(str(error), err=True)
            context.exit(MISTAKE)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise  # click's own
        except Exception as error:
            for line in without_values(error):
                click.echo(line, err=True)
            context.exit(DEFECT)


@click.group(
    cls=OgsrlGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 mistake, 70 a defect of ours. "
    "Example: ogsrl spec show data_contracts/sepsis.yaml",
)
@click.version_option(package_name="ogsrl")
def main() -> None:
    """Offline, guarded learning of treatment policies from logged patients."""


@main.group(epilog="Example: ogsrl spec check data_contracts/sepsis.yaml")
def spec() -> None:
    """Check, show and draft cohort files."""


@spec.command("check", epilog="Example: ogsrl spec check data_contracts/sepsis.yaml")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def spec_check(file: Path, as_json: bool) -> None:
    """Report every mistake of a cohort FILE at once, with its line."""
    try:
        cohort = load_cohort(file)
    except CohortFileError as error:
        if not as_json:
            raise
        found = [asdict(mistake) for mistake in error.mistakes]
        click.echo(json.dumps({"file": str(file), "ok": False, "mistakes": found}, indent=2))
        sys.exit(MISTAKE)
    notes = hints(cohort)
    if as_json:
        click.echo(json.dumps({"file": str(file), "ok": True, "hints": notes}, indent=2))
        return
    click.echo(
        f"{file}: ok, {len(cohort.states)} columns, {len(cohort.actions)} doses, "
        f"{len(cohort.constraints)} constraints, {len(cohort.hazards)} hazards"
    )
    for note in notes:
        click.echo(f"  look again: {note}")


@spec.command("show", epilog="Example: ogsrl spec show data_contracts/sepsis.yaml")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the parsed cohort as JSON.")
def spec_show(file: Path, as_json: bool) -> None:
    """Print a cohort FILE as a table in words and units."""
    cohort = load_cohort(file)
    click.echo(json.dumps(cohort.model_dump(mode="json"), indent=2) if as_json else show(cohort))


@spec.command(
    "draft",
    epilog="Example: ogsrl spec draft icu.csv --dose insulin_units --out data_contracts/icu.yaml",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the cohort; the file's name if not given.")
@click.option("--dose", "doses", multiple=True, help="A column that is a dose; may be repeated.")
@click.option("--out", type=click.Path(path_type=Path), help="Write there instead of printing.")
def spec_draft(file: Path, name: str | None, doses: tuple[str, ...], out: Path | None) -> None:
    """Write a first cohort file for a table of stays, each guess marked.

    FILE is a CSV or parquet file with a row a stay and step.
    """
    if out is not None and out.exists():
        raise SourceError(f"{out}: exists already; remove it or choose another name")
    text = draft(_read_table(file), name=name or file.stem, path=str(file), doses=doses)
    if out is None:
        click.echo(text, nl=False)
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError:
            raise SourceError(f"{out}: cannot be written; does its folder exist?") from None
        click.echo(f"{out}: drafted; read every line marked `guess`, then `ogsrl spec check {out}`")


def _read_table(file: Path) -> pd.DataFrame:
    """The first rows of a table, without its cells in any error."""
    if not file.is_file():
        raise SourceError(f"{file}: no such file")
    try:
        if file.suffix.lower() == ".parquet":
            return pd.read_parquet(file).head(_DRAFT_ROWS)
        with file.open(encoding="utf-8-sig") as stream:
            header = stream.readline()
        separator = max(",;\t|", key=header.count)
        return pd.read_csv(file, sep=separator, nrows=_DRAFT_ROWS, encoding="utf-8-sig")
    except Exception:
        raise SourceError(
            f"{file}: not a readable CSV (UTF-8, one header line) or parquet file"
        ) from None


@main.command(
    "evaluate",
    epilog="Example: ogsrl evaluate --model models/sepsis --cohort elsewhere.csv --out elsewhere",
)
@click.option("--model", required=True, type=_PATH, help="A cohort's folder of models.")
@click.option("--cohort", required=True, type=_PATH, help="Stays that it never saw.")
@click.option("--out", type=_PATH, help="Folder for evaluation.parquet and evaluation.json.")
@click.option("--seed", default=0, show_default=True, help="Of everything drawn.")
@click.option("--json", "as_json", is_flag=True, help="Print evaluation.json.")
def evaluate(model: Path, cohort: Path, out: Path | None, seed: int, as_json: bool) -> None:
    """Measure a model on a cohort that it never saw, without retraining.

    The cohort is a table of stays in the model's own columns and units (CSV, parquet, or a folder
    of them), or a cohort file with a source of its own and the same columns. Its contract is
    judged first, and stays that break it are left out.
    """
    from ogsrl.query.elsewhere import evaluate_elsewhere  # noqa: PLC0415 - others need not wait for torch

    found = evaluate_elsewhere(model, cohort, seed)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            found.rows.to_parquet(out / "evaluation.parquet", index=False)
            text = json.dumps(found.told, indent=2, allow_nan=False) + "\n"
            (out / "evaluation.json").write_text(text, encoding="utf-8")
        except OSError:
            raise SourceError(f"{out}: cannot be written; choose another folder") from None
    if as_json:
        click.echo(json.dumps(found.told, indent=2, allow_nan=False))
        return
    for line in found.sentences:
        click.echo(line)
