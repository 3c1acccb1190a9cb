"""The first pass over the shards: how columns are scaled, what was ever seen, and a sample.

Called by fits. Memory does not grow with the number of rows: the sample is of whole patients and
bounded, the same for the same shards and generator. It lives as long as the fit, and no longer;
what a model keeps of it (means, deviations, levels) is of at least ten patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ogsrl.errors import SupportError
from ogsrl.guardian.cells import CELL_PATIENTS, distinct_patients
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.protocol import Rows, Shards
from ogsrl.guardian.shortage import Shortage

SAMPLE_ROWS = 100_000
#: Columns of levels are checked value by value; a column of more levels is refused.
MAX_LEVELS = 64
LEVELS = ("binary", "categorical", "ordinal")


@dataclass(frozen=True)
class Survey:
    """What one pass over training patients tells.

    Attributes:
        patients: How many.
        rows: How many decisions.
        mean: Of each column read, each patient weighing 1.
        deviation: Likewise.
        seen: Values of each column that holds levels, those of at least ten patients; or the only
            value of a column, from which fewer than ten patients ever differ; empty for the others.
        needed: Patients by which each column of levels would have a level of ten, and each other
            column be known to vary or not; 0 if each has and is.
        identical: Whether no column and no dose differs between patients.
        sample: Rows of whole patients, `SAMPLE_ROWS` at most, with patients numbered anew.
    """

    patients: int
    rows: int
    mean: torch.Tensor
    deviation: torch.Tensor
    seen: tuple[torch.Tensor, ...]
    needed: int
    identical: bool
    sample: Rows

    @classmethod
    def of(
        cls,
        shards: Shards,
        layout: Layout,
        generator: torch.Generator,
        sample_rows: int = SAMPLE_ROWS,
    ) -> Survey:
        """Pass once over the shards."""
        columns = len(layout.names)
        patients = rows = 0
        shift: torch.Tensor | None = None
        first = torch.zeros(columns, dtype=torch.float64)
        second = torch.zeros(columns, dtype=torch.float64)
        kinds = (*layout.kinds, *layout.dose_kinds)
        levels = {i: _Levels(layout.names[i]) for i, kind in enumerate(kinds) if kind in LEVELS}
        usual = [_Usual() for _ in range(columns)]
        variety = _Variety(columns)
        sample = _Sample(sample_rows, generator)
        for shard in shards:
            if not len(shard):
                continue
            z = layout.read(shard.states, shard.doses)
            _check_numbers(z, layout)
            weight, number, here = row_weights(shard.patient)
            if shift is None:  # sums about a typical row lose no digits
                shift = z.double().mean(dim=0)
            centred = z.double() - shift
            first += weight @ centred
            second += weight @ centred.square()
            for column, one in enumerate(usual):
                one.add(z[:, column].float(), number, here)
            for i, found in levels.items():
                found.add(z[:, i].float(), number)
            variety.add(z, number)
            sample.add(shard, number, here)
            patients, rows = patients + here, rows + len(shard)
        if shift is None:
            raise SupportError("training rows: none; a guardian is fitted on training decisions")
        mean = first / patients
        variance = (second / patients - mean.square()).clip(min=0)
        seen = [levels[i].common() if i in levels else torch.zeros(0) for i in range(columns)]
        lacking = [len(found) for found in levels.values() if not len(found.common())]
        needed = CELL_PATIENTS * max(lacking, default=0)
        for i, one in enumerate(usual):
            value = one.value
            if value is None or (i in levels and not one.only):
                continue  # it varies, or its levels say what of it was seen
            seen[i] = torch.tensor([value])
            variance[i] = 0
            if one.patients < CELL_PATIENTS:
                needed = max(needed, 2 * CELL_PATIENTS - 1)
        return cls(
            patients,
            rows,
            shift + mean,
            variance.sqrt(),
            tuple(seen),
            needed,
            variety.none,
            sample.rows(),
        )

    @property
    def varying(self) -> list[int]:
        """Columns that hold more than one value."""
        return [i for i, deviation in enumerate(self.deviation.tolist()) if deviation > 0]


def row_weights(patient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """1 / rows of each row's patient, the patient's number from 0, and how many there are.

    >>> row_weights(torch.tensor([4, 4, 9]))[0].tolist()
    [0.5, 0.5, 1.0]
    """
    people, number = torch.unique(patient, return_inverse=True)
    return (1 / torch.bincount(number).double())[number], number, len(people)


class _Levels:
    """Values of a column of levels, and the patients of each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values = torch.zeros(0)
        self._patients = torch.zeros(0, dtype=torch.int64)

    def add(self, column: torch.Tensor, number: torch.Tensor) -> None:
        values, code = torch.unique(column, return_inverse=True)
        patients = distinct_patients(code, number, len(values))
        every = torch.cat([self._values, values])
        self._values, place = torch.unique(every, return_inverse=True)
        both = torch.cat([self._patients, patients])
        self._patients = torch.zeros(len(self._values), dtype=torch.int64).index_add(0, place, both)
        if len(self._values) > MAX_LEVELS:
            raise SupportError(
                f"{self._name}: more than {MAX_LEVELS} levels; a guardian cannot check so many, "
                "take the column out of guardian.columns"
            )

    def common(self) -> torch.Tensor:
        return self._values[self._patients >= CELL_PATIENTS]

    def __len__(self) -> int:
        return len(self._values)


