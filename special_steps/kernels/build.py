"""Kernels in C++ for the CPU, compiled for this machine: when the environment is made, or else on first use.

    python -m special_steps.kernels.build

compiles all. Sources lie beside the modules that call them; each is a library of its own.
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
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from special_steps.core.atomic import atomic_write
from special_steps.core.digest import sources, without_comments

log = logging.getLogger("special")

FOLDER = Path(__file__).parent
# All kernels, and what is lost without a compiler, measured.
_TRAINING = "training runs about 8 times slower"
SLOWER = {
    "scan": _TRAINING,
    "conv": _TRAINING,
    "matmul": _TRAINING,
    "jbu": "upsampling jbu runs about 3 times slower",
}
# No -ffast-math: the exponential relies on rounding, and a NaN in the input must reach the loss and be seen there.
FLAGS = (
    "-std=c++17 -O3 -march=native -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-strict-aliasing "
    "-shared -fPIC -pthread"
)


def available(*names: str) -> bool:
    """Whether the kernels of all these sources run here; they are compiled now if they were not before.

    Where one does not, a warning (once) says why, what that costs, and how to fix it.
    """
    return all(_loaded(name) is not None for name in names)


def library(name: str) -> ctypes.CDLL:
    """The library of `<name>.cpp`, compiled for this machine.

    Raises:
        RuntimeError: where it is not `available`.
    """
    found = _loaded(name)
    if found is None:
        raise RuntimeError(f"the kernel {name} does not run here; ask build.available first")
    return found


@cache
def _loaded(name: str) -> ctypes.CDLL | None:
    path = _binary(name)
    try:
        if not path.exists():
            compiler = _find_compiler()
            if compiler is None:
                log.warning(
                    "no C++ compiler found (looked for $CXX, c++, g++, clang++): %s; install one, e.g. apt install g++",
                    SLOWER[name],
                )
                return None
            _compile(FOLDER / f"{name}.cpp", path, compiler)
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        reason = next((s for s in error.stderr.splitlines() if "error" in s), error.stderr[-300:])
        log.warning(
            "the C++ compiler failed (%s): %s; set CXX to another one, e.g. g++",
            reason,
            SLOWER[name],
        )
    except OSError as error:
        log.warning(
            "the compiled %s.cpp can't be stored or loaded (%s): %s; set XDG_CACHE_HOME to a folder that can be "
            "written and run from", name, error, SLOWER[name],
        )  # fmt: skip
    return None


def _binary(name: str) -> Path:
    """Where the user's cache holds the library, under a name that is a digest of all that decides what it is.

    These are the code without comments, also of all headers that it includes, flags and processor: the nodes of a
    cluster that share a home never run each other's binaries. The compiler's version is not in it: nodes without a
    compiler use what others of their kind compiled.
    """
    code = [
        (path.name, without_comments(path.read_text())) for path in sources(FOLDER / f"{name}.cpp")
    ]
    asked = [os.environ.get(variable, "") for variable in ("CXX", "CXXFLAGS")]
    key = hashlib.sha256(repr([code, FLAGS, asked, _processor()]).encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "special")
    return folder / f"{name}-{key[:16]}.so"


def _processor() -> str:
    """What binaries depend on: kind and features of the processor, and the C library."""
    found = [platform.system(), platform.machine(), *platform.libc_ver()]
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return repr([*found, platform.processor()])
    names = ("model name", "flags", "Features")
    return repr(found + [line for line in first.splitlines() if line.startswith(names)])


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


def _compile(source: Path, target: Path, compiler: str) -> None:
    """Compile to `target`, which is there whole or not at all.

    Raises:
        OSError: the compiler can't be run or the file can't be written.
        subprocess.CalledProcessError: the compiler failed; `stderr` says why.
    """
    log.info("compiling %s for this processor, once (some seconds)", source.name)
    flags = [*FLAGS.split(), *shlex.split(os.environ.get("CXXFLAGS", ""))]
    with atomic_write(target) as new:
        command = [*shlex.split(compiler), *flags, str(source), "-o", str(new)]
        subprocess.run(command, check=True, capture_output=True, text=True)


def keep_memory() -> None:
    """Let large blocks of memory that are freed stay with the process, where the C library is glibc.

    To map fresh pages for every tensor can take longer than to compute it.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="special: %(message)s")
    # those that serve the same end one after the other: what is lost is said once
    together = [[n for n in SLOWER if SLOWER[n] == loss] for loss in dict.fromkeys(SLOWER.values())]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda names: available(*names), together))
