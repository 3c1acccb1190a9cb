"""The four questions of the default guardian, and their ranks among training rows.

Called by christoffel.py, and by choose.py on folds of training patients. Holds moments, quantiles
and cells, never a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.guardian.cells import Cells
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.legal import Legal
from ogsrl.guardian.moments import Polynomial
from ogsrl.guardian.protocol import Cases, LogDensity, Rows
from ogsrl.preparation.blocks import blocks, side_by_side

QUESTIONS = ("patient", "pair", "dose", "evidence")


@dataclass(frozen=True)
class Questions:
    """What is asked of a case; each answer is larger the further out the case lies.

    With e the monomials up to degree d and M = E[e e^T] over training, each patient weighing 1,

        q(z) = e(z)^T M^-1 e(z),                       the inverse Christoffel function,

    - patient: is there any patient like this?  q(s);
    - pair: is there any such pair?  q(s, a);
    - dose: is this dose usual for such a patient?  q(s, a) / q(s), or -log b(a|s);
    - evidence: are there enough?  |x - c| / r, for the nearest cell's centre c and radius r.

    The ratio is a heuristic and no density: far from all patients it goes blind, which is where
    the first question already refuses.

    Attributes:
        legal: What was ever seen of levels and constants; how columns are expanded.
        polynomial: q.
        cells: Evidence cells, in columns scaled as the polynomial's.
        log_density: The clinicians' density, if the third question is asked of it.
    """

    legal: Legal
    polynomial: Polynomial
    cells: Cells
    log_density: LogDensity | None

    def answers(self, cases: Cases) -> dict[str, torch.Tensor]:
        """The answer to each question, one a row."""
        x = self.scaled(cases.z)
        of_states, of_pairs = self.polynomial.in_blocks(x)
        if self.log_density is None:
            usual = of_pairs / of_states
        else:
            usual = unusual(self.log_density, cases.states, cases.doses)
        answers = of_states, of_pairs, usual, self.cells.distance(x)
        return dict(zip(QUESTIONS, answers, strict=True))

    def of_rows(self, rows: Rows, layout: Layout) -> dict[str, torch.Tensor]:
        """The answers for many rows, a block at a time."""
        z = layout.read(rows.states, rows.doses)
        cases = (Cases(*block) for block in blocks(z, rows.states, rows.doses))
        parts = side_by_side(self.answers, cases)
        return {name: torch.cat([part[name] for part in parts]) for name in QUESTIONS}

    def scaled(self, z: torch.Tensor) -> torch.Tensor:
        """What is read, expanded and by its deviation."""
        return self.polynomial.basis.scaled(self.legal.expand(z))


def unusual(log_density: LogDensity, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
    """-log b(a|s), a block at a time."""
    return -torch.cat([log_density.log_prob(s, a).to(s.dtype) for s, a in blocks(states, doses)])
