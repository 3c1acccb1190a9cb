"""The registry: runs, versions and aliases in MLflow, and nobody else knows MLflow.

Called by the stage register and by the command line. What is registered holds weights, moments,
cells and the cohort file, and never a row; what was begun and not ended is begun anew.
"""

from ogsrl.registry.aliases import Aliases
from ogsrl.registry.entry import CHALLENGER, CHAMPION, Compare, Entry, Placed, open_inputs
from ogsrl.registry.store import Registry

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "Aliases",
    "Compare",
    "Entry",
    "Placed",
    "Registry",
    "open_inputs",
]
