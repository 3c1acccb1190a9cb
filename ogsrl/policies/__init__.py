"""Policies: what really acts, how it is trained, and what it is compared with."""
