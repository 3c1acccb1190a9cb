"""Everything that training knows, moved to another device: every tensor, however deep it lies.

Called by training where `device` asks for an accelerator. Nothing that was made is changed: what
comes back is new, but for what holds no tensor. Tensors that share memory do not share it there, so
this is for what is finished, never for what still learns.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ogsrl.errors import SpecError

#: Whose objects are looked into.
OURS = "ogsrl."
CPU = torch.device("cpu")


def checked(device: str) -> torch.device:
    """A device that is here."""
    try:
        asked = torch.device(device)
        torch.zeros((), device=asked)
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise SpecError(f"device: {device} cannot be used here ({said}); set it to cpu") from None
    return asked


def moved(value: Any, device: torch.device) -> Any:
    """The same with all tensors there."""
    return _moved(value, device, {})


def _moved(value: Any, device: torch.device, seen: dict[int, tuple[Any, Any]]) -> Any:
    """`seen` keeps what was moved with the original, whose number must not be given again."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, dict | tuple | list):
        return _moved_all(value, device, seen)
    if not type(value).__module__.startswith(OURS) or not hasattr(value, "__dict__"):
        return value
    if isinstance(value, nn.Module):  # its parts are torch's own, not ours
        made = copy.deepcopy(value).to(device)
        held = {n: one for n, one in vars(value).items() if n not in vars(nn.Module())}
        made.__dict__.update({n: _moved(one, device, seen) for n, one in held.items()})
        seen[id(value)] = (value, made)
        return made
    made = copy.copy(value)
    seen[id(value)] = (value, made)
    held = {name: _moved(one, device, seen) for name, one in vars(value).items()}
    for name, one in held.items():
        made.__dict__[name] = one  # also of what is frozen: nobody has seen it yet
    return made


def _moved_all(value: Any, device: torch.device, seen: dict[int, tuple[Any, Any]]) -> Any:
    if isinstance(value, dict):
        return {key: _moved(one, device, seen) for key, one in value.items()}
    parts = [_moved(one, device, seen) for one in value]
    named = isinstance(value, tuple) and hasattr(value, "_fields")
    return type(value)(*parts) if named else type(value)(parts)


def generator_on(device: torch.device, seed: int) -> torch.Generator:
    """Draws for tensors of a device; the processor's where it has no generator of its own."""
    try:
        made = torch.Generator(device)
    except (RuntimeError, NotImplementedError):
        made = torch.Generator()
    return made.manual_seed(seed)
