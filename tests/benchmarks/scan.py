"""The selective scan against its floor: exponentials and memory traffic, in one run.

    python tests/benchmarks/scan.py [TOKENS]

Measured are the kernels' forward and backward pass, as the Mamba block calls them in training.
The floor is what this machine needs for the exponentials that the recurrence can't do without
(one a token, channel and state, forward and once more backward, where the state is recomputed; by
the kernel's own inlined exp2, over data in the first-level cache) or for moving the tensors in and
out of memory once, whichever is longer; all cores.
"""

import argparse
import ctypes
import statistics
import time

import torch

from special_steps.kernels import build
from special_steps.kernels.scan import ScanInputs, scan_backward, scan_forward

CHANNELS, STATES = 32, 16  # the spatial branch of MambaHSI with 16 hidden channels


def exponentials(blocks: torch.Tensor, turns: int) -> None:
    """`turns` times 2**x - 1 of a block for each thread; blocks stay in the cache, results are kept."""
    threads, size = blocks.shape
    numbers = (
        ctypes.c_int64(size),
        ctypes.c_int64(turns),
        ctypes.c_float(1),
        ctypes.c_int64(threads),
    )
    build.library("scan").exponentials(ctypes.c_void_p(blocks.data_ptr()), *numbers)


def timed(call) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print floor, achieved times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokens", type=int, nargs="?", default=207_400, help="610 x 340 pixels")
    length = parser.parse_args().tokens
    if not build.available("scan"):
        raise SystemExit("this measures the compiled kernels: install a C++ compiler first")
    build.keep_memory()
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    u, delta, z, grad = (torch.randn(1, length, CHANNELS) for _ in range(4))
    B, C = (torch.randn(1, length, STATES) for _ in range(2))
    A = -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1)
    D, bias = torch.ones(CHANNELS), torch.full((CHANNELS,), -3.0)
    inputs = ScanInputs(u, delta, A, B, C, D, z, bias)

    def scan() -> None:
        _, _, saved = scan_forward(inputs, training=True)
        into = {name: torch.empty_like(u) for name in ("du", "ddelta", "dz", "out")}
        into |= {name: torch.empty_like(B) for name in ("dB", "dC")}
        scan_backward(inputs, saved, grad, None, into)

    values = length * CHANNELS * STATES
    blocks = torch.linspace(-1, 0, 2048).repeat(threads, 1)  # torch aligns them to whole vectors
    turns = 2 * values // blocks.numel()

    # Forward reads u, delta, z, B, C and writes y; backward reads all, writes the gradients and y again.
    words = length * (3 * (3 * CHANNELS + 2 * STATES) + 3 * CHANNELS)
    source, target = torch.ones(words // 2), torch.ones(words // 2)
    rows = []
    for _ in range(16):
        rows.append(
            (
                timed(scan),
                timed(lambda: exponentials(blocks.clone(), turns)),
                timed(lambda: target.copy_(source)),
            )
        )
    took, exp, copy = (statistics.median(column) for column in zip(*rows[1:], strict=True))
    floor = max(exp, copy)
    print(
        f"{threads} threads, {length} tokens x {CHANNELS} channels x {STATES} states, median of 15:\n"
        f"  exponentials {1000 * exp:.0f} ms, copies {1000 * copy:.0f} ms: floor {1000 * floor:.0f} ms\n"
        f"  scan, forward and backward {1000 * took:.0f} ms: {took / floor:.1f} x the floor"
    )


if __name__ == "__main__":
    main()
