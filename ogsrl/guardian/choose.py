"""Which degree and which third question: by power on folds of training patients.

Called by christoffel.py while it fits. Power is the share of departures refused where the share of
held-out clinicians' decisions refused is the same for all; it never sees another part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from ogsrl.guardian import cells as evidence
from ogsrl.guardian.cells import Cells
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import Usual
from ogsrl.guardian.conformal import conformal_threshold
from ogsrl.guardian.legal import Legal
from ogsrl.guardian.moments import Basis, Moments, Polynomial
from ogsrl.guardian.protocol import LogDensity, Rows
from ogsrl.guardian.questions import unusual
from ogsrl.guardian.ranks import Ranks
from ogsrl.guardian.survey import row_weights

FOLDS = 2
#: Held-out decisions of each fold that are judged, as they are and departed.
JUDGED = 10_000
NOISE = 1.0  # training deviations of a broken sensor
#: b was fitted on all training patients, so folds flatter it: it must be better by this much.
MARGIN = 0.02
#: A degree takes about five times as long to ask as the one below: it must bring this much.
WORTH = 0.015


@dataclass(frozen=True)
class Choice:
    """What was chosen, and the mean power over departures of each choice there was."""

    degree: int
    usual: Usual
    power: dict[str, float]


@dataclass(frozen=True)
class Chooser:
    """What a choice is made with.

    Attributes:
        layout: What is read.
        legal: What was ever seen.
        bases: A basis for each degree that may be chosen, rising.
        usuals: What the third question may be answered with.
        log_density: The clinicians' density, if it may be chosen.
        alpha: Share of held-out decisions refused at which powers are compared.
    """

    layout: Layout
    legal: Legal
    bases: Sequence[Basis]
    usuals: Sequence[Usual]
    log_density: LogDensity | None
    alpha: float

    def choose(self, sample: Rows, generator: torch.Generator) -> Choice:
        """The third question of most power, and the least degree that has about as much."""
        choices = [(usual, basis.degree) for usual, basis in product(self.usuals, self.bases)]
        folds = list(_folds(sample, generator)) if len(choices) > 1 else []
        if not folds:  # nothing to choose, or nobody to choose by: the simplest
            return Choice(choices[0][1], choices[0][0], {})
        powers = [self._powers(*fold, choices, generator) for fold in folds]
        power = [sum(of_fold) / len(folds) for of_fold in zip(*powers, strict=True)]
        found = dict(zip(choices, power, strict=True))
        best = {u: max(p for (k, _), p in found.items() if k == u) for u in self.usuals}
        usual = max(best, key=lambda u: best[u] - MARGIN * (u == "density"))
        degree = min(d for (k, d), p in found.items() if k == usual and p >= best[usual] - WORTH)
        named = {f"{kind}_{d}": round(p, 6) for (kind, d), p in found.items()}
        return Choice(degree, usual, named)

    def _powers(
        self,
        fitted: Rows,
        judged: Rows,
        choices: Sequence[tuple[Usual, int]],
        generator: torch.Generator,
    ) -> list[float]:
        weight = row_weights(fitted.patient)[0]
        x = self._scaled(fitted)
        centers = evidence.find_centers(x, fitted.patient, generator)
        cells = evidence.measure(centers, [(x, fitted.patient)])
        polynomials = [
            Polynomial(basis, Moments.of(basis, x, weight).inverse_factor()) for basis in self.bases
        ]
        panel = {"": judged, **departures(judged, self.layout, generator)}
        answers = {name: self._answers(rows, polynomials, cells) for name, rows in panel.items()}
        among = self._answers(fitted, polynomials, cells)
        people = fitted.patient
        tables = {name: Ranks.of(answer, weight, people) for name, answer in among.items()}
        fair = evidence.fair(people)
        tables["evidence"] = Ranks.of(among["evidence"][fair], weight[fair], people[fair])
        ranks = {
            name: {key: tables[key](answer) for key, answer in part.items()}
            for name, part in answers.items()
        }
        powers = []
        for usual, degree in choices:
            dose = f"ratio_{degree}" if usual == "ratio" else "density"
            keys = (f"patient_{degree}", f"pair_{degree}", dose, "evidence")
            scores = {
                name: torch.stack([part[key] for key in keys]).amax(dim=0)
                for name, part in ranks.items()
            }
            limit = conformal_threshold(scores.pop(""), judged.patient, self.alpha).value
            refused = [1.0 if limit is None else _share(s > limit) for s in scores.values()]
            powers.append(sum(refused) / len(refused))
        return powers

    def _scaled(self, rows: Rows) -> torch.Tensor:
        z = self.layout.read(rows.states, rows.doses)
        return self.bases[0].scaled(self.legal.expand(z))

    def _answers(
        self, rows: Rows, polynomials: Sequence[Polynomial], cells: Cells
    ) -> dict[str, torch.Tensor]:
        x = self._scaled(rows)
        made = {"evidence": cells.distance(x)}
        if self.log_density is not None:
            made["density"] = unusual(self.log_density, rows.states, rows.doses)
        for polynomial in polynomials:
            degree = polynomial.basis.degree
            of_states, of_pairs = polynomial.in_blocks(x)
            made[f"patient_{degree}"], made[f"pair_{degree}"] = of_states, of_pairs
            made[f"ratio_{degree}"] = of_pairs / of_states
        return made


def _share(refused: torch.Tensor) -> float:
    return float(refused.double().mean())


def _folds(sample: Rows, generator: torch.Generator) -> Iterator[tuple[Rows, Rows]]:
    """(fitted, judged) patients; none where they are too few to be halved."""
    patients = int(sample.patient.max()) + 1
    if patients < 2 * FOLDS:
        return
    fold = torch.randperm(patients, generator=generator) % FOLDS
    for number in range(FOLDS):
        out = fold[sample.patient] == number
        judged = sample.take(out)
        if len(judged) > JUDGED:
            kept = torch.randperm(len(judged), generator=generator)[:JUDGED].sort().values
            judged = judged.take(kept)
        yield sample.take(~out), judged


def departures(rows: Rows, layout: Layout, generator: torch.Generator) -> dict[str, Rows]:
    """A few departures that need nothing but the rows; the full panel is the report's."""
    columns = layout.places
    drawn = torch.rand(rows.doses.shape, generator=generator).to(rows.doses) * 2 - 1
    high = 0.5 + 0.5 * torch.rand(rows.doses.shape, generator=generator).to(rows.doses)
    other = torch.randperm(len(rows), generator=generator)
    permuted, noisy = rows.states.clone(), rows.states.clone()
    for i, kind in zip(columns, layout.kinds, strict=True):
        order = torch.randperm(len(rows), generator=generator)
        permuted[:, i] = rows.states[order, i]
        if kind == "numeric":
            error = torch.randn(len(rows), generator=generator).to(noisy)
            noisy[:, i] += NOISE * noisy[:, i].std(correction=0) * error
    return {
        "random_doses": replace(rows, doses=drawn),
        "another_patients_dose": replace(rows, doses=rows.doses[other]),
        "high_doses": replace(rows, doses=high),
        "flipped_doses": replace(rows, doses=-rows.doses),
        "permuted_columns": replace(rows, states=permuted),
        "sensor_noise": replace(rows, states=noisy),
    }
