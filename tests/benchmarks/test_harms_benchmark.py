"""Harms: caught is what fails for its own reason; clean cohorts are counted by what fails there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harms
from benchmarks._harms_planted import HARMS, Harm
from ogsrl.audit.config import AuditParams


def audited(
    failed: Sequence[str] = (), *, beyond: Sequence[str] = (), said: Mapping[str, str] | None = None
) -> dict[str, Any]:
    return {
        "verdict": "failed" if failed else "passed",
        "passed": [name for name in AuditParams.model_fields if name not in failed],
        "failed": list(failed),
        "undecided": [],
        "beyond": list(beyond),
        "said": said or {},
    }


def test_at_least_twelve_harms_each_with_a_reason_of_its_own() -> None:
    assert len({harm.name for harm in HARMS}) == len(HARMS) >= 12
    for harm in HARMS:
        assert bool(harm.gates) != (harm.refused is not None), harm.name
        assert {*harm.gates} <= {*AuditParams.model_fields}, harm.name


def test_caught_is_what_fails_for_its_own_reason() -> None:
    harm = Harm("h", (), gates=("constraints", "cloning"))
    assert harms.caught(harm, audited(["cloning"]), audited())
    assert not harms.caught(harm, audited(), audited())
    assert not harms.caught(harm, audited(["seeds"]), audited()), "another reason"


def test_what_failed_before_is_no_reason_unless_it_is_beyond_its_limit_only_now() -> None:
    harm = Harm("h", (), gates=("constraints",))
    before = audited(["constraints"])
    assert not harms.caught(harm, audited(["constraints"]), before)
    assert harms.caught(harm, audited(["constraints"], beyond=["constraints"]), before)
    worse = audited(["constraints"], beyond=["constraints"])
    assert not harms.caught(harm, worse, worse)


def test_a_refusal_is_of_its_stage_and_names_what_is_wrong() -> None:
    harm = Harm("h", (), refused=("validate", "iv_fluid"))
    assert harms.caught(harm, {"refused": ("validate", "iv_fluid: too small")}, audited())
    assert not harms.caught(harm, {"refused": ("validate", "map: too small")}, audited())
    assert not harms.caught(harm, {"refused": ("prepare", "iv_fluid: too small")}, audited())
    assert not harms.caught(harm, audited(["contract"]), audited()), "nothing was refused"


def test_a_refusal_where_none_was_expected_is_a_miss() -> None:
    harm = Harm("h", (), gates=("cloning",))
    assert not harms.caught(harm, {"refused": ("planting", "nobody was put forward")}, audited())


def test_too_few_patients_must_be_said() -> None:
    harm = Harm("h", (), gates=("detectable",), few=300)
    assert harms.caught(
        harm, audited(["cloning"], said={"detectable": "too few patients: 60"}), audited()
    )
    assert not harms.caught(harm, audited(["cloning"], said={"detectable": "wide"}), audited())


def test_clean_cohorts_are_counted_by_what_fails_and_nulls_by_their_word() -> None:
    open_ = {**audited(["better"]), "passed": []}
    said = {word: {"word": word} for word in ("cannot tell", "better", "worse")}
    clean = [
        {"audit": audited(), "null": said["cannot tell"], "draws": said["better"], "apart": 0.1},
        {"audit": open_, "null": said["better"], "draws": said["better"], "apart": -0.2},
        {
            "audit": audited(["better", "cloning"]),
            "null": said["worse"],
            "draws": said["worse"],
            "apart": 0.0,
        },
    ]
    made = harms.figures([{"clean": clean}, {"harms": {"a": True, "b": False}}])
    assert (made["clean_cohorts"], made["default_passes"], made["default_better"]) == (3, 2, 1)
    assert (made["null_passes"], made["draws_passes"], made["null_apart"]) == (1, 2, 0.2)
    assert (made["harms_total"], made["harms_caught"], made["harms_kinds"]) == (2, 1, 2)
    assert made["clean_failed_cloning"] == 1


@pytest.mark.slow
def test_a_quick_run_catches_what_it_plants_and_is_kept(tmp_path: Path) -> None:
    arguments = ["--quick", "--processes", "1", "--work", str(tmp_path)]
    made = harms.main(arguments)
    assert made["harms_caught"] == made["harms_total"] == 3
    assert made["clean_cohorts"] == 2
    own, other = sorted(tmp_path.rglob("null-*.json"), key=lambda file: len(str(file)))
    told = json.loads(other.read_text())
    assert told["estimate"] != json.loads(own.read_text())["estimate"], "they are other patients"
    other.write_text(json.dumps(told | {"word": "better"}))
    assert harms.main(arguments)["null_passes"] >= 1, "kept, not measured again"
