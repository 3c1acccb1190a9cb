"""Which policy is put forward: feasible first, then the best bound; or none, and why."""
