"""The `ogsrl` command: one group a topic, each command a few lines around the library.

A mistake that a user can mend ends with exit code 2 and a message on stderr, never a traceback;
a defect of the program with 70, without its message, which could quote a patient's value.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pandas as pd

from ogsrl.errors import DEFECT, OgsrlError, SourceError, without_values
from ogsrl.spec import Cohort, CohortFileError, load_cohort
from ogsrl.spec.draft import draft
from ogsrl.spec.hints import hints
from ogsrl.spec.show import show

if TYPE_CHECKING:
    from ogsrl.audit.card import Card
    from ogsrl.registry import Registry

MISTAKE = 2
_DRAFT_ROWS = 500_000
_PATH = click.Path(path_type=Path)
_IDS = ("stay_id", "patient_id")


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
    rows = _read_table(file, _DRAFT_ROWS)
    text = draft(rows, name=name or file.stem, path=str(file), doses=doses)
    if out is None:
        click.echo(text, nl=False)
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError:
            raise SourceError(f"{out}: cannot be written; does its folder exist?") from None
        click.echo(f"{out}: drafted; read every line marked `guess`, then `ogsrl spec check {out}`")


def _read_table(file: Path, most: int | None) -> pd.DataFrame:
    """The first rows of a table, or all of it, without its cells in any error.

    Ids are text whatever they look like: 007 is not 7, and NA is somebody.
    """
    if not file.is_file():
        raise SourceError(f"{file}: no such file")
    try:
        if file.suffix.lower() == ".parquet":
            rows = pd.read_parquet(file)
            return rows if most is None else rows.head(most)
        with file.open(encoding="utf-8-sig") as stream:
            header = stream.readline()
        separator = max(",;\t|", key=header.count)
        utf = "utf-8-sig"
        rows = pd.read_csv(file, sep=separator, nrows=most, encoding=utf, low_memory=False)
        ids = pd.read_csv(
            file,
            sep=separator,
            nrows=most,
            encoding=utf,
            usecols=lambda name: name in _IDS,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
        )
        for name in ids:
            rows[name] = ids[name].to_numpy()
        return rows
    except Exception:
        raise SourceError(
            f"{file}: not a readable CSV (UTF-8, one header line) or parquet file"
        ) from None


_MODEL = "models:/NAME@champion, models:/NAME/VERSION, or a cohort's folder of models."


@main.command(
    "evaluate",
    epilog="Example: ogsrl evaluate --model models/sepsis --cohort elsewhere.csv --out elsewhere",
)
@click.option("--model", required=True, help=_MODEL)
@click.option("--cohort", required=True, type=_PATH, help="Stays that it never saw.")
@click.option("--out", type=_PATH, help="Folder for evaluation.parquet and evaluation.json.")
@click.option("--seed", default=0, show_default=True, help="Of everything drawn.")
@click.option("--json", "as_json", is_flag=True, help="Print evaluation.json.")
def evaluate(model: str, cohort: Path, out: Path | None, seed: int, as_json: bool) -> None:
    """Measure a model on a cohort that it never saw, without retraining.

    The cohort is a table of stays in the model's own columns and units (CSV, parquet, or a folder
    of them), or a cohort file with a source of its own and the same columns. Its contract is
    judged first, and stays that break it are left out. What a registered model came to is noted
    with its version, as a tag `ogsrl.external.<hash of the figures>`.
    """
    from ogsrl.query.elsewhere import evaluate_elsewhere  # noqa: PLC0415 - others need not wait for torch

    found = evaluate_elsewhere(_folder(model), cohort, seed)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            found.rows.to_parquet(out / "evaluation.parquet", index=False)
            text = json.dumps(found.told, indent=2, allow_nan=False) + "\n"
            (out / "evaluation.json").write_text(text, encoding="utf-8")
        except OSError:
            raise SourceError(f"{out}: cannot be written; choose another folder") from None
    lines = [json.dumps(found.told, indent=2, allow_nan=False)] if as_json else found.sentences
    for line in lines:
        click.echo(line)
    if model.startswith("models:"):
        tag = _registry().note_external(model, found.told, "; ".join(found.sentences))
        click.echo(f"noted in the registry: {tag}", err=True)


@main.command(epilog="Example: ogsrl query --model models:/sepsis@champion --cohort rows.csv")
@click.option("--model", required=True, help=_MODEL)
@click.option("--cohort", required=True, type=_PATH, help="Rows: CSV or parquet.")
@click.option("--stay", help="One stay: its answers, and a page under private/.")
@click.option("--similar", is_flag=True, help="Add what patients like this were given.")
@click.option("--out", type=_PATH, help="Every answer: a CSV or parquet file.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def query(
    model: str, cohort: Path, stay: str | None, similar: bool, out: Path | None, as_json: bool
) -> None:
    """Ask a policy what it recommends, row by row, in clinical units.

    Rows are whole stays from step 0, with what was charted before each dose and the doses given
    so far. Answers go to --out; what is printed are counts.
    """
    from ogsrl.query.answer import ask, summary  # noqa: PLC0415 - others need not wait for torch
    from ogsrl.query.model import Model  # noqa: PLC0415
    from ogsrl.query.page import stay_page  # noqa: PLC0415

    asked = Model.load(_folder(model))
    rows = _read_table(cohort, None)
    if cohort.suffix.lower() != ".parquet":
        rows = _numbers_told(rows, asked.cohort)
    if stay is not None:
        rows = _of_stay(rows, stay, cohort)
    answers = ask(asked, rows, similar=similar)
    told = summary(answers)
    if out is not None:
        _write_answers(answers, out)
    if stay is not None:
        page = Path("private") / asked.cohort.name / f"stay_{_digest(stay)}.html"
        _write(page, stay_page(asked, rows, answers, stay))
        told["page"] = str(page)
    if as_json:
        click.echo(json.dumps(told, indent=2, allow_nan=False))
        return
    share = told["deferred"] / told["rows"]
    click.echo(f"{told['rows']:,} rows of {told['stays']:,} stays: {told['recommended']:,} doses")
    click.echo(f"deferred to the clinician: {told['deferred']:,} ({share:.1%})")
    for rule, count in told["rules"].items():
        click.echo(f"  {rule}: {count:,}")
    if "page" in told:
        click.echo(f"page: {told['page']}")


@main.command(epilog="Example: ogsrl serve --model models:/sepsis@champion --port 5001")
@click.option("--model", required=True, help="models:/NAME@champion or models:/NAME/VERSION.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option("--port", default=5001, show_default=True, help="Of it.")
@click.option("--workers", default=2, show_default=True, help="Processes that answer.")
def serve(model: str, host: str, port: int, workers: int) -> None:
    """Answer over HTTP as `mlflow models serve` does, without a row in any error."""
    from ogsrl.query import service  # noqa: PLC0415 - others need not wait for the server

    service.serve(_registry().folder(model), host, port, workers)


@main.command(epilog="Example: ogsrl rollback sepsis")
@click.argument("name")
def rollback(name: str) -> None:
    """Give the alias `champion` back to the version that had it before."""
    now, earlier = _registry().rollback(name)
    click.echo(f"{name}: champion is version {earlier} again, no longer {now}")


@main.command(epilog="Example: ogsrl promote sepsis 2 --reason 'new data; reviewed on 3 May'")
@click.argument("name")
@click.argument("version", type=int)
@click.option("--reason", required=True, help="Kept with the version; name no patient.")
def promote(name: str, version: int, reason: str) -> None:
    """Make a VERSION champion whose audit passed, and that nothing compares with the present one.

    As after data or preparation changed: two models that were prepared otherwise cannot be asked
    about the same rows.
    """
    _registry().promote(name, version, reason)
    click.echo(f"{name}: champion is version {version}")


@main.command(epilog="Example: ogsrl compare sepsis 1 2 --out compare.html")
@click.argument("name")
@click.argument("versions", nargs=2, type=int)
@click.option("--out", type=_PATH, help="A page with both cards, gates and dose planes.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def compare(name: str, versions: tuple[int, int], out: Path | None, as_json: bool) -> None:
    """Two registered versions side by side: verdicts, gates, results, dose planes."""
    from ogsrl.audit.compared import compared, page  # noqa: PLC0415

    registry = _registry()
    left, right = (_card(registry, name, one) for one in versions)
    lines = compared(left, right)
    if out is not None:
        planes = [registry.figure(name, one, "evaluate_plane.svg") for one in versions]
        _write(out, page(name, versions, lines, planes))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in lines], indent=2, allow_nan=False))
        return
    for one in lines:
        sign = " " if one.left == one.right else "*"
        click.echo(f"{sign} {one.what}: {one.left} | {one.right}")


def _registry() -> Registry:
    """As MLFLOW_TRACKING_URI says; by default mlflow.db here."""
    from ogsrl.registry import Registry  # noqa: PLC0415

    home = Path(os.environ.get("OGSRL_HOME", ".")).absolute()
    uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    return Registry.open(uri, home)


def _folder(model: str) -> Path:
    """Of a model by its registered name, or itself."""
    return _registry().folder(model) if model.startswith("models:") else Path(model)


def _numbers_told(rows: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """Rows of a CSV, where one bad cell makes text of a whole column: numbers again where they are.

    What is wrong stays as it is, and so does a level's name.
    """
    states = {name: column.levels for name, column in cohort.states.items()}
    levels = {"step": (), **states, **{n: action.levels for n, action in cohort.actions.items()}}
    made = {}
    for name in rows.columns.intersection([*levels]):
        if pd.api.types.is_string_dtype(rows[name]):
            numbers = pd.to_numeric(rows[name], errors="coerce")
            told = numbers.notna() & ~rows[name].isin(levels[name])
            made[name] = rows[name].astype(object).mask(told, numbers)
    return rows.assign(**made)


def _card(registry: Registry, name: str, version: int) -> Card:
    from ogsrl.audit.card import Card  # noqa: PLC0415

    try:
        return Card.model_validate(registry.card(name, version))
    except ValueError:  # pydantic's and JSON's: they repeat what they could not take
        raise OgsrlError(
            f"{name}: the card of version {version} is of another release of ogsrl and cannot be "
            "read by this one; run stages audit and register again for that model"
        ) from None


def _of_stay(rows: pd.DataFrame, stay: str, file: Path) -> pd.DataFrame:
    if "stay_id" not in rows:
        raise SourceError(f"{file.name}: stay_id: the column is missing")
    found = rows[rows["stay_id"].astype(str) == stay].reset_index(drop=True)
    if not len(found):
        raise SourceError(f"{file.name}: no such stay in it")
    return found


def _write_answers(answers: pd.DataFrame, out: Path) -> None:
    typed = answers.convert_dtypes()
    beside = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix.lower() == ".parquet":
            typed.to_parquet(beside, index=False)
        else:
            typed.to_csv(beside, index=False)
        beside.replace(out)
    except OSError:
        raise SourceError(f"{out}: cannot be written; choose another file") from None


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError:
        raise SourceError(f"{file}: cannot be written; choose another file") from None


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]
