"""How many of the catalogue's corruptions the named rule catches, and alarms on clean cohorts.

Run by hand: python -m benchmarks.corruptions [--quick] [--json FILE]. Figures: corruptions_total,
corruptions_caught, false_alarms.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks._corruptions_catalogue import CATALOGUE
from benchmarks._corruptions_files import FILES, FileCorruption, csv, parquet, timed
from benchmarks._corruptions_kinds import Case, Corruption
from benchmarks._report import arguments, report
from ogsrl.contracts import Contract, Verdict
from ogsrl.errors import SourceError
from ogsrl.sources import SourceSettings, open_source
from ogsrl.sources.simulator import simulate
from ogsrl.spec import Cohort, load_cohort

COHORT = Path(__file__).parents[1] / "data_contracts" / "sepsis.yaml"
#: Informational on clean data too: max_change binds the policy, not history.
INFORMATION = {"max_change"}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one corruption."""

    name: str
    stage: str
    rule: str
    caught: bool
    message: str


def check(case: Case, cohort: Cohort) -> Verdict:
    """The contract's verdict on a case."""
    return Contract(cohort).check(
        case.frame,
        reference=case.reference,
        others={name: [ids] for name, ids in case.others.items()},
    )


def read(cohort: Cohort, path: Path) -> tuple[Case, list[tuple[str, str]]]:
    """A file through the table source: the table, and the warnings with their rules."""
    source = cohort.source.model_copy(update={"kind": "table", "path": str(path), "options": {}})
    reading = open_source(cohort.model_copy(update={"source": source}), SourceSettings())
    frame = pd.concat(list(reading.parts), ignore_index=True)
    return Case(frame), [(warned.rule, warned.message) for warned in reading.warnings]


def judge(corruption: Corruption, clean: Case, cohort: Cohort, seed: int) -> Outcome:
    """Corrupt a clean cohort and see which rule says so."""
    case = corruption.apply(clean, cohort, np.random.default_rng(seed))
    found = {result.key: result.message for result in check(case, cohort).failing}
    message = found.get(corruption.rule, "")
    caught = _is_complete(message, corruption.rule)
    return Outcome(corruption.name, "validate", corruption.rule, caught, message)


def judge_file(corruption: FileCorruption, clean: Case, cohort: Cohort, seed: int) -> Outcome:
    """Write a broken file, read it, and see which rule says so."""
    with tempfile.TemporaryDirectory() as folder:
        path = corruption.write(clean.frame, Path(folder), np.random.default_rng(seed))
        stage, message = "ingest", ""
        try:
            case, warnings = read(cohort, path)
            message = dict(warnings).get(corruption.rule, "")
            if not message:
                stage = "validate"
                found = {result.key: result.message for result in check(case, cohort).failing}
                message = found.get(corruption.rule, "")
        except SourceError as error:
            lines = [li for li in str(error).splitlines() if f"(rule {corruption.rule})" in li]
            message = lines[0] if lines else ""
    caught = _is_complete(message, corruption.rule) if stage == "validate" else _advises(message)
    return Outcome(corruption.name, stage, corruption.rule, caught, message)


def _advises(message: str) -> bool:
    """Whether a source's message names what it is about and says what to do."""
    subject, _, said = message.partition(": ")
    return bool(subject) and ";" in said


def _is_complete(message: str, rule: str) -> bool:
    """Whether a message names the column, how often it was found, and what to do."""
    column = rule.split(":")[1] if ":" in rule else ""
    said = message.removeprefix(column)
    return column in message and any(letter.isdigit() for letter in said) and ";" in said


def false_alarms(cohort: Cohort, patients: int, cohorts: int) -> list[str]:
    """Rules that fail on clean cohorts, also when they come from files."""
    alarms = []
    reference = simulate(patients, 999)
    for seed in range(cohorts):
        frame = simulate(patients, seed)
        case = Case(frame, reference, {"earlier": pd.Series(["another"])})
        alarms += _alarms(case, cohort)
    with tempfile.TemporaryDirectory() as folder:
        frame = simulate(patients, 0)
        for path in (csv(frame, Path(folder)), parquet(frame, Path(folder))):
            case, warnings = read(cohort, path)
            alarms += [*(rule for rule, _ in warnings), *_alarms(case, cohort)]
        case, warnings = read(cohort, csv(timed(frame), Path(folder)))
        alarms += [*(rule for rule, _ in warnings), *_alarms(case, cohort)]
    return alarms


def _alarms(case: Case, cohort: Cohort) -> list[str]:
    failing = check(case, cohort).failing
    return [result.key for result in failing if result.name not in INFORMATION]


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Print the catalogue's table and the figures."""
    options = arguments("corruptions", __doc__).parse_args(argv)
    cohort = load_cohort(COHORT)
    patients, cohorts, every = (600, 1, 9) if options.quick else (3_000, 20, 1)
    clean = Case(simulate(patients, 4_321))
    outcomes = [judge(corruption, clean, cohort, 1) for corruption in CATALOGUE[::every]]
    outcomes += [judge_file(corruption, clean, cohort, 1) for corruption in FILES[::every]]
    width = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        mark = "caught" if outcome.caught else "MISSED"
        print(f"{outcome.name:<{width}}  {outcome.stage:<8}  {mark}  {outcome.rule}")
        print(f"{'':<{width}}            {outcome.message.splitlines()[:1]}")
    alarms = false_alarms(cohort, patients, cohorts)
    for alarm in alarms:
        print(f"false alarm: {alarm}")
    figures = {
        "corruptions_total": float(len(outcomes)),
        "corruptions_caught": float(sum(outcome.caught for outcome in outcomes)),
        "false_alarms": float(len(alarms)),
        "clean_cohorts": float(cohorts),
        "clean_files": 3.0,
    }
    report("corruptions", figures, options.json)
    return figures


if __name__ == "__main__":
    main()
