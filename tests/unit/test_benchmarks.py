"""The benchmarks run; what they measure is not judged here."""

import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from special_steps.kernels import build

ROOT = Path(__file__).resolve().parents[2]
compiled = pytest.mark.skipif(not build.available("scan"), reason="needs a C++ compiler")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        pytest.param("scan", ["500"], "x the floor", marks=compiled),
        ("training", ["16", "12", "8", "--repeats", "1"], "peak memory"),
        ("dense_clip", ["--help"], "turns that count"),  # a whole run takes minutes
    ],
)
def test_it_runs(name, arguments, message):
    words = [sys.executable, ROOT / "tests" / "benchmarks" / f"{name}.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(words, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert message in done.stdout


def test_overhead_of_a_finished_run(tmp_path):
    """One job of 10 s, of which the step itself worked 8 s, in a run of 12 s."""
    start = datetime.now() - timedelta(seconds=12)
    for name, text in (
        (f".snakemake/log/{start:%Y-%m-%dT%H%M%S}.000000.snakemake.log", ""),
        ("benchmarks/demo/rgb.tsv", "s\th:m:s\n10.0\t0:00:10\n"),
        ("logs/demo/rgb.log", "12:00:00 done in 8.0 s\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    words = [sys.executable, ROOT / "tests" / "benchmarks" / "overhead.py", tmp_path]
    message = subprocess.run(words, text=True, capture_output=True, check=True).stdout
    assert "1 jobs: 10 s, of which their steps' own work 8 s" in message
    assert "start and imports: 20 % of the jobs' time" in message
