"""The registry itself: runs and versions in one MLflow, and what is read back out of it.

Called by the stage register and by the command line. Every step may be the last one of an
interrupted call: whoever calls again finds what is whole, and makes the rest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ogsrl.errors import ModelError, OgsrlError
from ogsrl.query.model import check_bundle
from ogsrl.registry.aliases import Aliases
from ogsrl.registry.entry import (
    BEHIND,
    CARD_RUN,
    CHALLENGER,
    CHAMPION,
    EXTERNAL,
    GATE,
    IDENTITY,
    LONGEST,
    MADE_OF,
    PLACED,
    REASON,
    ROLLED_BACK,
    WHOLE,
    Compare,
    Entry,
    Placed,
    as_ours,
    made_of,
    open_inputs,
)

#: The module that loads a version, and where in a run things lie.
LOADER, MODEL, REPORTS = "ogsrl.query.served", "model", "reports"
#: What servers take at once.
BATCH = 100


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
            with as_ours("the registry cannot be opened"):
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
        with as_ours("registering was not ended; run register again, it goes on"):
            run = self._whole_run(entry, experiment)
            if run is None:
                run = self._logged(entry, experiment)
                new = True
            else:
                new = False
            if entry.bundle is None:
                return Placed(run, None, None, "nobody was selected: no version", new)
            version = self._version(entry, entry.bundle, run)
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
        """A new run with everything in it but the model, which is logged once."""
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
        for key, value in {**entry.tags, **entry.told, WHOLE: "yes"}.items():
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

    def _version(self, entry: Entry, bundle: Path, run: str) -> ModelVersion:
        """The one version of this model, whatever card it has by now; it is told the newest."""
        client, name = self.client, entry.name
        try:
            client.get_registered_model(name)
        except MlflowException:
            client.create_registered_model(name)
        found = [one for one in self._alike(name, bundle) if self._is_whole(one)]
        version = found[0] if found else self._new_version(entry, bundle, run)
        for key, value in {**entry.told, CARD_RUN: run}.items():
            client.set_model_version_tag(name, version.version, key, value)
        for key in version.tags:
            if key.startswith(GATE) and key not in entry.told:
                client.delete_model_version_tag(name, version.version, key)
        client.update_model_version(name, version.version, entry.summary[:LONGEST])
        return client.get_model_version(name, version.version)

    def _new_version(self, entry: Entry, bundle: Path, run: str) -> ModelVersion:
        client = self.client
        place = [client.get_run(run).info.experiment_id]
        used = {one.source for one in client.search_model_versions(f"name = '{entry.name}'")}
        for one in client.search_logged_models(place, f"source_run_id = '{run}'"):
            if one.model_uri not in used:  # of an interrupted call, and maybe half
                client.delete_logged_model(one.model_id)
        with mlflow.start_run(run_id=run):
            logged = mlflow.pyfunc.log_model(
                name=MODEL,
                loader_module=LOADER,
                data_path=str(bundle),
                signature=open_inputs(entry.inputs),
                input_example=entry.example,
                pip_requirements=list(entry.requirements),
            )
        tags = {MADE_OF: made_of(bundle)}
        return client.create_model_version(entry.name, logged.model_uri, run, tags)

    def _alike(self, name: str, bundle: Path) -> list[ModelVersion]:
        """Versions of this very model: one, or more where files of the first were changed."""
        found = self.client.search_model_versions(f"name = '{name}'")
        told = made_of(bundle)
        return [one for one in found if one.tags.get(MADE_OF) == told and one.status == "READY"]

    def _is_whole(self, version: ModelVersion) -> bool:
        try:
            self.folder(f"models:/{version.name}/{version.version}")
        except OgsrlError:
            return False
        return True

    def _placed(
        self, entry: Entry, version: ModelVersion, margin: float, compare: Compare | None
    ) -> tuple[str | None, str]:
        """Its alias, once a card: registering again moves nothing, it ends what was begun."""
        aliases, number, tags = self.aliases(entry.name), int(version.version), version.tags
        if tags.get(PLACED) != entry.identity:
            # What an interrupted call meant to give is no longer earned by now, maybe.
            alias, said = self._earned(entry, version, margin, compare)
            told = f"{alias or 'none'}: {said}"[:LONGEST]
            self.client.set_model_version_tag(entry.name, version.version, REASON, told)
            aliases.give(alias, number)
            self.client.set_model_version_tag(entry.name, version.version, PLACED, entry.identity)
        else:
            earned, _, said = tags[REASON].partition(": ")
            alias = None if earned == "none" else earned
        holds = alias is not None and aliases.holder(alias) == number
        return (alias if holds else None), said

    def _earned(
        self, entry: Entry, version: ModelVersion, margin: float, compare: Compare | None
    ) -> tuple[str | None, str]:
        assert entry.bundle is not None  # a version has one
        if entry.verdict != "passed":
            alias = None if entry.verdict == "failed" else CHALLENGER
            return alias, "its audit failed" if alias is None else "its audit is undecided"
        alike = self._alike(entry.name, entry.bundle)
        if any(ROLLED_BACK in one.tags for one in alike):
            return CHALLENGER, "it was champion and rolled back; `ogsrl promote` makes it so again"
        champion = self.aliases(entry.name).holder(CHAMPION)
        if champion is None:
            return CHAMPION, "its audit passed, and nobody was champion"
        if champion in [int(one.version) for one in alike if one.version != version.version]:
            return CHAMPION, f"it is what version {champion} was before its files were changed"
        if champion == int(version.version):
            begun, _, said = version.tags.get(REASON, "").partition(": ")
            return CHAMPION, said if begun == CHAMPION else "it is champion, and its audit passed"
        return self._beside(version, champion, margin, compare)

    def _beside(
        self, version: ModelVersion, champion: int, margin: float, compare: Compare | None
    ) -> tuple[str, str]:
        """Champion, if it is surely not worse than the one that is."""
        name = version.name
        if compare is None:
            return CHALLENGER, f"nothing compares it with version {champion}, the champion"
        least, said = compare(self.folder(f"models:/{name}/{champion}"))
        if least is not None:
            said += f", lower bound asked: above {margin:g}"
            if least > margin:
                if BEHIND in version.tags:  # of an older card
                    self.client.delete_model_version_tag(name, version.version, BEHIND)
                return CHAMPION, f"its audit passed, and than version {champion}: {said}"
            self.client.set_model_version_tag(name, version.version, BEHIND, str(champion))
        return CHALLENGER, f"not surely as good as version {champion}, the champion: {said}"

    def aliases(self, name: str) -> Aliases:
        """Of a registered model."""
        return Aliases(self.client, name)

    def rollback(self, name: str) -> tuple[int, int]:
        """Give the alias back to the champion before; (from, to)."""
        with as_ours(f"{name}: not rolled back"):
            return self.aliases(name).rollback()

    def promote(self, name: str, version: int, reason: str) -> None:
        """Make a version champion that nothing can compare with the one that is."""
        with as_ours(f"{name}: version {version} was not promoted"):
            self.folder(f"models:/{name}/{version}")  # or refuse it, if its files were changed
            self.aliases(name).promote(version, reason)

    def note_external(self, uri: str, told: Mapping[str, Any], said: str) -> str:
        """With its version: what it came to on a cohort that it never saw; the tag's name.

        The same answer noted again is the same tag.
        """
        with as_ours(f"{uri}: what was found is not noted there"):
            version = self._version_at(uri)
            hashed = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
            tag = EXTERNAL + hashed[:8]
            self.client.set_model_version_tag(version.name, version.version, tag, said[:LONGEST])
            return f"{tag} of version {version.version}"

    def folder(self, uri: str) -> Path:
        """Where a registered model's own folder lies, fetched if it lies elsewhere.

        Every file in it is what was registered, or it is refused.
        """
        with as_ours(f"{uri}: no such model; e.g. models:/sepsis@champion or models:/sepsis/1"):
            version = self._version_at(uri)
            at = Path(
                mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}")
            )
            flavor = mlflow.models.Model.load(str(at)).flavors["python_function"]
        folder = at / str(flavor["data"])
        check_bundle(folder)
        if version.tags.get(MADE_OF, made_of(folder)) != made_of(folder):  # older ones have none
            raise ModelError(
                f"{uri}: manifest.json is not what was registered; somebody changed the model, "
                "register it again"
            )
        return folder

    def _version_at(self, uri: str) -> ModelVersion:
        """By its address: models:/NAME@ALIAS or models:/NAME/VERSION."""
        name, _, which = uri.removeprefix("models:/").replace("@", "/@").partition("/")
        if which.startswith("@"):
            return self.client.get_model_version_by_alias(name, which.removeprefix("@"))
        return self.client.get_model_version(name, which)

    def card(self, name: str, version: int) -> dict[str, Any]:
        """A version's newest card."""
        with as_ours(f"{name}: version {version} has no card"):
            return dict(json.loads(self._report(name, version, "card.json")))

    def figure(self, name: str, version: int, file: str) -> str:
        """A version's figure, of its newest card; empty where it has none."""
        try:
            return self._report(name, version, f"figures/{file}")
        except (MlflowException, OSError):
            return ""

    def _report(self, name: str, version: int, file: str) -> str:
        found = self.client.get_model_version(name, str(version))
        run = str(found.tags.get(CARD_RUN, found.run_id))
        with tempfile.TemporaryDirectory() as folder:
            at = self.client.download_artifacts(run, f"{REPORTS}/{file}", folder)
            return Path(at).read_text(encoding="utf-8")


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
