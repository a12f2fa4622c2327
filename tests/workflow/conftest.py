"""Runs of the real workflow, small enough to test with."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SNAKEFILE = ROOT / "workflow" / "Snakefile"

# the demo scene, trained just long enough to go through every line
SMALL = {
    "scenes": yaml.safe_load((ROOT / "config.yaml").read_text())["scenes"],
    "seeds": [0],
    "scales": [1],
    "training": {"epochs": 4, "warmup_epochs": 2, "iterations": 2},
}


def command(*options: str, cores: int = 2) -> list[str]:
    """The command line of a run in the present folder."""
    snakemake = [sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE)]
    return [*snakemake, "--cores", str(cores), "--configfile", "my.yaml", *options]


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


def kill_group(process: subprocess.Popen) -> None:
    """Kill -9 a run with all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
