"""A first cohort file for a foreign table, with every guess marked."""

from ogsrl.spec.draft.write import draft

__all__ = ["draft"]
