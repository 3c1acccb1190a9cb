"""Policies: what really acts, how it is trained, and what it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gym_notices.notices import notices

if TYPE_CHECKING:
    from ogsrl.policies.algorithm import OGSRL, OGSRLConfig

__all__ = ["OGSRL", "OGSRLConfig"]

# d3rlpy imports gym, which prints a notice for its own users at every import; we are none
notices.clear()


def __getattr__(name: str) -> Any:
    """What needs d3rlpy is imported when it is asked for: that takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ogsrl.policies import algorithm  # noqa: PLC0415 - see above

    return getattr(algorithm, name)
