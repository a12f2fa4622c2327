"""Kernels in C++ for the CPU, compiled for this machine: at environment time, or else on first use.

    python -m special_steps.kernels.build

compiles all. Sources lie beside the modules that call them.
"""

import ctypes
import hashlib
import importlib.util
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger("special")

FOLDER = Path(__file__).parent
# What is lost without a compiler, measured.
SLOWER = {
    "scan": "training runs about 8 times slower",
    "upsample": "upsampling jbu runs about 3 times slower",
}
# No -ffast-math: the exponential relies on rounding, and a NaN in the input must reach the loss and be seen there.
FLAGS = (
    "-std=c++17 -O3 -march=native -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-strict-aliasing "
    "-shared -fPIC -pthread"
)


def _processor() -> str:
    """What binaries depend on: kind and features of the processor, and the C library."""
    found = [platform.system(), platform.machine(), *platform.libc_ver()]
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return repr([*found, platform.processor()])
    names = ("model name", "flags", "Features")
    return repr(found + [line for line in first.splitlines() if line.startswith(names)])


def _compile(source: Path, target: Path, compiler: str) -> None:
    """Compile to `target`, which is there whole or not at all.

    Raises:
        OSError: the compiler can't be run or the file can't be written.
        subprocess.CalledProcessError: the compiler failed; `stderr` says why.
    """
    log.info("compiling %s for this processor, once (some seconds)", source.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        new = Path(aside, target.name)
        own = shlex.split(os.environ.get("CXXFLAGS", ""))
        command = [*shlex.split(compiler), *FLAGS.split(), *own, str(source), "-o", str(new)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        new.replace(target)


def _find_compiler() -> str | None:
    """The machine's compiler, else the one that envs/run.sh installs where there is none; words for the shell.

    $CXX stays unset then, and it is part of the binaries' key: steps and tests find what envs/run.sh compiled.
    """
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    if found := next((n for n in names if n and shutil.which(shlex.split(n)[0])), None):
        return found
    if importlib.util.find_spec("ziglang"):
        return shlex.join([sys.executable, "-m", "ziglang", "c++"])
    return None


@cache
def kernels(name: str) -> ctypes.CDLL | None:
    """The kernels of `<name>.cpp`: from the user's cache, else compiled now; None, with a warning, where that fails.

    The file's name is a digest of source, flags and processor: the nodes of a cluster that share a home never run
    each other's binaries. The compiler's version is not in it: nodes without a compiler use what others of their
    kind compiled.
    """
    source = FOLDER / f"{name}.cpp"
    asked = [os.environ.get(variable, "") for variable in ("CXX", "CXXFLAGS")]
    key = hashlib.sha256(source.read_bytes() + (FOLDER / "simd.h").read_bytes())
    key.update(repr([FLAGS, asked, _processor()]).encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "special")
    path = folder / f"{name}-{key.hexdigest()[:16]}.so"
    slow = SLOWER[name]
    try:
        if not path.exists():
            compiler = _find_compiler()
            if compiler is None:
                log.warning(
                    "no C++ compiler found (looked for $CXX, c++, g++, clang++): %s; install one, e.g. apt install g++",
                    slow,
                )
                return None
            _compile(source, path, compiler)
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        reason = next((s for s in error.stderr.splitlines() if "error" in s), error.stderr[-300:])
        log.warning(
            "the C++ compiler failed (%s): %s; set CXX to another one, e.g. g++", reason, slow
        )
    except OSError as error:
        log.warning(
            "the compiled %s can't be stored or loaded (%s): %s; set XDG_CACHE_HOME to a folder that can be written "
            "and run from", source.name, error, slow,
        )  # fmt: skip
    return None


def keep_memory() -> None:
    """Let large blocks of memory that are freed stay with the process, where the C library is glibc.

    To map fresh pages for every tensor can take longer than to compute it.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(-4, 0)  # M_MMAP_MAX
        library.mallopt(-1, -1)  # M_TRIM_THRESHOLD


def fields(integers: str, *rest: tuple[str, Any]) -> list[tuple[str, Any]]:
    """Fields of a structure that a kernel takes: names of integers, then names with their kind."""
    found = [(name, ctypes.c_int64) for name in integers.split()]
    return found + [(name, kind) for names, kind in rest for name in names.split()]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="special: %(message)s")
    for name in SLOWER:
        kernels(name)
