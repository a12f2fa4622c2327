"""envs/: run.sh makes the environment once, gpu.sh adds to it; what they say where they cannot work."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from runs import ROOT

import special_steps

OLD = '#!/bin/sh\ncase "$*" in *version_info*) exit 1;; --version) echo Python 3.9.2;; esac\n'
BARE = '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\n'


@pytest.fixture
def project(tmp_path) -> Path:
    """A project with the real run.sh and pyproject.toml, a package of one line, and a lock of no packages."""
    for file in ("envs/run.sh", "envs/requirements.in", "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    for file in ("envs/requirements.txt", "envs/compiler.txt"):
        (tmp_path / file).write_text("")
    (tmp_path / "special_steps").mkdir()
    (tmp_path / "special_steps" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    # the lock brings setuptools; here the present environment's is lent
    (tmp_path / "lent").mkdir()
    for path in Path(sysconfig.get_path("purelib")).glob("setuptools*"):
        (tmp_path / "lent" / path.name).symlink_to(path)
    return tmp_path


def start(project: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHON": sys.executable,
        "PYTHONPATH": str(project / "lent"),
        "HOME": str(project),
    }
    call = ["bash", str(project / "envs" / "run.sh"), *command]
    return subprocess.run(
        call, env=environment | variables, capture_output=True, text=True, cwd="/"
    )


def fake(project: Path, text: str) -> str:
    path = project / "fake-python"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_an_old_python_is_reported_with_its_version(project):
    done = start(project, "true", PYTHON=fake(project, OLD))
    assert done.returncode != 0
    assert "3.11" in done.stderr
    assert "3.9.2" in done.stderr
    assert not (project / ".venv").exists()


def test_a_missing_venv_module_is_reported_with_the_fix(project):
    done = start(project, "true", PYTHON=fake(project, BARE))
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr


NOWHERE = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_RETRIES": "0",
    "PIP_NO_CACHE_DIR": "1",
}


@pytest.mark.slow
def test_a_registry_out_of_reach_is_reported(project):
    (project / "envs" / "requirements.txt").write_text("six==1.16.0\n")
    done = start(project, "true", **NOWHERE)
    assert done.returncode != 0
    assert "network" in done.stderr
    # the half-made environment is not taken for a whole one
    assert start(project, "true", **NOWHERE).returncode != 0


@pytest.mark.slow
def test_without_a_compiler_one_is_installed_unless_it_is_kept_out(project):
    programs = project / "programs"  # what a bare machine has, and no compiler
    programs.mkdir()
    for name in ("bash", "cat", "cmp", "dirname", "grep", "head", "rm", "tail", "true"):
        (programs / name).symlink_to(shutil.which(name))
    bare = NOWHERE | {"PATH": str(programs)}
    kept_out = start(project, "true", SPECIAL_NO_COMPILER="1", **bare)
    assert kept_out.returncode == 0, kept_out.stderr
    assert "no C++ compiler here" not in kept_out.stderr
    (project / "envs" / "compiler.txt").write_text("six==1.16.0\n")
    done = start(project, "true", **bare)
    assert "no C++ compiler here" in done.stderr
    assert "several times slower" in done.stderr, "the registry is out of reach"
    assert done.returncode == 0, "plain torch does the work"


@pytest.mark.slow
def test_the_environment_is_made_once_and_again_when_the_lock_changes(project):
    show = "import sys, special_steps; print(sys.prefix, special_steps.__file__)"
    version = "import importlib.metadata; print(importlib.metadata.version('special-steps'))"
    first = start(project, "python", "-c", show)
    assert first.returncode == 0, first.stderr
    package = project / "special_steps" / "__init__.py"
    assert first.stdout.split() == [str(project / ".venv"), str(package)], "found from any folder"
    assert "making" in first.stderr
    second = start(project, "python", "-c", version)
    assert "making" not in second.stderr
    assert second.stdout.strip() == "1.2.3", "the version is the package's own"
    (project / "envs" / "requirements.txt").write_text("# changed\n")
    assert "making" in start(project, "true").stderr


def test_the_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == special_steps.__version__


def test_hooks_before_a_commit_are_the_checks_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    checks = [line for line in lines if line.startswith("bash envs/run.sh")]
    assert [hook["entry"] for hook in hooks] == [c for c in checks if "pytest" not in c]


# --- envs/gpu.sh -------------------------------------------------------------------------------


@pytest.fixture
def cuda(tmp_path) -> Path:
    """A toolkit's folder whose bin/ has nvcc (CUDA 13.0), a driver with cards, a Python with torch (CUDA 13.2)."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda_runtime.h").touch()
    for name, text in {
        "nvcc": 'echo "Cuda compilation tools, release 13.0, V13.0.88" "$@"',
        "nvidia-smi": "echo 9.0; echo 9.0",
        "python": "echo 13.2; case $* in *pip*) echo ERROR: no such package; exit 1;; esac",
    }.items():
        program(tmp_path / "bin" / name, text)
    return tmp_path


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def add_gpu(cuda: Path) -> list[str]:
    """What envs/gpu.sh says on such a machine; it never succeeds here."""
    environment = {
        "PATH": f"{cuda / 'bin'}:/usr/bin:/bin",
        "CUDA_HOME": str(cuda),
        "PYTHON": str(cuda / "bin" / "python"),
    }
    call = ["bash", str(ROOT / "envs" / "gpu.sh"), str(cuda / "wheels")]
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nvidia-smi", None, "no NVIDIA driver"),
        ("nvidia-smi", "echo No devices were found; exit 6", "finds no card: No devices"),
        ("nvcc", None, "no CUDA toolkit with nvcc"),
        ("nvcc", "echo release 12.4, V12", "is of CUDA 12.4, torch of CUDA 13.2: install"),
        ("python", "exit 1", "has no torch"),
        ("python", "echo", "built without CUDA"),
        ("python", None, "has no torch"),
    ],
)
def test_what_a_gpu_machine_lacks_is_reported_in_one_line(cuda, name, text, message):
    (cuda / "bin" / name).unlink()
    if text:
        program(cuda / "bin" / name, text)
    if name == "nvidia-smi" and not text and shutil.which(name, path="/usr/bin:/bin"):
        pytest.skip("this machine has an NVIDIA driver")
    (line,) = add_gpu(cuda)
    assert message in line


def test_a_package_that_does_not_install_is_reported(cuda):
    (line,) = add_gpu(cuda)
    assert "ERROR: no such package" in line


def test_kernels_are_compiled_for_the_card_that_is_here_only(cuda):
    script = ROOT / "envs" / "nvcc_one_card.sh"
    environment = {"PATH": "/usr/bin:/bin", "CUDA_HOME": str(cuda), "NVCC_CARDS": "90"}

    def words(*given: str) -> list[str]:
        done = subprocess.run([script, *given], env=environment, capture_output=True, text=True)
        return done.stdout.split()[6:]

    ours = ["-gencode", "arch=compute_90,code=sm_90"]
    others = ["-gencode", "arch=compute_75,code=sm_75", "-gencode=arch=compute_80,code=sm_80"]
    assert words("-c", *others, "a.cu") == ["-c", "a.cu", *ours]
    assert words("--version") == ["--version"]
