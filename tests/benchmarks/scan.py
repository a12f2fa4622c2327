"""The selective scan against its floor: exponentials and memory traffic, in one run.

    python tests/benchmarks/scan.py [TOKENS]

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

from special_steps.kernels.scan import kernels, selective_scan

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
    kernels().exponentials(ctypes.c_void_p(blocks.data_ptr()), *numbers)


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
    if kernels() is None:
        raise SystemExit("this measures the compiled kernels: install a C++ compiler first")
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    shape = {"u": CHANNELS, "delta": CHANNELS, "B": STATES, "C": STATES, "z": CHANNELS}
    t = {k: torch.randn(1, length, n, requires_grad=True) for k, n in shape.items()}
    A = -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1).requires_grad_()
    D, bias = torch.ones(CHANNELS, requires_grad=True), torch.full((CHANNELS,), -3.0)
    bias.requires_grad_()
    leaves, grad = [*t.values(), A, D, bias], torch.randn(1, length, CHANNELS)

    def scan() -> None:
        y, _ = selective_scan(t["u"], t["delta"], A, t["B"], t["C"], D, t["z"], bias)
        torch.autograd.grad(y, leaves, grad)

    values = length * CHANNELS * STATES
    blocks = torch.linspace(-1, 0, 2048).repeat(threads, 1)  # torch aligns them to whole vectors
    turns = 2 * values // blocks.numel()

    # Forward reads u, delta, z, B, C and writes y; backward reads all and writes the gradients.
    words = length * (3 * (3 * CHANNELS + 2 * STATES) + 2 * CHANNELS)
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
