"""Runs of the real workflow that several tests look at."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from runs import SMALL, command


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess]:
    """Run the workflow in a folder with a config; output is text, stderr with stdout."""

    def call(folder: Path, config: dict, *options: str) -> subprocess.CompletedProcess:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "my.yaml").write_text(yaml.safe_dump(config))
        done = subprocess.run(
            command(*options),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        print(done.stdout[-8000:])
        return done

    return call


@pytest.fixture(scope="session")
def finished(run, tmp_path_factory) -> Path:
    """A folder in which the small run is done. Tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(folder, SMALL).returncode == 0
    return folder
