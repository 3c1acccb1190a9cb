"""`./run STAGE`: finds the stage by name and runs it. Imports only the stage that is asked for."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import click

from ogsrl.errors import OgsrlError
from pipelines.params import COHORT_NAME, read_params
from pipelines.stage import Stage, run_stage

STAGES = {
    "source": "fingerprints of the cohort's foreign files -> data/NAME/source.json",
    "ingest": "the cohort's source -> data/NAME/raw/, reports/NAME/cohort.json",
    "validate": "the contract -> data/NAME/validated/, reports/NAME/validation.json, Data Docs",
    "prepare": "split, transforms, costs -> data/NAME/prepared/, reports/NAME/dataset.json",
    "behaviour": "the clinicians' policy -> models/NAME/behaviour/, reports/NAME/behaviour.json",
    "dynamics": "what patients do next -> models/NAME/dynamics/, reports/NAME/dynamics.json",
    "guardian": "where the data end -> models/NAME/guardian/, reports/NAME/guardian.json",
    "train": "policies -> models/NAME/policies/ALGORITHM/, reports/NAME/train_ALGORITHM.json",
    "select": "who is put forward -> models/NAME/selected/, reports/NAME/selection.json",
    "evaluate": "what policies come to, on test patients -> reports/NAME/evaluation.{parquet,json}",
    "audit": "whether who was selected passes: gates, verdict -> reports/NAME/audit.json",
    "register": "the audited model -> MLflow: run, version, alias; reports/NAME/registration.json",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    r"""Run one stage of the pipeline, or `repro` for all that changed.

    \b
    Example: ./run validate --cohort sepsis
    Exit status: 0 done; 1 the data or a setting is wrong; 2 wrong usage; 70 a defect.
    """


def _command(name: str, what: str) -> click.Command:
    @click.option("--cohort", help="Name of a file in data_contracts/; default: params.yaml's.")
    def command(cohort: str | None, algorithm: str | None = None) -> None:
        if algorithm is not None and not re.fullmatch(COHORT_NAME, algorithm):
            print("--algorithm: small letters, digits and _, as in params.yaml", file=sys.stderr)
            sys.exit(1)
        module = importlib.import_module(f"pipelines.{name}")
        sys.exit(run_stage(Stage(name, _cohort(cohort), item=algorithm), module.run))

    if name == "train":
        command = click.option("--algorithm", help="One of params.yaml's; default: all of them.")(
            command
        )
    return click.command(name, help=f"{what}\n\nExample: ./run {name} --cohort sepsis")(command)


def _cohort(name: str | None) -> str:
    """A cohort's name that is safe in a path, from the option or from params.yaml."""
    try:
        found = name if name is not None else read_params(Path("params.yaml")).get("cohort")
    except OgsrlError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    if not isinstance(found, str) or not re.fullmatch(COHORT_NAME, found):
        print(
            "cohort: must be the name of a file in data_contracts/ (small letters, digits and _), "
            "in params.yaml or after --cohort",
            file=sys.stderr,
        )
        sys.exit(1)
    return found


for _name, _what in STAGES.items():
    main.add_command(_command(_name, _what))


@main.command("repro")
@click.option("--cohort", help="Name of a file in data_contracts/; default: params.yaml's.")
def _repro(cohort: str | None) -> None:
    """Run every stage whose inputs changed.

    Example: ./run repro --cohort sepsis
    """
    from pipelines import repro  # noqa: PLC0415 - stages must not wait for what they do not use

    try:
        sys.exit(repro.run(_cohort(cohort), Path.cwd()))
    except OgsrlError as error:
        print(f"repro: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="./run")
