"""OGSRL: offline, guarded, safe reinforcement learning of treatment from logged patients."""

__version__ = "0.1.0"
