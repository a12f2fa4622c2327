"""Times of the kernels in Triton by the sizes that they are cut to, on a CUDA machine:

    python tests/gpu/sweep.py

Every choice is translated first in a process of its own, side by side (`--translate` does only that, `--measure` only
the rest); Triton keeps what it has translated.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from special_steps.kernels import conv_triton, scan_triton
from special_steps.kernels.scan import ScanInputs

SCAN = [
    {},
    {"tile": 2},
    {"tile": 8},
    {"chunk": 32},
    {"chunk": 128},
    {"warps": 2},
    {"tile": 2, "warps": 2},
    {"tile": 8, "warps": 2},
    {"lanes": 16, "channels": 16},
    {"lanes": 16, "channels": 16, "tile": 2},
    {"lanes": 64, "warps": 2},
    {"lanes": 64, "warps": 4},
    {"lanes": 128, "warps": 4},
    {"across": 128, "across_lanes": 8},
]
CONV = [(1024, 4), (2048, 4), (512, 4), (1024, 2)]  # VALUES, WARPS
SHAPES = {"spatial": (1, 783_640, 32), "spectral": (783_640, 4, 8)}
SMALL = {"spatial": (1, 2000, 32), "spectral": (500, 4, 8)}  # for which the kernels are the same
STATES = 16


def scan(shape: tuple[int, int, int]) -> tuple[Callable[[], object], Callable[[], object]]:
    """Calls of the forward and the backward pass."""
    *rows, channels = shape
    u, delta, grad = (torch.randn(shape, device="cuda") for _ in range(3))
    xz, both = (torch.randn(*rows, n, device="cuda") for n in (2 * channels, 1 + 2 * STATES))
    B, C = both[..., 1 : 1 + STATES], both[..., 1 + STATES :]
    A = -torch.arange(1.0, STATES + 1, device="cuda").repeat(channels, 1)
    D = torch.ones(channels, device="cuda")
    inputs = ScanInputs(u, delta, A, B, C, D, xz[..., channels:], D - 5)
    saved = scan_triton.scan_forward(inputs, True)[2]
    dxz, dboth, du, ddelta, out = (torch.empty_like(x) for x in (xz, both, u, u, u))
    into = {"du": du, "ddelta": ddelta, "dz": dxz[..., channels:], "out": out}
    into |= {"dB": dboth[..., 1 : 1 + STATES], "dC": dboth[..., 1 + STATES :]}
    return (
        lambda: scan_triton.scan_forward(inputs, True),
        lambda: scan_triton.scan_backward(inputs, saved, grad, None, into),
    )


def conv(shape: tuple[int, int, int]) -> tuple[Callable[[], object], Callable[[], object]]:
    """Calls of the forward and the backward pass."""
    *rows, channels = shape
    xz, dxz = (torch.randn(*rows, 2 * channels, device="cuda") for _ in range(2))
    x, grad = xz[..., :channels], torch.randn(shape, device="cuda")
    weight, bias = torch.randn(4, channels, device="cuda"), torch.randn(channels, device="cuda")
    return (
        lambda: conv_triton.conv_forward(x, weight, bias, None),
        lambda: conv_triton.conv_backward(x, weight, bias, None, grad, dxz[..., :channels]),
    )


def milliseconds(call: Callable[[], object], times: int) -> float:
    """The median time of a call on the GPU."""
    found = []
    for _ in range(times + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return sorted(found[1:])[times // 2]


def choices() -> list[tuple[str, Callable, Callable[[], None]]]:
    """Every choice: its name, what is run, and what sets it."""
    found: list[tuple[str, Callable, Callable[[], None]]] = []
    for choice in SCAN:
        sizes = scan_triton.SIZES._replace(**choice)
        found.append((f"scan {choice}", scan, lambda s=sizes: setattr(scan_triton, "SIZES", s)))
    for values, warps in CONV:

        def cut(values: int = values, warps: int = warps) -> None:
            conv_triton.VALUES, conv_triton.WARPS = values, warps

        found.append((f"conv {values} values, {warps} warps", conv, cut))
    return found


def run(number: int, shapes: dict, times: int) -> None:
    """Print the times of a choice."""
    name, make, cut = choices()[number]
    cut()
    words = []
    for what, shape in shapes.items():
        try:
            calls = make(shape)
            forward, backward = (milliseconds(call, times) for call in calls)
            words.append(f"{what} {forward:6.3f} + {backward:6.3f} ms")
        except Exception as error:  # the others shall be seen
            words.append(f"{what} FAILED {type(error).__name__}: {str(error)[:200]}")
    print(f"{name:45s} {'   '.join(words)}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--translate", action="store_true")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    if options.only is not None:
        run(options.only, SMALL, 1)
        return
    if not options.measure:
        translate_all()
    if not options.translate:
        print("forward + backward:", flush=True)
        for number in range(len(choices())):
            run(number, SHAPES, 5)


def translate_all() -> None:
    """Run every choice on small tensors."""
    begin = time.perf_counter()
    words = [sys.executable, __file__, "--only"]
    quiet = {"stdout": subprocess.DEVNULL, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    processes = [subprocess.Popen([*words, str(i)], **quiet) for i in range(len(choices()))]
    for process in processes:
        process.wait()
    print(f"translated in {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
