"""Asking a model: its loader, and the same measured on a cohort that it never saw."""
