"""What tests of whole runs share."""

import pytest

from tests.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A fresh clone after a small whole run."""
    made = Workspace.make(tmp_path_factory.mktemp("clone"), patients=1500)
    made.call("./run", "repro")
    return made
