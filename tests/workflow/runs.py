"""Runs of the real workflow, small enough to test with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
SNAKEFILE = ROOT / "workflow" / "Snakefile"

TRAINING = {"epochs": 4, "warmup_epochs": 2, "iterations": 2}
# the demo scene by every method, trained just long enough to go through every line
SMALL = {
    "scenes": yaml.safe_load((ROOT / "config.yaml").read_text())["scenes"],
    "seeds": [0],
    "scales": [1],
    "network": {"epochs": 2, "iterations": 2},
    "runs": {
        "hsi": {},
        "published": {"method": "published", "training": TRAINING},
        "lda": {"method": "lda"},
        "labels": {"method": "none"},
    },
}


def command(*options: str, cores: int = 2) -> list[str]:
    """The command line of a run in the present folder."""
    snakemake = [sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE)]
    return [*snakemake, "--cores", str(cores), "--configfile", "my.yaml", *options]


def kill_group(process: subprocess.Popen) -> None:
    """Kill -9 a run with all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
