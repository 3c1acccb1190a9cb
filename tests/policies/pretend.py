"""An accelerator that is not there: tensors that say they lie on it, held by the processor.

`python -m tests.policies.pretend` trains a seed of each loop on it and on the processor, and says
whether the same came of both; d3rlpy's algorithms know real devices alone. An operation that mixes
tensors of the two is an error, as it is on a real accelerator; what a real one rounds differently,
or draws by a generator of its own, is not seen. Run by test_devices in a process of its own, since
torch can have one such device a process and never forgets it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from ogsrl.behaviour.config import BehaviourParams, NeuralParams
from ogsrl.behaviour.fitting import fit
from ogsrl.behaviour.policy import Behaviour
from ogsrl.policies.config import (
    AlgorithmParams,
    CpoParams,
    DatasetParams,
    OgsrlParams,
    TrainParams,
)
from ogsrl.policies.devices import moved
from ogsrl.policies.problem import Problem
from ogsrl.policies.training import Place, train_seed
from tests.guardian.cohorts import simulated
from tests.policies.test_learner import SMALL, problem

NAME = "pretend"
OFFLINE = OgsrlParams(
    model=False, hidden=16, batch_size=64, dataset=DatasetParams(weight=1.0, neighbours=16)
)
CPO = CpoParams(
    hidden=16,
    start_steps=20,
    critic_start_steps=20,
    stays=60,
    curvature_rows=100,
    steps_per_update=20,
)
#: Every call is far slower there: few steps, through every part of the loop.
FEW = SMALL.model_copy(update={"start_steps": 20, "critic_start_steps": 10, "refresh": 5})
NEAR = {"dataset": DatasetParams(weight=0.1, neighbours=16, listed=200)}
ENTRIES = {
    "ogsrl": AlgorithmParams(name="a", ogsrl=FEW.model_copy(update=NEAR)),
    "bc": AlgorithmParams(name="a", ogsrl=FEW.model_copy(update={"cloning_only": True})),
    "offline": AlgorithmParams(name="a", ogsrl=OFFLINE),
    "cpo": AlgorithmParams(name="a", cpo=CPO),
    "marginal": AlgorithmParams(name="a", plain="marginal"),
    "denoised": AlgorithmParams(name="a", plain="denoised"),
    "zero": AlgorithmParams(name="a", plain="zero"),
    "neural": AlgorithmParams(name="a", ogsrl=FEW),  # of another behaviour
}
TRAIN = TrainParams(steps=20, checkpoint_every=10)


class Held(torch.Tensor):
    """A tensor of the device."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Self:
        """Around one of the processor."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=f"{NAME}:0",
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """What reaches a tensor of the device is done as all else there."""
        del types
        return done(func, *args, **(kwargs or {}))


def done(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation of the device, on what its tensors hold."""
    strange: list[tuple[int, ...]] = []

    def held(value: Any) -> Any:
        if isinstance(value, Held):
            return value.inner
        if isinstance(value, torch.Tensor) and value.dim():  # single numbers may go with any
            strange.append(tuple(value.shape))
        return value

    args, named = tree_map(held, args), tree_map(held, kwargs)
    if strange and "copy" not in str(operation):
        raise RuntimeError(f"{operation}: tensors of the processor, {strange}")
    asked = kwargs.get("device")
    if asked is not None:
        named["device"] = torch.device("cpu")
    found = operation(*args, **named)
    if asked is not None and torch.device(asked).type == "cpu":
        return found
    return tree_map(lambda one: Held(one) if isinstance(one, torch.Tensor) else one, found)


class Made(TorchFunctionMode):
    """Does for the device what torch does inside of itself for those that it knows."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """New tensors, lists as indices, products of vectors, and numbers read."""
        del types
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor, torch.arange):
            device = kwargs.pop("device", None) or NAME
            return func(*args, device="cpu", **kwargs).to(device)
        if func is torch.Tensor.new_tensor:
            kind = kwargs.get("dtype", args[0].dtype)
            return torch.tensor(args[1], device="cpu", dtype=kind).to(args[0].device)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            return func(args[0], _index(args[1], args[0].device), *args[2:], **kwargs)
        ours = [one for one in args if isinstance(one, Held)]
        products = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
        if func in products and len(ours) == len(args) and not any(o.requires_grad for o in ours):
            return Held(torch.matmul(*(one.inner for one in ours)))
        if ours and func is torch.Tensor.tolist:
            return ours[0].inner.tolist()
        if ours and func is torch.Tensor.numpy:
            raise TypeError("a tensor of the device is no array; .cpu() first")
        return func(*args, **kwargs)


def _index(at: Any, device: torch.device) -> Any:
    parts = at if isinstance(at, tuple) else (at,)
    found = tuple(
        torch.tensor(p, device="cpu").to(device) if isinstance(p, list) else p for p in parts
    )
    return found if isinstance(at, tuple) else found[0]


def neural() -> Behaviour:
    """b of the other kind."""
    parts, small = simulated()[0], NeuralParams(hidden=16, head=8, max_epochs=1)
    return fit(
        parts["train"],
        parts["calibration"],
        parts["validation"],
        BehaviourParams(kinds=("neural",), knots=8, neural=small),
        torch.Generator().manual_seed(0),
    )


def trained(made: Problem, entry: AlgorithmParams, folder: Path) -> dict[str, Any]:
    """A seed stopped half way, and gone on with: its log and the bytes of its last policy."""

    def stop(steps: int) -> None:
        if steps and not stopped:
            stopped.append(steps)
            raise KeyboardInterrupt

    stopped: list[int] = []
    place = Place(folder / "policies", folder / "checkpoint", "these data")
    if entry.ogsrl is not None and not entry.ogsrl.cloning_only:
        with contextlib.suppress(KeyboardInterrupt):
            train_seed(made, entry, TRAIN, 3, place, stop)
        assert stopped
    seed = train_seed(made, entry, TRAIN, 3, place)
    files = sorted(place.policy(seed.steps[-1]).iterdir()) if seed.steps else []
    return {
        "status": seed.status,
        "steps": seed.steps,
        "log": seed.log,
        "files": {file.name: file.read_bytes().hex() for file in files},
    }


def main() -> None:
    """Say of each entry whether it came to the same."""
    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(done, "PrivateUse1")
    # real devices have it of their own; written out, as torch would do it here, it rounds otherwise
    own = torch.library.Library("aten", "IMPL")
    own.impl("silu_backward", partial(done, torch.ops.aten.silu_backward.default), "PrivateUse1")
    boosted = problem()
    made = {"neural": replace(boosted, behaviour=neural())}
    said = {}
    for name, entry in ENTRIES.items():
        here = made.get(name, boosted)
        there = moved(here, torch.device(f"{NAME}:0"))
        with tempfile.TemporaryDirectory() as folder:
            usual = trained(here, entry, Path(folder) / "here")
            with Made():
                other = trained(there, entry, Path(folder) / "there")
        said[name] = {"status": other["status"], "same": usual == other}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
