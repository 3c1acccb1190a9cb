"""The default guardian: four questions by polynomials, a density and evidence cells.

Called through `GUARDIANS`. Its fit is streaming: a few passes over shards whose moments add, and
memory that does not grow with rows. It holds moments, ranks and cells, never a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from ogsrl.errors import SupportError
from ogsrl.guardian import cells as evidence
from ogsrl.guardian.cells import Cells
from ogsrl.guardian.choose import Choice, Chooser
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams, Usual
from ogsrl.guardian.legal import Legal
from ogsrl.guardian.moments import Basis, Moments, Polynomial
from ogsrl.guardian.protocol import Cases, Guardian, LogDensity, Shards
from ogsrl.guardian.questions import QUESTIONS, Questions
from ogsrl.guardian.ranks import LARGEST, Ranks, Tables
from ogsrl.guardian.shortage import Shortage
from ogsrl.guardian.survey import Survey, check_varied, passes, row_weights

#: Patients for each monomial: with fewer, M is not known.
PATIENTS_PER_FEATURE = 10
DEGREES = (1, 2, 3)
#: A clinicians' density that differs by more at a made-up state is another one.
PROBE_SAME = 1e-3


@dataclass(frozen=True)
class ChristoffelGuardian(Guardian):
    """Supported where none of four `Questions` is answered further out than the threshold.

        score(s, a) = max over questions of the rank of the answer among training rows

    Levels seen in fewer than ten patients, and another value where training had only one, are
    refused whatever the score.

    Attributes:
        asked: The fitted questions.
        tables: Ranks of each question's answer.
        choice: The degree and the third question, and by which powers they were chosen.
        probe: log b at a made-up state, by which another density is found out.
    """

    kind: ClassVar[str] = "christoffel"
    holds_rows: ClassVar[bool] = False

    asked: Questions
    tables: Mapping[str, Ranks]
    choice: Choice
    probe: float | None

    @classmethod
    def fit(
        cls,
        batches: Shards,
        layout: Layout,
        params: GuardianParams,
        generator: torch.Generator,
        log_density: LogDensity | None = None,
    ) -> Self:
        """Three passes over the shards: survey, moments, cells."""
        with torch.no_grad():
            return cls._fit(batches, layout, params, generator, log_density)

    @classmethod
    def _fit(
        cls,
        shards: Shards,
        layout: Layout,
        params: GuardianParams,
        generator: torch.Generator,
        log_density: LogDensity | None,
    ) -> Self:
        survey = Survey.of(passes(shards), layout, generator)
        if survey.patients < evidence.CELL_PATIENTS:  # not even which columns vary may be told
            needed = PATIENTS_PER_FEATURE * (1 + len(layout.names))
            return cls.refusing(layout, Shortage("training", needed))
        check_varied(survey.identical)
        legal = Legal((*layout.kinds, *layout.dose_kinds), survey.seen, layout.width)
        every = [_basis(legal, survey, degree) for degree in DEGREES[: params.degree]]
        bases = [b for b in every if len(b) * PATIENTS_PER_FEATURE <= survey.patients]
        if not bases or survey.needed > survey.patients:
            needed = max(PATIENTS_PER_FEATURE * len(every[0]), survey.needed)
            return cls.refusing(layout, Shortage("training", needed))
        if params.degree is not None:
            bases = bases[-1:]  # the one asked for, or the largest that there are patients for
        log_density = log_density if params.usual != "ratio" else None
        usuals = _usuals(params, log_density)
        chooser = Chooser(layout, legal, bases, usuals, log_density, params.alpha)
        choice = chooser.choose(survey.sample, generator)
        basis = next(b for b in bases if b.degree == choice.degree)
        moments = Moments.nothing(basis)
        for z, patient in _read(shards, layout):
            x = basis.scaled(legal.expand(z))
            moments += Moments.of(basis, x, row_weights(patient)[0])
        polynomial = Polynomial(basis, moments.inverse_factor())
        sample = survey.sample
        near = basis.scaled(legal.expand(layout.read(sample.states, sample.doses)))
        centers = evidence.find_centers(near, sample.patient, generator)
        scaled = ((basis.scaled(legal.expand(z)), p) for z, p in _read(shards, layout))
        cells = evidence.measure(centers, scaled)
        used = log_density if choice.usual == "density" else None
        asked = Questions(legal, polynomial, cells, used)
        weight = row_weights(sample.patient)[0]
        answers = asked.of_rows(sample, layout)
        people = sample.patient
        fair = evidence.fair(people)
        tables = {name: Ranks.of(answer, weight, people) for name, answer in answers.items()}
        tables["evidence"] = Ranks.of(answers["evidence"][fair], weight[fair], people[fair])
        return cls(layout, None, None, asked, tables, choice, _probe(used, layout))

    @classmethod
    def refusing(cls, layout: Layout, shortage: Shortage) -> Self:
        """One that refuses everything, for want of patients; nothing of any patient is in it."""
        kinds = (*layout.kinds, *layout.dose_kinds)
        legal = Legal(kinds, tuple(torch.zeros(0) for _ in kinds), layout.width)
        blank = [0.0] * len(kinds)
        center, scale = legal.centers(blank), legal.scales([1.0] * len(kinds))
        basis = Basis(0, legal.expanded_states, center, scale, legal.groups)
        polynomial = Polynomial(basis, torch.ones(1, 1, dtype=torch.float64))
        none = torch.zeros(1, dtype=torch.int64)
        cells = Cells(torch.zeros(1, len(center)), torch.ones(1), none, none)
        asked = Questions(legal, polynomial, cells, None)
        flat = torch.zeros(2, dtype=torch.float64)
        tables = {name: Ranks(flat, flat.clone()) for name in QUESTIONS}
        return cls(layout, None, shortage, asked, tables, Choice(0, "ratio", {}), None)

    @property
    def cells(self) -> Cells:
        """Evidence cells, in columns scaled as `scaled` does."""
        return self.asked.cells

    def scaled(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """What cells are made of: all that is read, by its deviation."""
        return self.asked.scaled(self.layout.read(states, doses))

    def ranks(self, cases: Cases) -> dict[str, torch.Tensor]:
        """Where each answer lies among those of training rows."""
        answers = self.asked.answers(cases)
        ranks = self._tables(torch.stack(list(answers.values())))
        return dict(zip(answers, ranks.unbind(0), strict=True))

    @cached_property
    def _tables(self) -> Tables:
        return Tables.of([self.tables[name] for name in QUESTIONS])

    def beyond(self, z: torch.Tensor) -> torch.Tensor | None:
        """Distance to the levels and constants that were seen."""
        return self.asked.legal.distance(z)

    def seen_values(self) -> dict[int, torch.Tensor]:
        """Levels and constants that were seen."""
        return {i: values for i, values in enumerate(self.asked.legal.seen) if len(values)}

    def parts(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Moments, ranks and cells."""
        legal, basis, cells = self.asked.legal, self.asked.polynomial.basis, self.cells
        config = {
            "degree": basis.degree,
            "usual": self.choice.usual,
            "power": self.choice.power,
            "probe": self.probe,
            "seen": [values.tolist() for values in legal.seen],
        }
        arrays = {
            "center": basis.center,
            "scale": basis.scale,
            "factor": self.asked.polynomial.factor,
            "cell_centers": cells.centers,
            "cell_radius": cells.radius,
            "cell_patients": cells.patients,
            "cell_rows": cells.rows,
            **{f"values_{name}": table.values for name, table in self.tables.items()},
            **{f"shares_{name}": table.shares for name, table in self.tables.items()},
        }
        return config, {name: np.asarray(tensor.numpy()) for name, tensor in arrays.items()}

    @classmethod
    def from_parts(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        layout: Layout,
        log_density: LogDensity | None,
    ) -> Self:
        """What `parts` gave, with the same behaviour model if it asks one."""
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        seen = tuple(torch.tensor(values, dtype=torch.float32) for values in config["seen"])
        legal = Legal((*layout.kinds, *layout.dose_kinds), seen, layout.width)
        basis = Basis(
            int(config["degree"]),
            legal.expanded_states,
            tensors["center"],
            tensors["scale"],
            legal.groups,
        )
        cells = Cells(*(tensors[f"cell_{n}"] for n in ("centers", "radius", "patients", "rows")))
        used = log_density if config["usual"] == "density" else None
        probe = _probe(used, layout)
        if config["usual"] == "density" and (
            probe is None or abs(probe - config["probe"]) > PROBE_SAME
        ):
            raise SupportError(
                "guardian: asks the clinicians' density how usual a dose is, and was given "
                f"{'none' if probe is None else 'another one'}; load the behaviour model that it "
                "was fitted with, or run the stage guardian again"
            )
        asked = Questions(legal, Polynomial(basis, tensors["factor"]), cells, used)
        tables = {n: Ranks(tensors[f"values_{n}"], tensors[f"shares_{n}"]) for n in QUESTIONS}
        choice = Choice(basis.degree, config["usual"], config["power"])
        return cls(layout, None, None, asked, tables, choice, config["probe"])


def _usuals(params: GuardianParams, log_density: LogDensity | None) -> list[Usual]:
    if params.usual is not None and (log_density is not None or params.usual == "ratio"):
        return [params.usual]
    if params.usual == "density":
        raise SupportError(
            "guardian.usual: density, and there is no clinicians' density; give `fit` the "
            "behaviour model, or choose ratio or null"
        )
    return ["ratio"] if log_density is None else ["ratio", "density"]


def _basis(legal: Legal, survey: Survey, degree: int) -> Basis:
    return Basis(
        degree,
        legal.expanded_states,
        legal.centers(survey.mean.tolist()),
        legal.scales(survey.deviation.tolist()),
        legal.groups,
    )


def _read(shards: Shards, layout: Layout) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for shard in passes(shards):
        if len(shard):
            yield layout.read(shard.states, shard.doses), shard.patient


def _probe(log_density: LogDensity | None, layout: Layout) -> float | None:
    """The density in the middle of everything: no patient, but it tells two densities apart."""
    if log_density is None:
        return None
    states = torch.zeros(1, len(layout.state_names))
    found = log_density.log_prob(states, torch.zeros(1, len(layout.doses)))
    return float(found.clip(-LARGEST, LARGEST))
