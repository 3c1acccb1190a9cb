"""Evidence cells hold enough patients, lie where patients are, and are the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ogsrl.guardian.cells import CELL_PATIENTS, Cells, fair, find_centers, kept_out, measure


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def clouds(seed: int, each: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Four clouds ten apart; a patient has four rows."""
    rng = np.random.default_rng(seed)
    centers = np.repeat([[0.0, 0], [10, 0], [0, 10], [10, 10]], each, axis=0)
    x = torch.tensor(centers + rng.normal(size=centers.shape), dtype=torch.float32)
    return x, torch.arange(len(x)) // 4


def made(x: torch.Tensor, patient: torch.Tensor, cells: int = 25) -> Cells:
    return measure(find_centers(x, patient, generator(), cells), [(x, patient)])


def test_the_nearest_cell_is_the_nearest() -> None:
    x, patient = clouds(1)
    cells = made(x, patient)
    gaps = torch.cdist(x.double(), cells.centers.double())
    assert torch.equal(cells.nearest(x), gaps.argmin(dim=1))
    wanted = gaps.amin(dim=1) / cells.radius[cells.nearest(x)]
    torch.testing.assert_close(cells.distance(x).double(), wanted, rtol=1e-4, atol=1e-5)


def test_every_cell_holds_ten_patients_and_every_row_is_counted() -> None:
    x, patient = clouds(2)
    cells = made(x, patient)
    assert int(cells.patients.min()) >= CELL_PATIENTS
    assert int(cells.rows.sum()) == len(x)
    assert len(cells) >= 4
    gaps = torch.cdist(torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]]), cells.centers)
    assert float(gaps.amin(dim=1).max()) < 2.0  # each cloud has one


def test_a_patient_of_many_rows_makes_no_cell_of_his_own() -> None:
    x, patient = clouds(3)
    lone = torch.full((300, 2), 40.0) + 0.1 * torch.randn((300, 2), generator=generator())
    cells = made(torch.cat([x, lone]), torch.cat([patient, torch.full((300,), 10_001)]))
    assert int(cells.patients.min()) >= CELL_PATIENTS
    assert float(torch.cdist(torch.tensor([[40.0, 40.0]]), cells.centers).min()) > 5


def test_a_centre_is_the_mean_of_ten_patients_rows() -> None:
    x, patient = clouds(3)
    # ten patients lie near one another, but three are kept out: the mean would be of seven
    ten = 800 + torch.arange(10).repeat_interleave(30)
    lone = torch.full((300, 2), 40.0) + 0.1 * torch.randn((300, 2), generator=generator())
    every = torch.cat([patient, ten])
    assert int(kept_out(every)[-300:].sum()) == 90
    cells = made(torch.cat([x, lone]), every)
    assert float(torch.cdist(torch.tensor([[40.0, 40.0]]), cells.centers).min()) > 1
    assert int(cells.patients.min()) >= CELL_PATIENTS


def test_counts_over_shards_add_up_to_those_of_one() -> None:
    x, patient = clouds(4)
    centers = find_centers(x, patient, generator(), 25)
    shards = [(x[patient % 3 == i], patient[patient % 3 == i]) for i in range(3)]
    whole, summed = measure(centers, [(x, patient)]), measure(centers, shards)
    assert torch.equal(whole.patients, summed.patients)
    assert torch.equal(whole.rows, summed.rows)
    torch.testing.assert_close(whole.radius, summed.radius)


def test_the_same_rows_make_the_same_cells() -> None:
    x, patient = clouds(5)
    assert torch.equal(*(find_centers(x, patient, generator(), 25) for _ in range(2)))


def test_patients_kept_out_lie_as_far_as_new_ones() -> None:
    x, patient = clouds(6, each=2000)
    new, _ = clouds(7, each=2000)
    cells = made(x, patient, 100)
    out = cells.distance(x[fair(patient)]).quantile(0.95)
    assert float(out) == pytest.approx(float(cells.distance(new).quantile(0.95)), rel=0.05)
    assert 0.2 < float(kept_out(patient).double().mean()) < 0.3


def test_very_few_patients_are_one_cell() -> None:
    x = torch.randn((24, 3), generator=generator())
    cells = made(x, torch.arange(24) // 4)
    assert len(cells) == 1
    assert int(cells.patients[0]) == 6
