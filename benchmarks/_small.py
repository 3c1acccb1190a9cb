"""Texts of params.yaml, and what replaces them where the same code is to run small.

Used by quick benchmarks and by tests of whole runs.
"""

#: Models that hardly fit anything.
HARDLY_FITTED = {
    "kinds: [neural, boosted]": "kinds: [neural]",
    "{hidden: 256, head: 128, max_epochs: 8": "{hidden: 32, head: 16, max_epochs: 2",
    "members: 5": "members: 2",
    "hidden: 128\n": "hidden: 32\n",
    "max_epochs: 12": "max_epochs: 2",
}
#: So little training that what comes of it is worth nothing.
HARDLY_TRAINED = {
    "steps: 1800": "steps: 20",
    "checkpoint_every: 900": "checkpoint_every: 10",
    "{cloning_only: true, ": "{cloning_only: true, hidden: 32, start_steps: 20, ",
    "{refresh: 150, pool: 5, starts: 2000, ": (
        "{hidden: 32, start_steps: 20, critic_start_steps: 20, first_decisions: 50, refresh: 10, "
        "pool: 2, starts: 50, "
    ),
}
