"""Runs of the real workflow, small enough to test with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml
from lines import LABELS, line

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

# lines cut from it (tests/workflow/lines.py): two that one classifier learns from, and one of another sensor, mapped
# without training
CAMPAIGN = {
    "scenes": {
        "line1": line("line1", classes=[*LABELS]),
        "line2": line("line2", classes=[*LABELS]),
        "line3": line("line3", apply={"from": "line1/hsi"}),
    },
    "train_together": ["line1", "line2"],
    "clip": "none",
    "seeds": [0],
    "network": {"epochs": 2, "iterations": 2},
    "runs": {"hsi": {}},
}


def command(*options: str, cores: int = 2) -> list[str]:
    """The command line of a run in the present folder."""
    snakemake = [sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE)]
    return [*snakemake, "--cores", str(cores), "--configfile", "my.yaml", *options]


def kill_group(process: subprocess.Popen) -> None:
    """Kill -9 a run with all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
