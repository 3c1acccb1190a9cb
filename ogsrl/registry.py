"""The registry: runs, versions and aliases in MLflow, and nobody else knows MLflow.

Called by the stage register and by the command line. What is registered holds weights, moments,
cells and the cohort file, and never a row; what was begun and not ended is begun anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from ogsrl.errors import OgsrlError

CHAMPION, CHALLENGER = "champion", "challenger"
#: Of a version or run.
IDENTITY, VERDICT, CARD = "ogsrl.identity", "ogsrl.verdict", "ogsrl.card_sha256"
WHOLE, PLACED = "ogsrl.whole", "ogsrl.placed"
GATE, REASON, EXTERNAL = "ogsrl.gate.", "ogsrl.alias", "ogsrl.external."
#: Of a registered model: versions that were champion, oldest first.
CHAMPIONS = "ogsrl.champions"
#: The module that loads a version, and where in a run things lie.
LOADER, MODEL, REPORTS = "ogsrl.query.served", "model", "reports"
#: What servers take at once, and the longest description.
BATCH, LONGEST = 100, 4_900


@dataclass(frozen=True)
class Entry:
    """What is registered.

    Attributes:
        name: The cohort's.
        identity: Of model and card together: the same is registered once.
        verdict: Of the audit.
        gates: Verdict by gate.
        summary: For the version's description.
        card_sha256: Of card.json.
        bundle: The model's folder; None: a run is logged, and no version made.
        inputs: Columns that the model takes.
        example: Rows of nobody.
        requirements: Pinned packages.
        reports: Files and folders that are kept with the run.
        params: Of the pipeline, flat.
        metrics: Flat.
        datasets: sha256 by name of what it was made of.
        tags: E.g. revisions.
    """

    name: str
    identity: str
    verdict: str
    gates: Mapping[str, str]
    summary: str
    card_sha256: str
    bundle: Path | None
    inputs: Sequence[str]
    example: pd.DataFrame
    requirements: Sequence[str]
    reports: Sequence[Path]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    datasets: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Placed:
    """What came of it.

    Attributes:
        run: Its id.
        version: None where no version was made.
        alias: champion, challenger, or None.
        said: Why that one.
        new: Whether it was not there before.
    """

    run: str
    version: int | None
    alias: str | None
    said: str
    new: bool


#: The least that a version may be better than the champion, on the same patients; and in words.
Compare = Callable[[Path], tuple[float | None, str]]


@dataclass(frozen=True)
class Registry:
    """One MLflow.

    Attributes:
        client: Of its tracking URI.
        home: Where artifacts lie if it is a local database.
    """

    client: MlflowClient
    home: Path

    @classmethod
    def open(cls, uri: str, home: Path) -> Registry:
        """Open, and make its database if there is none; one process at a time."""
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        if "://" not in uri:
            raise OgsrlError(
                f"MLFLOW_TRACKING_URI: {uri} is no URI; e.g. sqlite:////path/mlflow.db"
            )
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with _told("the registry cannot be opened"):
                client = MlflowClient(tracking_uri=uri, registry_uri=uri)
                client.search_experiments(max_results=1)
        return cls(client, home)

    def register(
        self, entry: Entry, experiment: str, margin: float, compare: Compare | None
    ) -> Placed:
        """A run, a version, its tags, its alias; whatever of it is there already stays.

        Args:
            entry: What.
            experiment: The experiment's name.
            margin: The least lower bound of its advantage over the champion.
            compare: Its advantage over the model in a folder; None: there is nothing to compare.
        """
        with _told("registering was not ended; run register again, it goes on"):
            run = self._whole_run(entry, experiment)
            if run is None:
                run = self._logged(entry, experiment)
                new = True
            else:
                new = False
            if entry.bundle is None:
                return Placed(run, None, None, "nobody was selected: no version", new)
            version = self._version(entry, run)
            alias, said = self._placed(entry, version, margin, compare)
            return Placed(run, int(version.version), alias, said, new)

    def _whole_run(self, entry: Entry, experiment: str) -> str | None:
        """The run that has all of it already; one that was interrupted is taken away."""
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            return None
        runs = self.client.search_runs(
            [found.experiment_id], f"tags.`{IDENTITY}` = '{entry.identity}'"
        )
        whole = [run.info.run_id for run in runs if run.data.tags.get(WHOLE) == "yes"]
        for run in runs:
            if run.info.run_id not in whole:
                self.client.delete_run(run.info.run_id)
        return whole[0] if whole else None

    def _logged(self, entry: Entry, experiment: str) -> str:
        """A new run with everything in it."""
        client = self.client
        place = self._experiment(experiment)
        run = client.create_run(
            place, run_name=f"{entry.name} {entry.identity[:8]}", tags={IDENTITY: entry.identity}
        ).info
        time = run.start_time
        params = [Param(key, value) for key, value in entry.params.items()]
        metrics = [Metric(key, value, time, 0) for key, value in entry.metrics.items()]
        for some in _batches(params):
            client.log_batch(run.run_id, params=some)
        for some in _batches(metrics):
            client.log_batch(run.run_id, metrics=some)
        sets = [
            Dataset(name, sha[:32], "local", json.dumps({"name": name}))
            for name, sha in entry.datasets.items()
        ]
        client.log_inputs(run.run_id, [DatasetInput(one) for one in sets])
        for one in entry.reports:
            put = client.log_artifacts if one.is_dir() else client.log_artifact
            inside = f"{REPORTS}/{one.name}" if one.is_dir() else REPORTS
            put(run.run_id, str(one), inside)
        if entry.bundle is not None:
            self._log_model(entry, run.run_id)
        tags = {**entry.tags, VERDICT: entry.verdict, CARD: entry.card_sha256}
        for key, value in {**tags, **_gate_tags(entry), WHOLE: "yes"}.items():
            client.set_tag(run.run_id, key, value)
        client.set_terminated(run.run_id)
        return str(run.run_id)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise OgsrlError(f"registry.experiment: {name} was deleted in MLflow; restore it")
            return str(found.experiment_id)
        local = mlflow.get_tracking_uri().startswith("sqlite:")
        place = (self.home / "mlartifacts" / name).as_uri() if local else None
        return str(self.client.create_experiment(name, artifact_location=place))

    def _log_model(self, entry: Entry, run: str) -> None:
        with mlflow.start_run(run_id=run):
            mlflow.pyfunc.log_model(
                name=MODEL,
                loader_module=LOADER,
                data_path=str(entry.bundle),
                signature=open_inputs(entry.inputs),
                input_example=entry.example,
                pip_requirements=list(entry.requirements),
            )

    def _version(self, entry: Entry, run: str) -> ModelVersion:
        """The one version of this run."""
        client = self.client
        try:
            client.get_registered_model(entry.name)
        except MlflowException:
            client.create_registered_model(entry.name)
        found = [
            one
            for one in client.search_model_versions(f"name = '{entry.name}'")
            if one.run_id == run and one.status == "READY"
        ]
        if found:
            version = found[0]
        else:
            models = client.search_logged_models(
                [client.get_run(run).info.experiment_id], f"source_run_id = '{run}'"
            )
            source = models[0].model_uri
            version = client.create_model_version(
                entry.name, source, run, description=entry.summary[:LONGEST]
            )
        tags = {VERDICT: entry.verdict, CARD: entry.card_sha256, IDENTITY: entry.identity}
        for key, value in {**tags, **_gate_tags(entry)}.items():
            client.set_model_version_tag(entry.name, version.version, key, value)
        return client.get_model_version(entry.name, version.version)

    def _placed(
        self, entry: Entry, version: ModelVersion, margin: float, compare: Compare | None
    ) -> tuple[str | None, str]:
        """Its alias, once and for all: registering again moves nothing, it ends what was begun."""
        client, number = self.client, int(version.version)
        if REASON in version.tags:
            earned, _, said = version.tags[REASON].partition(": ")
        else:
            alias, said = self._earned(entry, margin, compare)
            earned = alias or "none"
            told = f"{earned}: {said}"[:LONGEST]
            client.set_model_version_tag(entry.name, version.version, REASON, told)
        if PLACED not in version.tags:
            if earned != "none":
                client.set_registered_model_alias(entry.name, earned, version.version)
            if earned == CHAMPION and number not in self.champions(entry.name):
                self._note_champion(entry.name, number)
            client.set_model_version_tag(entry.name, version.version, PLACED, "yes")
        holds = earned != "none" and self.holder(entry.name, earned) == number
        return (earned if holds else None), said

    def _earned(
        self, entry: Entry, margin: float, compare: Compare | None
    ) -> tuple[str | None, str]:
        if entry.verdict == "failed":
            return None, "its audit failed"
        if entry.verdict != "passed":
            return CHALLENGER, "its audit is undecided"
        champion = self.holder(entry.name, CHAMPION)
        if champion is None:
            return CHAMPION, "its audit passed, and nobody was champion"
        if compare is None:
            return CHALLENGER, f"nothing compares it with version {champion}, the champion"
        least, said = compare(self.folder(f"models:/{entry.name}/{champion}"))
        if least is not None and least > margin:
            return CHAMPION, f"its audit passed, and than version {champion}: {said}"
        return CHALLENGER, f"not surely as good as version {champion}, the champion: {said}"

    def _note_champion(self, name: str, version: int) -> None:
        before = self.champions(name)
        told = ",".join(map(str, [*before, version]))
        self.client.set_registered_model_tag(name, CHAMPIONS, told)

    def champions(self, name: str) -> list[int]:
        """Versions that were champion, oldest first, the present one last."""
        tags = self._model(name).tags
        return [int(one) for one in tags.get(CHAMPIONS, "").split(",") if one]

    def holder(self, name: str, alias: str) -> int | None:
        """The version with this alias."""
        held = self._model(name).aliases.get(alias)
        return None if held is None else int(held)

    def rollback(self, name: str) -> tuple[int, int]:
        """Give the alias back to the champion before; (from, to)."""
        with _told(f"{name}: not rolled back"):
            before = self.champions(name)
            if len(before) < 2:
                raise OgsrlError(
                    f"{name}: no champion came before version {before[-1]}"
                    if before
                    else f"{name}: there is no champion"
                )
            now, earlier = before[-1], before[-2]
            self.client.set_registered_model_alias(name, CHAMPION, str(earlier))
            self.client.set_model_version_tag(name, str(now), "ogsrl.rolled_back", "yes")
            told = ",".join(map(str, before[:-1]))
            self.client.set_registered_model_tag(name, CHAMPIONS, told)
            return now, earlier

    def note_external(self, uri: str, told: Mapping[str, Any], said: str) -> str:
        """With its version: what it came to on a cohort that it never saw; the tag's name.

        The same answer noted again is the same tag.
        """
        name, _, which = uri.removeprefix("models:/").replace("@", "/@").partition("/")
        with _told(f"{uri}: what was found is not noted there"):
            version = (
                self.client.get_model_version_by_alias(name, which.removeprefix("@")).version
                if which.startswith("@")
                else which
            )
            hashed = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
            tag = EXTERNAL + hashed[:8]
            self.client.set_model_version_tag(name, version, tag, said)
            return f"{tag} of version {version}"

    def folder(self, uri: str) -> Path:
        """Where a registered model's own folder lies, fetched if it lies elsewhere."""
        with _told(f"{uri}: no such model; e.g. models:/sepsis@champion or models:/sepsis/1"):
            at = Path(mlflow.artifacts.download_artifacts(uri))
            flavor = mlflow.models.Model.load(str(at)).flavors["python_function"]
            return at / str(flavor["data"])

    def card(self, name: str, version: int) -> dict[str, Any]:
        """A version's card."""
        with _told(f"{name}: version {version} has no card"):
            run = str(self.client.get_model_version(name, str(version)).run_id)
            with tempfile.TemporaryDirectory() as folder:
                file = self.client.download_artifacts(run, f"{REPORTS}/card.json", folder)
                found: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
                return found

    def figure(self, name: str, version: int, file: str) -> str:
        """A version's figure; empty where it has none."""
        run = str(self.client.get_model_version(name, str(version)).run_id)
        with tempfile.TemporaryDirectory() as folder:
            try:
                at = self.client.download_artifacts(run, f"{REPORTS}/figures/{file}", folder)
            except (MlflowException, OSError):
                return ""
            return Path(at).read_text(encoding="utf-8")

    def _model(self, name: str) -> Any:
        try:
            return self.client.get_registered_model(name)
        except MlflowException:
            raise OgsrlError(f"{name}: nothing of this name is registered") from None


def open_inputs(columns: Sequence[str]) -> ModelSignature:
    """Columns by name, of any type, none of them asked for: MLflow's own refusals repeat rows."""
    anything = AnyType()  # type: ignore[no-untyped-call]
    specs: list[ColSpec | TensorSpec] = [ColSpec(anything, one, required=False) for one in columns]
    similar = ParamSpec("similar", DataType.boolean, False)
    return ModelSignature(inputs=Schema(specs), params=ParamSchema([similar]))


def _gate_tags(entry: Entry) -> dict[str, str]:
    return {GATE + name: verdict for name, verdict in entry.gates.items()}


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """MLflow's errors as ours: what was tried, and which kind of error it was."""
    try:
        yield
    except MlflowException as error:
        raise OgsrlError(f"{what} ({error.error_code})") from None
