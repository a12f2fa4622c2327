"""The benchmarks run; what they measure is not judged here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("scan", ["500"], "x the floor"),
        ("training", ["16", "12", "8", "--rounds", "1"], "peak memory"),
        ("dense_clip", ["--help"], "turns that count"),  # a whole run takes minutes
    ],
)
def test_it_runs(name, arguments, told):
    words = [sys.executable, ROOT / "tests" / "benchmarks" / f"{name}.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(words, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
