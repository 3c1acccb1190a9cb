"""The sections of a file that can be read, though others may be wrong.

Lets every check run whatever else is broken. A name is declared even where its entry is wrong,
so that one mistake is not reported again wherever the name is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ogsrl.spec.model import (
    Action,
    Constraint,
    GuardianColumns,
    Hazard,
    Observation,
    Outcome,
    Protocol,
    Reward,
    Source,
    Static,
    Subgroup,
)
from ogsrl.spec.tree import Tree

Model = TypeVar("Model", bound=BaseModel)
COLUMN_SECTIONS = ("static", "observations", "actions")


@dataclass
class Parts:
    """What can be read of a file."""

    tree: Tree
    static: dict[str, Static]
    observations: dict[str, Observation]
    actions: dict[str, Action]
    constraints: dict[str, Constraint]
    hazards: dict[str, Hazard]
    protocol: Protocol | None
    subgroups: dict[str, Subgroup]
    source: Source | None
    outcome: Outcome | None
    reward: Reward | None
    guardian: GuardianColumns | None

    @property
    def columns(self) -> dict[str, tuple[str, Static]]:
        """Statics and observations that can be read, with their section."""
        statics = {name: ("static", column) for name, column in self.static.items()}
        observed = {name: ("observations", column) for name, column in self.observations.items()}
        return {**statics, **observed}

    def declared(self, *sections: str) -> list[str]:
        """Every name that stands in these sections, readable or not."""
        names: list[str] = []
        for section in sections:
            entries = self.tree.at((section,))
            names += list(entries) if isinstance(entries, dict) else []
        return names

    @property
    def states(self) -> list[str]:
        """Declared statics and observations."""
        return self.declared("static", "observations")

    @property
    def doses(self) -> list[str]:
        """Declared doses."""
        return self.declared("actions")

    def has(self, *path: str | int) -> bool:
        """Whether a key is written in the file."""
        *parent, key = path
        holder = self.tree.at(tuple(parent))
        return isinstance(holder, dict) and key in holder


def read_parts(tree: Tree) -> Parts:
    """Read what can be read."""

    def one(model: type[Model], key: str) -> Model | None:
        return _entry(model, tree.at((key,)))

    def many(model: type[Model], key: str) -> dict[str, Model]:
        entries = tree.at((key,))
        if not isinstance(entries, dict):
            return {}
        read = {name: _entry(model, value) for name, value in entries.items()}
        return {name: entry for name, entry in read.items() if entry is not None}

    return Parts(
        tree=tree,
        static=many(Static, "static"),
        observations=many(Observation, "observations"),
        actions=many(Action, "actions"),
        constraints=many(Constraint, "constraints"),
        hazards=many(Hazard, "hazards"),
        protocol=one(Protocol, "protocol"),
        subgroups=many(Subgroup, "subgroups"),
        source=one(Source, "source"),
        outcome=one(Outcome, "outcome"),
        reward=one(Reward, "reward"),
        guardian=one(GuardianColumns, "guardian"),
    )


def _entry(model: type[Model], value: object) -> Model | None:
    """Read one entry, without the keys that are wrong in themselves: the reader reports those."""
    if not isinstance(value, dict):
        return None
    try:
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    if "kind" in wrong:
        return None  # nothing else can be judged
    kept = {key: item for key, item in value.items() if key not in wrong}
    if "unit" in wrong:
        kept["unit"] = "1"
    try:
        return model.model_validate_json(json.dumps(kept), strict=True)
    except ValidationError:
        return None
