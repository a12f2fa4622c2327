"""The selective scan of `scan` by Triton kernels, for CUDA: the same two functions, on float32 tensors there.

Triton comes with torch's CUDA builds on Linux and translates the kernels on first use, in seconds. mamba-ssm's kernel
is parallel over sequences and channels only, and a scene is one sequence of a million tokens by 32 channels. Here a
sequence is cut into chunks: each is scanned from zero, its last state and the sum of its step sizes s (its decay is
exp(A sum s)) give the true state before every chunk by a small scan over chunks, and then all chunks are scanned from
there. The adjoint of the state goes backwards in the same three phases. Short sequences are a chunk each: no phases.

A program has some chunks (rows) by a block of channels by all states, and goes from token to token. A tile is a few
tokens: their values are loaded together, so that the loads wait side by side. The states before each tile are kept for
the backward pass, which has those of one tile at a time in registers. Sums over tokens are of parts, added up by torch:
results are equal bit for bit from run to run.

Floor on an H100 (3 TB/s, 3.7e12 exponentials a second) for 783,640 tokens x 32 channels x 16 states: forward 1.2 GB and
8e8 exponentials, 0.4 ms; backward 1.9 GB and 1.2e9 exponentials, 0.6 ms.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from special_steps.kernels.scan import ScanInputs, ScanSaved

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# Sizes of which the kernels are the same: translating them once takes seconds.
VARYING = ["rows", "length", "chunks"]


class Sizes(NamedTuple):
    """Powers of two that decide speed only."""

    chunk: int = 64  # tokens of a long sequence that are scanned one after the other
    tile: int = 4  # tokens whose values are loaded together
    lanes: int = 32  # rows x channels of a program
    channels: int = 32  # of a program, at most
    warps: int = 1  # of a program; its lanes have 16 states each
    across: int = 64  # chunks at a time in the scan over chunks
    across_lanes: int = 16  # channels x states of a program there


SIZES = Sizes()


@triton.jit
def _softplus(x):
    """log(1 + exp(x)) to 1e-7 relative, also where it is small.

    log(1 + e) = 2 artanh(e / (2 + e)), whose series is short since e <= 1.
    """
    e = tl.exp(-tl.abs(x))
    r = e / (2.0 + e)
    q = r * r
    series = 0.066666667 + q * 0.058823529
    series = 0.076923077 + q * series
    series = 0.090909091 + q * series
    series = 0.111111111 + q * series
    series = 0.142857143 + q * series
    series = 0.2 + q * series
    series = 0.333333333 + q * series
    return tl.where(x > 0, x, 0.0) + 2.0 * (r + r * q * series)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), of which nothing overflows."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _begin(row, rows, length, chunks, span):
    """Of each row: its first token among those of all sequences, and how many tokens it has."""
    chunk = row % chunks
    token = (row // chunks).to(tl.int64) * length + chunk * span
    return token, tl.where(row < rows, tl.minimum(length - chunk * span, span), 0)


@triton.jit
def _rates(A, row, cn, real_cn):
    """A log2(e) of (row, channel, state), for exp2.

    Loaded for every row, although it is the same: Triton lays out the states of a thread as it loads this, four
    neighbours each, else one, which costs more exchange between threads wherever a sum over states is taken.
    """
    at = row[:, None, None] * 0 + cn[None, :, :]
    return tl.load(A + at, mask=real_cn[None, :, :], other=0.0) * LOG2E


@triton.jit(do_not_specialize=VARYING)
def _forward_kernel(
    u, delta, z, B, C, A, D, bias, before, kept, out, last, steps,
    rows, length, chunks, tiles, channels, states,
    u_row, delta_row, z_row, B_row, C_row, out_row,
    TILE: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Scan chunks; without `out` for their last states and the sums of their step sizes alone."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    real_c, real_n = c < channels, n < states
    cn = c[:, None] * states + n[None, :]
    real_cn = real_c[:, None] & real_n[None, :]
    real_rcn = (row < rows)[:, None, None] & real_cn[None, :, :]
    rate = _rates(A, row, cn, real_cn)
    shift = tl.load(bias + c, mask=real_c, other=0.0)
    through = tl.load(D + c, mask=real_c, other=0.0)
    begin, count = _begin(row, rows, length, chunks, tiles * TILE)
    row = row.to(tl.int64)
    at_row = row[:, None, None] * channels * states + cn[None, :, :]
    if before is None:
        h = tl.zeros([ROWS, CHANNELS, STATES], tl.float32)
    else:
        h = tl.load(before + at_row, mask=real_rcn, other=0.0)
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for tile in range(tiles):
        if kept is not None:
            at = (row * tiles + tile)[:, None, None] * channels * states + cn[None, :, :]
            tl.store(kept + at, h, mask=real_rcn)
        us, ds, zs, Bs, Cs, outs = (), (), (), (), (), ()
        for i in tl.static_range(TILE):
            real = tile * TILE + i < count
            real_rc = real[:, None] & real_c[None, :]
            real_rn = real[:, None] & real_n[None, :]
            t = (begin + tile * TILE + i)[:, None]
            us += (tl.load(u + t * u_row + c[None, :], mask=real_rc, other=0.0),)
            ds += (tl.load(delta + t * delta_row + c[None, :], mask=real_rc, other=0.0),)
            Bs += (tl.load(B + t * B_row + n[None, :], mask=real_rn, other=0.0),)
            if out is not None:
                zs += (tl.load(z + t * z_row + c[None, :], mask=real_rc, other=0.0),)
                Cs += (tl.load(C + t * C_row + n[None, :], mask=real_rn, other=0.0),)
        for i in tl.static_range(TILE):
            # a step of size 0, after the end, leaves the state as it is
            real = (tile * TILE + i < count)[:, None]
            s = tl.where(real, _softplus(ds[i] + shift[None, :]), 0.0)
            a = tl.exp2(s[:, :, None] * rate)
            h = a * h + (s * us[i])[:, :, None] * Bs[i][:, None, :]
            total += s
            if out is not None:
                y = tl.sum(h * Cs[i][:, None, :], 2) + us[i] * through[None, :]
                outs += (y * zs[i] * sigmoid(zs[i]),)
        if out is not None:
            for i in tl.static_range(TILE):
                real_rc = (tile * TILE + i < count)[:, None] & real_c[None, :]
                t = (begin + tile * TILE + i)[:, None]
                tl.store(out + t * out_row + c[None, :], outs[i], mask=real_rc)
    if last is not None:
        tl.store(last + at_row, h, mask=real_rcn)
    if steps is not None:
        real_rc = (row < rows)[:, None] & real_c[None, :]
        tl.store(steps + row[:, None] * channels + c[None, :], total, mask=real_rc)


@triton.jit(do_not_specialize=VARYING)
def _adjoint_kernel(
    delta, z, C, A, bias, grad, first, steps,
    rows, length, chunks, tiles, channels, states,
    delta_row, z_row, C_row, grad_row,
    TILE: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Of chunks: the adjoint of the state before them, where that after them is zero; the sum of the step sizes."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    real_c, real_n = c < channels, n < states
    cn = c[:, None] * states + n[None, :]
    real_cn = real_c[:, None] & real_n[None, :]
    rate = _rates(A, row, cn, real_cn)
    shift = tl.load(bias + c, mask=real_c, other=0.0)
    begin, count = _begin(row, rows, length, chunks, tiles * TILE)
    row = row.to(tl.int64)
    q = tl.zeros([ROWS, CHANNELS, STATES], tl.float32)
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for back in range(tiles):
        first_token = (tiles - back) * TILE - 1
        ds, zs, Cs, gs = (), (), (), ()
        for i in tl.static_range(TILE):
            real = first_token - i < count
            real_rc = real[:, None] & real_c[None, :]
            real_rn = real[:, None] & real_n[None, :]
            t = (begin + first_token - i)[:, None]
            ds += (tl.load(delta + t * delta_row + c[None, :], mask=real_rc, other=0.0),)
            zs += (tl.load(z + t * z_row + c[None, :], mask=real_rc, other=0.0),)
            gs += (tl.load(grad + t * grad_row + c[None, :], mask=real_rc, other=0.0),)
            Cs += (tl.load(C + t * C_row + n[None, :], mask=real_rn, other=0.0),)
        for i in tl.static_range(TILE):
            real = (first_token - i < count)[:, None]
            s = tl.where(real, _softplus(ds[i] + shift[None, :]), 0.0)
            dy = gs[i] * zs[i] * sigmoid(zs[i])
            a = tl.exp2(s[:, :, None] * rate)
            q = a * (q + dy[:, :, None] * Cs[i][:, None, :])
            total += s
    at_row = row[:, None, None] * channels * states + cn[None, :, :]
    tl.store(first + at_row, q, mask=(row < rows)[:, None, None] & real_cn[None, :, :])
    real_rc = (row < rows)[:, None] & real_c[None, :]
    tl.store(steps + row[:, None] * channels + c[None, :], total, mask=real_rc)


@triton.jit
def _then(a1, b1, a2, b2):
    """h -> a1 h + b1, then h -> a2 h + b2."""
    return a1 * a2, a2 * b1 + b2


@triton.jit(do_not_specialize=["chunks"])
def _across_kernel(
    sums, steps, A, start, carried, end, chunks, channels, states,
    REVERSE: tl.constexpr, CHUNKS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The state before every chunk of a sequence, and after all, from what each does to it; or all that backwards."""
    sequence = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    lanes = channels * states
    real_lane = lane < lanes
    rate = tl.load(A + lane, mask=real_lane, other=0.0) * LOG2E
    if start is None:
        h = tl.zeros([LANES], tl.float32)
    else:
        h = tl.load(start + sequence * lanes + lane, mask=real_lane, other=0.0)
    for begin in range(0, chunks, CHUNKS):
        k = begin + tl.arange(0, CHUNKS)
        row = sequence * chunks + (chunks - 1 - k if REVERSE else k)
        real = (k < chunks)[:, None] & real_lane[None, :]
        at = row[:, None] * lanes + lane[None, :]
        step = tl.load(
            steps + row[:, None] * channels + (lane // states)[None, :], mask=real, other=0.0
        )
        b = tl.load(sums + at, mask=real, other=0.0)
        a, b = tl.associative_scan((tl.exp2(step * rate[None, :]), b), 0, _then)
        after = a * h[None, :] + b
        first = tl.where(k[:, None] == begin, h[None, :], 0.0)
        tl.store(carried + at, first, mask=real & (k == begin)[:, None])
        beside = at - lanes if REVERSE else at + lanes
        inside = real & (k < tl.minimum(begin + CHUNKS, chunks) - 1)[:, None]
        tl.store(carried + beside, after, mask=inside)
        h = tl.sum(tl.where((k == begin + CHUNKS - 1)[:, None], after, 0.0), 0)
    if end is not None:
        tl.store(end + sequence * lanes + lane, h, mask=real_lane)


@triton.jit(do_not_specialize=[*VARYING, "tokens"])
def _backward_kernel(
    u, delta, z, B, C, A, D, bias, grad, before, kept, after,
    du, ddelta, dz, dB, dC, out, first, dA, dD, dbias,
    rows, length, chunks, tiles, channels, states, tokens,
    u_row, delta_row, z_row, B_row, C_row, grad_row, du_row, ddelta_row, dz_row, dB_row, dC_row, out_row,
    TILE: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Gradients, by chunks and in them by tiles from the last to the first; q is a_t times the adjoint of h_t."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    real_c, real_n = c < channels, n < states
    cn = c[:, None] * states + n[None, :]
    real_cn = real_c[:, None] & real_n[None, :]
    real_rcn = (row < rows)[:, None, None] & real_cn[None, :, :]
    rate = _rates(A, row, cn, real_cn)
    shift = tl.load(bias + c, mask=real_c, other=0.0)
    through = tl.load(D + c, mask=real_c, other=0.0)
    begin, count = _begin(row, rows, length, chunks, tiles * TILE)
    row = row.to(tl.int64)
    at_row = row[:, None, None] * channels * states + cn[None, :, :]
    if after is None:
        q = tl.zeros([ROWS, CHANNELS, STATES], tl.float32)
    else:
        q = tl.load(after + at_row, mask=real_rcn, other=0.0)
    sum_A = tl.zeros([ROWS, CHANNELS, STATES], tl.float32)
    sum_D = tl.zeros([ROWS, CHANNELS], tl.float32)
    sum_bias = tl.zeros([ROWS, CHANNELS], tl.float32)
    dB += tl.program_id(1).to(tl.int64) * tokens * dB_row  # blocks of channels have their own
    dC += tl.program_id(1).to(tl.int64) * tokens * dC_row
    for back in range(tiles):
        tile = tiles - 1 - back
        if kept is not None:
            at = (row * tiles + tile)[:, None, None] * channels * states + cn[None, :, :]
            h = tl.load(kept + at, mask=real_rcn, other=0.0)
        elif before is not None:
            h = tl.load(before + at_row, mask=real_rcn, other=0.0)
        else:
            h = tl.zeros([ROWS, CHANNELS, STATES], tl.float32)
        us, ds, zs, Bs, Cs, gs = (), (), (), (), (), ()
        for i in tl.static_range(TILE):
            real = tile * TILE + i < count
            real_rc = real[:, None] & real_c[None, :]
            real_rn = real[:, None] & real_n[None, :]
            t = (begin + tile * TILE + i)[:, None]
            us += (tl.load(u + t * u_row + c[None, :], mask=real_rc, other=0.0),)
            ds += (tl.load(delta + t * delta_row + c[None, :], mask=real_rc, other=0.0),)
            zs += (tl.load(z + t * z_row + c[None, :], mask=real_rc, other=0.0),)
            gs += (tl.load(grad + t * grad_row + c[None, :], mask=real_rc, other=0.0),)
            Bs += (tl.load(B + t * B_row + n[None, :], mask=real_rn, other=0.0),)
            Cs += (tl.load(C + t * C_row + n[None, :], mask=real_rn, other=0.0),)
        steps, hs = (), ()
        for i in tl.static_range(TILE):
            real = (tile * TILE + i < count)[:, None]
            s = tl.where(real, _softplus(ds[i] + shift[None, :]), 0.0)
            steps += (s,)
            hs += (h,)
            if i < TILE - 1:
                a = tl.exp2(s[:, :, None] * rate)
                h = a * h + (s * us[i])[:, :, None] * Bs[i][:, None, :]
        dus, dds, dzs, dBs, dCs, outs = (), (), (), (), (), ()
        for i in tl.static_range(TILE - 1, -1, -1):
            s = steps[i]
            x = us[i]
            weight = Cs[i][:, None, :]
            a = tl.exp2(s[:, :, None] * rate)
            h = a * hs[i] + (s * x)[:, :, None] * Bs[i][:, None, :]
            y = tl.sum(h * weight, 2) + x * through[None, :]
            gate = sigmoid(zs[i])
            outs += (y * zs[i] * gate,)
            dzs += (gs[i] * y * gate * (1.0 + zs[i] * (1.0 - gate)),)
            dy = gs[i] * zs[i] * gate
            sum_D += dy * x
            g = q + dy[:, :, None] * weight
            dCs += (tl.sum(h * dy[:, :, None], 1),)
            dBs += (tl.sum(g * (s * x)[:, :, None], 1),)
            along = tl.sum(g * Bs[i][:, None, :], 2)
            dus += (dy * through[None, :] + s * along,)
            q = a * g
            grown = q * hs[i]
            sum_A += s[:, :, None] * grown
            ds_ = x * along + LN2 * tl.sum(grown * rate, 2)
            # 1 - exp(-s) is the sigmoid, but not exact where s is small
            dd = tl.where(
                (tile * TILE + i < count)[:, None], ds_ * sigmoid(ds[i] + shift[None, :]), 0.0
            )
            sum_bias += dd
            dds += (dd,)
        for i in tl.static_range(TILE):
            real = tile * TILE + i < count
            real_rc = real[:, None] & real_c[None, :]
            real_rn = real[:, None] & real_n[None, :]
            t = (begin + tile * TILE + i)[:, None]
            tl.store(du + t * du_row + c[None, :], dus[TILE - 1 - i], mask=real_rc)
            tl.store(ddelta + t * ddelta_row + c[None, :], dds[TILE - 1 - i], mask=real_rc)
            tl.store(dz + t * dz_row + c[None, :], dzs[TILE - 1 - i], mask=real_rc)
            if out is not None:
                tl.store(out + t * out_row + c[None, :], outs[TILE - 1 - i], mask=real_rc)
            tl.store(dB + t * dB_row + n[None, :], dBs[TILE - 1 - i], mask=real_rn)
            tl.store(dC + t * dC_row + n[None, :], dCs[TILE - 1 - i], mask=real_rn)
    if first is not None:
        tl.store(first + at_row, q, mask=real_rcn)
    part = tl.program_id(0).to(tl.int64) * channels
    tl.store(dA + part * states + cn, tl.sum(sum_A, 0), mask=real_cn)
    tl.store(dD + part + c, tl.sum(sum_D, 0), mask=real_c)
    tl.store(dbias + part + c, tl.sum(sum_bias, 0), mask=real_c)


class _Plan(NamedTuple):
    """How a scan is cut: rows are chunks of all sequences, and have `tiles` tiles each."""

    rows: int
    length: int
    chunks: int  # of a sequence
    tiles: int
    channels: int
    states: int
    grid: tuple[int, int]
    blocks: dict[str, int]  # what the kernels are compiled for

    @property
    def sizes(self) -> tuple[int, ...]:
        """The arguments of a kernel that are sizes."""
        return self[:6]


def _plan(inputs: ScanInputs) -> _Plan:
    sequences, length, channels = inputs.u.shape
    states = inputs.A.shape[1]
    tile = min(SIZES.tile, triton.next_power_of_2(max(length, 1)))
    tiles = max(1, min(SIZES.chunk // tile, triton.cdiv(length, tile)))
    chunks = max(1, triton.cdiv(length, tiles * tile))
    width = min(SIZES.channels, triton.next_power_of_2(channels))
    rows = sequences * chunks
    many = max(1, min(SIZES.lanes // width, triton.next_power_of_2(rows)))
    blocks = {"TILE": tile, "ROWS": many, "CHANNELS": width}
    blocks |= {"STATES": triton.next_power_of_2(states), "num_warps": SIZES.warps}
    blocks["enable_fp_fusion"] = True
    grid = (triton.cdiv(rows, many), triton.cdiv(channels, width))
    return _Plan(rows, length, chunks, tiles, channels, states, grid, blocks)


def _across(
    plan: _Plan, sums: Tensor, steps: Tensor, A: Tensor, start: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """What goes into every chunk (rows, channels, states) and out of the last (sequences, channels, states)."""
    sequences = plan.rows // plan.chunks
    carried, end = torch.empty_like(sums), sums.new_empty(sequences, plan.channels, plan.states)
    lanes = min(SIZES.across_lanes, triton.next_power_of_2(plan.channels * plan.states))
    _across_kernel[sequences, triton.cdiv(plan.channels * plan.states, lanes)](
        sums, steps, A, start, carried, end, plan.chunks, plan.channels, plan.states, reverse,
        min(SIZES.across, triton.next_power_of_2(plan.chunks)), lanes, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return carried, end


def scan_forward(inputs: ScanInputs, training: bool) -> tuple[Tensor, Tensor | None, ScanSaved]:
    """As `scan.scan_forward`, on CUDA."""
    with torch.cuda.device_of(inputs.u):
        return _scan_forward(inputs, training)


def _scan_forward(inputs: ScanInputs, training: bool) -> tuple[Tensor, Tensor | None, ScanSaved]:
    u, delta, A, B, C, D, z, bias, state = inputs
    plan = _plan(inputs)
    each = plan.rows, plan.channels, plan.states
    out = u.new_empty(u.shape)
    last = None if state is None else torch.empty_like(state)
    kept = None
    if training and plan.tiles * plan.chunks > 1:
        kept = u.new_empty(plan.rows * plan.tiles, plan.channels, plan.states)
    strides = [x.stride(1) for x in (u, delta, z, B, C, out)]
    before, after = state, last
    if plan.chunks > 1:
        sums, steps = u.new_empty(each), u.new_empty(each[:2])
        _forward_kernel[plan.grid](
            u, delta, None, B, None, A, D, bias, None, None, None, sums, steps,
            *plan.sizes, *strides, **plan.blocks,
        )  # fmt: skip
        before, end = _across(plan, sums, steps, A, state, False)
        last, after = None if state is None else end, None
    _forward_kernel[plan.grid](
        u, delta, z, B, C, A, D, bias, before, kept, out, after, None,
        *plan.sizes, *strides, **plan.blocks,
    )  # fmt: skip
    return out, last, ScanSaved(1, kept)


def scan_backward(
    inputs: ScanInputs,
    saved: ScanSaved,
    grad_out: Tensor,
    grad_last_state: Tensor | None,
    into: dict[str, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As `scan.scan_backward`, on CUDA."""
    with torch.cuda.device_of(inputs.u):
        return _scan_backward(inputs, saved, grad_out, grad_last_state, into)


def _scan_backward(
    inputs: ScanInputs,
    saved: ScanSaved,
    grad_out: Tensor,
    grad_last_state: Tensor | None,
    into: dict[str, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    u, delta, A, B, C, D, z, bias, state = inputs
    plan = _plan(inputs)
    each = plan.rows, plan.channels, plan.states
    dstate = None if state is None else torch.empty_like(state)
    after, first = grad_last_state, dstate
    if plan.chunks > 1:
        sums, steps = u.new_empty(each), u.new_empty(each[:2])
        strides = [x.stride(1) for x in (delta, z, C, grad_out)]
        _adjoint_kernel[plan.grid](
            delta, z, C, A, bias, grad_out, sums, steps, *plan.sizes, *strides, **plan.blocks
        )
        after, end = _across(plan, sums, steps, A, grad_last_state, True)
        dstate, first = None if state is None else end, None
    programs, blocks = plan.grid
    dA = u.new_empty(programs, plan.channels, plan.states)
    dD, dbias = u.new_empty(2, programs, plan.channels)
    targets = [into[k] for k in ("du", "ddelta", "dz", "dB", "dC")]
    if blocks > 1:  # each has a part of the sum over channels
        targets[3:] = u.new_empty(2, blocks, *B.shape)
    out = into.get("out")
    strides = [x.stride(1) for x in (u, delta, z, B, C, grad_out)]
    strides += [x.stride(-2) for x in targets] + [0 if out is None else out.stride(1)]
    _backward_kernel[plan.grid](
        u, delta, z, B, C, A, D, bias, grad_out, state, saved.tile_states, after,
        *targets, out, first, dA, dD, dbias,
        *plan.sizes, len(u) * plan.length, *strides, **plan.blocks,
    )  # fmt: skip
    if blocks > 1:
        torch.sum(targets[3], 0, out=into["dB"])
        torch.sum(targets[4], 0, out=into["dC"])
    return dA.sum(0), dD.sum(0), dbias.sum(0), dstate
