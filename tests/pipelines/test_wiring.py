"""dvc.yaml names all that a stage's code is made of, and every stage is in it."""

from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from pipelines.__main__ import STAGES
from pipelines.params import Params

REPOSITORY = Path(__file__).resolve().parents[2]
WIRING: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
SHARED = {"pipelines", "pipelines.stage", "pipelines.params", "ogsrl", "ogsrl.errors"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    made = grimp.build_graph("ogsrl", "pipelines")
    for module in ("pipelines.stage", "pipelines.params"):  # settings are dependencies by value
        made.remove_module(module)
    return made


def test_every_stage_is_wired() -> None:
    assert set(WIRING) == set(STAGES)


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "source"])
def test_a_stage_depends_on_all_of_its_code(stage: str, graph: grimp.ImportGraph) -> None:
    used = graph.find_upstream_modules(f"pipelines.{stage}") | {f"pipelines.{stage}"}
    listed = [dep for dep in WIRING[stage]["deps"] if dep.startswith(("ogsrl", "pipelines"))]
    names = [dep.removesuffix(".py").replace("/", ".") for dep in listed]
    missing = {
        module
        for module in used - SHARED
        if not any(module == name or module.startswith(f"{name}.") for name in names)
    }
    assert missing == set()
    own = set(names) - {"pipelines.stage"}
    idle = {n for n in own if not any(m == n or m.startswith(f"{n}.") for m in used)}
    assert idle == set(), "a dependency that the stage does not use"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_s_parameters_exist(stage: str) -> None:
    known = {field.alias or name for name, field in Params.model_fields.items()}
    assert {name.split(".")[0] for name in WIRING[stage].get("params", [])} <= known
