"""From validated trajectories to what learners read: split, fill, scale, history, leakage.

Called by the stage prepare; everything is fitted on training patients alone. Importing this
package loads neither torch nor scikit-learn.
"""

from ogsrl.preparation.config import PARTS, Part, PrepareParams, Shares
from ogsrl.preparation.fitting import Preparation, PreparedColumn, fit
from ogsrl.preparation.rows import TrainingRows
from ogsrl.preparation.split import assign_parts, check_disjoint, hash_position
from ogsrl.preparation.transforms import ColumnTransform, DoseTransform

__all__ = [
    "PARTS",
    "ColumnTransform",
    "DoseTransform",
    "Part",
    "Preparation",
    "PrepareParams",
    "PreparedColumn",
    "Shares",
    "TrainingRows",
    "assign_parts",
    "check_disjoint",
    "fit",
    "hash_position",
]
