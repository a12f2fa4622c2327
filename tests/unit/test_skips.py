"""Skips in CI: tests/conftest.py against tests/expected_skips.txt."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_passes(): pass

@pytest.mark.xfail
def test_is_known_to_fail(): assert False

@pytest.mark.parametrize("size", [1])
def test_of_a_scene(size): pytest.skip("no scene here")
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "tests").mkdir()
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path / "tests")
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    (tmp_path / "tests" / "test_whole.py").write_text("import pytest; pytest.importorskip('nope')")

    def call(expected: str, ci: str = "true") -> subprocess.CompletedProcess:
        (tmp_path / "tests" / "expected_skips.txt").write_text(expected)
        words = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider"]
        environment = os.environ | {"CI": ci}
        return subprocess.run(
            words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )

    return call


def test_a_run_with_listed_skips_passes(run):
    done = run("# why\n*: no scene here\n\ntests/test_whole.py: could not import *\n")
    assert done.returncode == 0, done.stdout
    assert "no scene here" in done.stdout


def test_a_run_with_another_skip_fails_and_names_it(run):
    done = run("tests/test_whole.py*\n")
    assert done.returncode == 1
    assert "tests/test_it.py::test_of_a_scene[1]: no scene here" in done.stdout.splitlines()


def test_outside_ci_every_skip_is_fine(run):
    assert run("", ci="").returncode == 0
