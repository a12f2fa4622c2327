"""What all tests share."""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the workflow; before torch is loaded

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def parity() -> Path:
    """Golden inputs and outputs of the published operators, with random weights: see README.md there."""
    return ROOT / "tests" / "data" / "parity"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' data folder beside the project; users do not have it."""
    folder = ROOT.parent / "shared"
    if not (folder / "DESIGN.md").is_file():
        pytest.skip("the developers' shared data folder is not beside the project")
    return folder
