"""Runs of the real workflow that several tests look at."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from lines import cut_campaign
from runs import CAMPAIGN, SMALL, command

from special_steps.demo import demo


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


@pytest.fixture(scope="session")
def campaign(run, tmp_path_factory) -> Path:
    """A folder in which the lines of the config CAMPAIGN are mapped."""
    folder = tmp_path_factory.mktemp("campaign")
    demo(out=folder / "demo", seed=0)
    cut_campaign(folder / "demo", folder)
    assert run(folder, CAMPAIGN).returncode == 0
    return folder
