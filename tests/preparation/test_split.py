"""A patient's part depends on the patient's id and the key, and on nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ogsrl.errors import LeakageError, PreparationError
from ogsrl.preparation import PARTS, PrepareParams, assign_parts, check_disjoint, hash_position

IDS = pd.Series([f"P{i:06d}" for i in range(20_000)], dtype="str")
ids = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=30)


def test_parts_have_the_shares_asked_for() -> None:
    found = assign_parts(IDS, PrepareParams()).value_counts(normalize=True)
    for part, share in zip(PARTS, (0.5, 0.15, 0.15, 0.2), strict=True):
        assert abs(found[part] - share) < 4 * np.sqrt(share * (1 - share) / len(IDS))


@given(ids, ids)
def test_adding_patients_moves_nobody(old: list[str], new: list[str]) -> None:
    before = assign_parts(pd.Series(old, dtype="str"), PrepareParams())
    after = assign_parts(pd.Series(new + old, dtype="str"), PrepareParams())
    assert after.tolist()[len(new) :] == before.tolist()


@given(st.permutations(range(40)))
def test_order_and_shards_do_not_matter(order: list[int]) -> None:
    some = IDS.iloc[:40]
    whole = assign_parts(some, PrepareParams())
    one, other = some.iloc[order[:13]], some.iloc[order[13:]]
    shards = pd.concat([assign_parts(part, PrepareParams()) for part in (one, other)])
    pd.testing.assert_series_equal(shards.sort_index(), whole)


def test_another_key_is_another_split() -> None:
    one = assign_parts(IDS, PrepareParams())
    other = assign_parts(IDS, PrepareParams(split_key="another"))
    assert 0.3 < (one == other).mean() < 0.4  # what chance gives: the sum of squared shares


def test_positions_are_uniform() -> None:
    place = np.sort(hash_position(IDS, "ogsrl"))
    assert place[0] >= 0
    assert place[-1] < 1
    assert np.abs(place - np.linspace(0, 1, len(place))).max() < 1.95 / np.sqrt(len(place))


def test_the_split_is_the_same_on_every_machine() -> None:
    assert assign_parts(IDS.iloc[::2000], PrepareParams()).tolist() == [
        *("train", "validation", "train", "train", "calibration"),
        *("test", "train", "train", "train", "train"),
    ]


def test_the_sources_own_split_is_honoured_when_asked() -> None:
    params = PrepareParams(honour_source_splits=True)
    source = pd.Series(["train"] * 16_000 + ["tuning"] * 2000 + ["held_out"] * 2000, dtype="str")
    found = assign_parts(IDS, params, source)
    assert set(found[source == "held_out"]) == {"test"}
    assert set(found[source == "tuning"]) == {"validation"}
    among = found[source == "train"].value_counts(normalize=True)
    assert set(among.index) == {"train", "calibration"}
    assert abs(among["train"] - 0.5 / 0.65) < 0.02


def test_an_honoured_split_that_is_not_there_or_not_known_is_an_error() -> None:
    params = PrepareParams(honour_source_splits=True)
    with pytest.raises(PreparationError, match="no column `split`"):
        assign_parts(IDS, params)
    source = pd.Series(["train"] * (len(IDS) - 2) + ["secret", None], dtype="str")
    with pytest.raises(PreparationError, match="2 rows name none") as caught:
        assign_parts(IDS, params, source)
    assert "secret" not in str(caught.value)


def test_a_row_without_a_patient_is_an_error() -> None:
    with pytest.raises(PreparationError, match="1 rows without one"):
        assign_parts(pd.Series(["P1", None], dtype="str"), PrepareParams())


def test_a_patient_in_two_parts_is_an_error_that_names_nobody() -> None:
    with pytest.raises(LeakageError, match=r"2 patients .*train and test: 2") as caught:
        check_disjoint({"train": ["ID-A", "ID-B"], "test": ["ID-A", "ID-B"], "validation": []})
    assert "ID-" not in str(caught.value)


def test_shares_that_do_not_add_up_are_an_error() -> None:
    with pytest.raises(ValidationError, match="add up to"):
        PrepareParams.model_validate({"split": {"train": 0.8}})
