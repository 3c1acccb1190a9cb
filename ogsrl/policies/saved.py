"""The directory of a policy, of whatever form: networks, a constant, clinicians', or none.

Called by training, selection and query. It holds what the actor needs and what it was made for;
never a row of a patient.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ogsrl.behaviour.distribution import Marginal
from ogsrl.behaviour.doses import DoseGrid
from ogsrl.behaviour.policy import Behaviour
from ogsrl.errors import ModelError
from ogsrl.modeldir import load_model, rebuilding, save_model
from ogsrl.policies.actors import (
    ConstantActor,
    DenoisedActor,
    LevelsActor,
    MarginalActor,
    NetworkActor,
    ProtocolActor,
    TableActor,
    check_fits,
    check_table,
)
from ogsrl.policies.codes import DoseLevels, StateCodes
from ogsrl.policies.deployed import Actor
from ogsrl.policies.networks import Perceptrons, Shape
from ogsrl.preparation.history import History
from ogsrl.spec import Protocol

KIND = "policy"
_Parts = tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]


def save_policy(
    directory: Path, actor: Actor | None, history: History, about: Mapping[str, Any]
) -> None:
    """Write a policy.

    Args:
        directory: Where.
        actor: What proposes; None: `no policy`, which always defers.
        history: The layout of states that it takes.
        about: How it came to be (algorithm, seed, step): plain JSON, nothing of a patient.
    """
    told = dict(about)
    try:
        same = json.loads(json.dumps(told, allow_nan=False)) == told
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ModelError("policy: `about` is not plain JSON; numbers, words, lists and maps alone")
    config, arrays = _parts(actor, history)
    made_for = {
        "states": list(history.names),
        "doses": list(history.preparation.doses),
        "transforms": history.preparation.fingerprint,
    }
    save_model(directory, KIND, {"about": told, **made_for, **config}, arrays)


def load_policy(
    directory: Path, history: History, behaviour: Behaviour | None = None
) -> tuple[Actor | None, dict[str, Any]]:
    """An actor and what was told about it.

    Args:
        directory: Where `save_policy` wrote.
        history: The layout of states: another than it was made for is refused.
        behaviour: The clinicians' policy, for the form that is made of it.
    """
    config, arrays = load_model(directory, KIND)
    with rebuilding(directory):
        _check_made_for(config, history)
        actor = _rebuilt(config, arrays, history, behaviour)
        if isinstance(actor, NetworkActor | LevelsActor):
            check_fits(actor, history)
        if isinstance(actor, TableActor):
            check_table(actor, history)
        return actor, dict(config["about"])


def _check_made_for(config: Mapping[str, Any], history: History) -> None:
    made = history.preparation
    if (config["states"], config["doses"]) != (list(history.names), list(made.doses)):
        raise ModelError(
            "policy: made for other state columns or doses, or in another order; train it again"
        )
    if config["transforms"] != made.fingerprint:
        raise ModelError(
            "policy: transforms.json or the levels of a column are not those it was made for; "
            "train it again"
        )


def _parts(actor: Actor | None, history: History) -> _Parts:
    """Config and arrays of an actor."""
    match actor:
        case None:
            return {"form": "none"}, {}
        case NetworkActor() | LevelsActor():
            check_fits(actor, history)
            config: dict[str, Any] = {
                "form": "network",
                "shape": asdict(actor.networks.shape),
                "coded": actor.codes is not None,
            }
            if isinstance(actor, LevelsActor):
                config |= {"form": "levels", "flexibility": actor.flexibility}
            return config, {"parameters": actor.networks.flat.detach().cpu().numpy()}
        case TableActor():
            check_table(actor, history)
            return {"form": "table"}, {"cells": actor.cells.numpy()}
        case ConstantActor() | MarginalActor() | DenoisedActor() | ProtocolActor():
            return _plain_parts(actor)
    raise ModelError(f"policy: an actor of class {type(actor).__name__} has no form on disk")


def _plain_parts(
    actor: ConstantActor | MarginalActor | DenoisedActor | ProtocolActor,
) -> _Parts:
    """The same of a policy that learned nothing."""
    match actor:
        case ConstantActor():
            return {"form": "constant", "value": list(actor.doses)}, {}
        case MarginalActor():
            made = actor.marginal
            logs = {f"marginal.{j}": log.numpy() for j, log in enumerate(made.log_weights)}
            return {"form": "marginal", "grids": [grid.config() for grid in made.grids]}, logs
        case ProtocolActor():
            return {"form": "protocol", "protocol": actor.protocol.model_dump(mode="json")}, {}
        case DenoisedActor():
            return {"form": "denoised", "behaviour": _identity(actor.behaviour)}, {}


def _rebuilt(
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray[Any, Any]],
    history: History,
    behaviour: Behaviour | None,
) -> Actor | None:
    match config["form"]:
        case "none":
            return None
        case "network" | "levels" as form:
            networks = Perceptrons(Shape(**config["shape"]), torch.tensor(arrays["parameters"]))
            codes = StateCodes.of(history) if config["coded"] else None
            if form == "network":
                return NetworkActor(networks, codes)
            return LevelsActor(networks, DoseLevels.of(history), codes, config["flexibility"])
        case "table":
            return TableActor(torch.tensor(arrays["cells"]), DoseLevels.of(history))
    return _plain_rebuilt(config, arrays, history, behaviour)


def _plain_rebuilt(
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray[Any, Any]],
    history: History,
    behaviour: Behaviour | None,
) -> Actor:
    match config["form"]:
        case "constant":
            return ConstantActor(tuple(config["value"]))
        case "marginal":
            grids = tuple(DoseGrid.from_config(grid) for grid in config["grids"])
            logs = tuple(torch.tensor(arrays[f"marginal.{j}"]) for j in range(len(grids)))
            return MarginalActor(Marginal(grids, logs))
        case "protocol":
            return ProtocolActor.of(history, Protocol.model_validate(config["protocol"]))
        case "denoised":
            if behaviour is None or config["behaviour"] != _identity(behaviour):
                raise ModelError(
                    "policy: clinicians without their variation, made from a fitted behaviour "
                    "that is not here; load it with the one it was made from, or make it again"
                )
            return DenoisedActor(behaviour)
    raise ValueError(config["form"])


def _identity(behaviour: Behaviour) -> str:
    """A hash of all that decides its answers."""
    known = behaviour.known
    plain = {
        "kind": known.kind,
        "inputs": known.inputs.config(),
        "doses": [grid.config() for grid in known.marginal.grids],
        "calibration": [one.config() for one in known.calibrations],
    }
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    marginal = {f"marginal.{j}": log.numpy() for j, log in enumerate(known.marginal.log_weights)}
    arrays = {**known.inputs.arrays(), **known.learner.arrays(), **marginal}
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
