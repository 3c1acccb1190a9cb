"""Every guardian by its kind: a new one is a module beside this and a line here."""

from __future__ import annotations

from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.kde import KernelDensity
from ogsrl.guardian.neighbours import Neighbours
from ogsrl.guardian.protocol import Guardian

GUARDIANS: dict[str, type[Guardian]] = {
    guardian.kind: guardian for guardian in (ChristoffelGuardian, KernelDensity, Neighbours, Counts)
}
