"""envs/run.sh: what it says where it cannot work, and that it makes the environment once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT

OLD = '#!/bin/sh\ncase "$*" in *version_info*) exit 1;; --version) echo Python 3.9.2;; esac\n'
BARE = '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\n'


@pytest.fixture
def project(tmp_path) -> Path:
    """A project with run.sh and a lock of no packages."""
    (tmp_path / "envs").mkdir()
    shutil.copy(ROOT / "envs" / "run.sh", tmp_path / "envs")
    (tmp_path / "envs" / "requirements.txt").write_text("")
    return tmp_path


def start(project: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "HOME": str(project)}
    call = ["bash", str(project / "envs" / "run.sh"), *command]
    return subprocess.run(
        call, env=environment | variables, capture_output=True, text=True, cwd="/"
    )


def fake(project: Path, text: str) -> str:
    path = project / "fake-python"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_an_old_python_is_told_with_its_version(project):
    done = start(project, "true", PYTHON=fake(project, OLD))
    assert done.returncode != 0
    assert "3.11" in done.stderr
    assert "3.9.2" in done.stderr
    assert not (project / ".venv").exists()


def test_a_missing_venv_module_is_told_with_the_fix(project):
    done = start(project, "true", PYTHON=fake(project, BARE))
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr


def test_a_registry_out_of_reach_is_told(project):
    (project / "envs" / "requirements.txt").write_text("six==1.16.0\n")
    nowhere = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }
    done = start(project, "true", **nowhere)
    assert done.returncode != 0
    assert "network" in done.stderr
    # the half-made environment is not taken for a whole one
    assert start(project, "true", **nowhere).returncode != 0


def test_the_environment_is_made_once_and_again_when_the_lock_changes(project):
    print_prefix = ("python", "-c", "import sys; print(sys.prefix, sys.path)")
    first = start(project, *print_prefix)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(str(project / ".venv"))
    assert f"'{project}'" in first.stdout, "the package is found from any folder"
    assert "making" in first.stderr
    assert "making" not in start(project, *print_prefix).stderr
    (project / "envs" / "requirements.txt").write_text("# changed\n")
    assert "making" in start(project, *print_prefix).stderr