class _Usual:
    """The value that all but a few patients have throughout, if there is one.

    Once ten patients differ from every value there is none, and nothing more is kept; until then
    there are ten values at most.
    """

    def __init__(self) -> None:
        self._people = 0
        self._held: Counter[float] = Counter()  # patients who have nothing but this value
        self._differ = False

    def add(self, column: torch.Tensor, number: torch.Tensor, here: int) -> None:
        if self._differ:
            return
        low = column.new_full((here,), torch.inf).scatter_reduce(0, number, column, "amin")
        high = column.new_full((here,), -torch.inf).scatter_reduce(0, number, column, "amax")
        values, patients = torch.unique(low[low == high], return_counts=True)
        self._people += here
        self._held.update(dict(zip(values.tolist(), patients.tolist(), strict=True)))
        self._differ = self._people - self.patients >= CELL_PATIENTS
        if self._differ:
            self._held.clear()

    @property
    def patients(self) -> int:
        """How many have nothing but the usual value."""
        return max(self._held.values(), default=0)

    @property
    def only(self) -> bool:
        """Whether nobody ever has another value."""
        return not self._differ and self.patients == self._people

    @property
    def value(self) -> float | None:
        """The usual value; None where the column varies."""
        return max(self._held, key=self._held.__getitem__) if self._held else None


class _Variety:
    """Whether patients differ: in the mean of any column, or of its square."""

    def __init__(self, columns: int) -> None:
        self._low = torch.full((2 * columns,), torch.inf, dtype=torch.float64)
        self._high = -self._low
        self._some = False

    def add(self, z: torch.Tensor, number: torch.Tensor) -> None:
        if self._some and not self.none:
            return  # they are known to differ
        self._some = True
        rows = torch.bincount(number).double()[:, None]
        sums = [
            power.new_zeros(len(rows), z.shape[1]).index_add_(0, number, power)
            for power in (z.double(), z.double().square())
        ]
        means = torch.cat(sums, dim=1) / rows
        self._low = self._low.minimum(means.amin(dim=0))
        self._high = self._high.maximum(means.amax(dim=0))

    @property
    def none(self) -> bool:
        size = torch.maximum(self._low.abs(), self._high.abs()).clip(min=1)
        return bool((self._high - self._low <= 1e-9 * size).all())


class _Sample:
    """Whole patients with the least random numbers, as many as fit."""

    def __init__(self, rows: int, generator: torch.Generator) -> None:
        self._limit = rows
        self._generator = generator
        self._kept: list[Rows] = []
        self._draws: list[torch.Tensor] = []  # of each kept row's patient
        self._edge = torch.inf  # a patient with a draw from here on can never come in
        self._people = 0

    def add(self, shard: Rows, number: torch.Tensor, here: int) -> None:
        draws = torch.rand(here, generator=self._generator, dtype=torch.float64)[number]
        new = Rows(shard.states, shard.doses, number + self._people)
        self._people += here
        possible = draws < self._edge
        self._kept.append(new.take(possible))
        self._draws.append(draws[possible])
        if sum(map(len, self._draws)) > self._limit + self._limit // 4:  # not at every shard
            self._trim()

    def _trim(self) -> None:
        kept, draws = _joined(self._kept), torch.cat(self._draws)
        if len(draws) > self._limit:
            self._edge = float(draws.sort().values[self._limit])
            fitting = draws < self._edge
            kept, draws = kept.take(fitting), draws[fitting]
        self._kept, self._draws = [kept], [draws]

    def rows(self) -> Rows:
        self._trim()
        number = torch.unique(self._kept[0].patient, return_inverse=True)[1]
        return Rows(self._kept[0].states, self._kept[0].doses, number)


def _joined(rows: list[Rows]) -> Rows:
    return Rows(
        torch.cat([part.states for part in rows]),
        torch.cat([part.doses for part in rows]),
        torch.cat([part.patient for part in rows]),
    )


def _check_numbers(z: torch.Tensor, layout: Layout) -> None:
    bad = (~torch.isfinite(z)).sum(dim=0).tolist()
    named = [f"{name} ({count})" for name, count in zip(layout.names, bad, strict=True) if count]
    if named:
        raise SupportError(
            f"training rows: values that are no number in {', '.join(named)}; prepare them again"
        )


def identical(shards: Shards, layout: Layout) -> bool:
    """Whether no column that is read and no dose differs between patients; one pass."""
    variety = _Variety(len(layout.names))
    for shard in shards:
        if len(shard):
            number = torch.unique(shard.patient, return_inverse=True)[1]
            variety.add(layout.read(shard.states, shard.doses), number)
    return variety.none


def check_varied(identical: bool) -> None:
    """Refuse a cohort in which there is nothing to tell patients by."""
    if identical:
        raise SupportError(
            "training rows: all patients are the same, no guardian column and no dose differs "
            "between them; check the source"
        )


def too_few(shards: Shards, needed: int) -> Shortage | None:
    """The training patients that are lacking; None where there are enough."""
    people = sum(len(torch.unique(shard.patient)) for shard in shards)
    return Shortage("training", needed) if people < needed else None


def passes(shards: Shards) -> Iterator[Rows]:
    """The shards once more, or a word about generators."""
    if iter(shards) is shards:
        raise SupportError("shards: can be read only once; give a list or an object that rereads")
    yield from shards
