"""Selective scan and causal convolution on the CPU: the two loops inside a Mamba block.

Both are autograd functions over token-major float32 tensors (sequence, token, channel), compiled by numba on first
use (kept in numba's cache afterwards). Work is split into as many fixed parts as torch has threads, each part runs
in its own thread, and partial sums are added in the order of the parts: results are equal bit for bit as long as
`torch.get_num_threads()` is. Source of the recurrence: Gu and Dao, "Mamba: Linear-time sequence modeling with
selective state spaces", 2023, algorithm 2.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

STEPS = 16  # the state is kept every so many tokens; between them the backward pass recomputes it
CHANNEL_LANES = 32  # widest tile when its lanes are channels
TILE = 256  # size of a tile when its lanes are sequences: a few fit into the first-level cache
CONV_TILE = 1024  # size of a tile of the convolution: some tokens of all channels
FLUSH = 32  # float32 sums over time go into float64 ones every so many tiles

# No "nnan" and "ninf": a NaN in the input must reach the loss and be seen there.
_JIT: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
}
_INLINE = {**_JIT, "forceinline": True}
_f = np.float32
LOG2E, LN2 = _f(1.4426950408889634), _f(0.6931471805599453)


@njit(**_JIT)
def _exp2(x):
    """2**x for |x| < 127 (below: about 0), relative error 1e-7, exactly 1 at 0; no call, so loops vectorise.

    2**x = 2**r 2**f with r = round(x): 2**f = 1 + f P(f) by a minimax polynomial, 2**r by the exponent bits.
    """
    x = max(x, _f(-126.0))
    r = _f(np.rint(x))
    f = x - r
    p = _f(0.0001546973047) * f + _f(0.001339086686)
    p = p * f + _f(0.009618030785)
    p = p * f + _f(0.05550357105)
    p = p * f + _f(0.2402265108)
    p = p * f + _f(0.693147188)
    p = p * f + _f(1.0)
    return np.int32(_f(p).view(np.int32) + (np.int32(r) << np.int32(23))).view(np.float32)


@njit(**_JIT)
def _log1p(w):
    """log(1 + w) for w in [0, 1], relative error 1e-7: 2 artanh(v) with v = w / (2 + w), odd in v."""
    v = w / (_f(2.0) + w)
    z = v * v
    p = _f(0.2819153792) * z + _f(0.2795766787)
    p = p * z + _f(0.4002511418)
    p = p * z + _f(0.6666631015)
    return v * (p * z + _f(2.0))


@njit(**_JIT)
def _sigmoid(x):
    w = _exp2(-abs(x) * LOG2E)
    return (_f(1.0) if x >= _f(0.0) else w) / (_f(1.0) + w)


@njit(**_JIT)
def _softplus(x):
    return max(x, _f(0.0)) + _log1p(_exp2(-abs(x) * LOG2E))


# ---------------------------------------------------------------------------------------------------------------
# The scan. For one sequence, channel d and state n, with s = softplus(delta + delta_bias):
#
#   h_t = a_t h_(t-1) + s_t u_t B_t,  a_t = exp(s_t A),  y_t = sum_n C_t h_t + D u_t,  out_t = y_t z_t sigmoid(z_t)
#
# Let g_t be the gradient of the loss for h_t, and e_t = grad(out_t) z_t sigmoid(z_t) that for y_t. Backwards in t,
#
#   g_t = e_t C_t + a_(t+1) g_(t+1)
#   grad C_t = sum_d e_t h_t             grad u_t = s_t S_t + e_t D,  S_t = sum_n g_t B_t
#   grad B_t = sum_d g_t s_t u_t         grad s_t = u_t S_t + sum_n g_t a_t h_(t-1) A
#   grad A   = sum_t s_t g_t a_t h_(t-1) grad delta_t = grad s_t sigmoid(delta_t + delta_bias)
#
# Compilers vectorise long, flat loops. So the work is cut into *tiles* of up to STEPS tokens by several *lanes*,
# independent recurrences side by side, stored flat as (token, lane), for one state n at a time; only the two
# recurrences have an inner loop over lanes. Lanes are neighbouring channels of one sequence or, when sequences are
# many and short (the spectral branch: a sequence per pixel), one channel of neighbouring sequences; the channels
# then pass one after the other. Both are the same code: value (t, lane) of a tensor is at
#
#   base + t * (stride of tokens) + lane * (stride of lanes)
#
# where the lane stride of a per-channel tensor is 1 or that of sequences, and of B and C 0 or that of sequences.
# ---------------------------------------------------------------------------------------------------------------


@njit(**_INLINE)
def _load_inline(tile, source, base, step, lane, steps, lanes):
    """tile[t, lane] = source[base + t * step + lane * lane stride]."""
    for t in range(steps):
        row = base + t * step
        to = t * lanes
        if lane == 0:
            value = source[np.uint64(row)]
            for i in range(lanes):
                tile[np.uint64(to + i)] = value
        elif lane == 1:
            for i in range(lanes):
                tile[np.uint64(to + i)] = source[np.uint64(row + i)]
        else:
            for i in range(lanes):
                tile[np.uint64(to + i)] = source[np.uint64(row + i * lane)]


@njit(**_INLINE)
def _store_inline(target, tile, base, step, lane, steps, lanes):
    """The reverse of `_load`; lanes that share a place (lane stride 0) are added to it."""
    for t in range(steps):
        row = base + t * step
        at = t * lanes
        if lane == 0:
            total = _f(0.0)
            for i in range(lanes):
                total += tile[np.uint64(at + i)]
            target[np.uint64(row)] += total
        elif lane == 1:
            for i in range(lanes):
                target[np.uint64(row + i)] = tile[np.uint64(at + i)]
        else:
            for i in range(lanes):
                target[np.uint64(row + i * lane)] = tile[np.uint64(at + i)]


@njit(**_JIT)
def _load(tile, source, base, step, lane, steps, lanes):
    """`_load_inline` as a call, which compiles faster."""
    _load_inline(tile, source, base, step, lane, steps, lanes)


@njit(**_JIT)
def _store(target, tile, base, step, lane, steps, lanes):
    """`_store_inline` as a call."""
    _store_inline(target, tile, base, step, lane, steps, lanes)


@njit(**_JIT)
def _load_states(tiles, source, base, between, step, lane, steps, lanes):
    """`_load` for all states, which are `between` apart in `source`."""
    for n in range(tiles.shape[0]):
        _load_inline(tiles[n], source, base + n * between, step, lane, steps, lanes)


@njit(**_JIT)
def _store_states(target, tiles, base, between, step, lane, steps, lanes):
    """`_store` for all states."""
    for n in range(tiles.shape[0]):
        _store_inline(target, tiles[n], base + n * between, step, lane, steps, lanes)


@njit(**_JIT)
def _tiling(part, across, length):
    """Lanes of a full tile, number of tiles, of channel passes, and of channel blocks of a part."""
    sequences, channels = part[1] - part[0], part[3] - part[2]
    if across:
        width = min(sequences, max(1, TILE // min(STEPS, length)))
        return width, -(-sequences // width), channels, 1
    width = min(channels, CHANNEL_LANES)
    blocks = -(-channels // width)
    return width, sequences * blocks, 1, blocks


@njit(**_JIT)
def _place(tile, part, across, width, blocks):
    """First sequence, first channel and lanes of a tile."""
    if across:
        first = part[0] + tile * width
        return first, part[2], min(width, part[1] - first)
    channel = part[2] + (tile % blocks) * width
    return part[0] + tile // blocks, channel, min(width, part[3] - channel)


@njit(**_INLINE)
def _recur(h, state, a, b, steps, lanes):
    """h = a * state + b, token after token. (A separate `state`: read and written in `h`, it would not vectorise.)"""
    for t in range(steps):
        for i in range(lanes):
            m = np.uint64(t * lanes + i)
            value = a[m] * state[i] + b[m]
            state[i] = value
            h[m] = value


@njit(**_INLINE)
def _step_back(g, carry, a, b, row, lanes):
    """g = carry + b, then carry = a * g, for the row of one token."""
    for i in range(lanes):
        m = np.uint64(row + i)
        value = carry[i] + b[m]
        carry[i] = a[m] * value
        g[m] = value


@njit(**_JIT)
def _scan_forward(
    part, across, shape, u, delta, z, B, C, strides, A2, D, bias, initial, out, final, kept
):  # fmt: skip
    """Forward pass over the sequences part[0]..part[1] and channels part[2]..part[3]; all arrays flat.

    shape: length, channels, states. strides: (5, 2), of sequence and token, for u, delta, z, B, C. A2: (state,
    channel), A times log2(e). initial, final: (sequence, state, channel) or empty. kept: (sequence, chunk, state,
    channel), the states before each chunk of STEPS tokens, or empty.
    """
    length, channels, states = shape
    width, tiles, passes, blocks = _tiling(part, across, length)
    chunks = -(-length // STEPS)
    full = min(STEPS, length) * width
    s, su, uu = np.empty(full, np.float32), np.empty(full, np.float32), np.empty(full, np.float32)
    zz, y, D_tile = (
        np.empty(full, np.float32),
        np.empty(full, np.float32),
        np.empty(full, np.float32),
    )
    a, b, bias_tile = (
        np.empty(full, np.float32),
        np.empty(full, np.float32),
        np.empty(full, np.float32),
    )
    h = np.empty(full, np.float32)
    A_tile = np.empty((states, full), np.float32)
    B_tile = np.empty((states, full), np.float32)
    C_tile = np.empty((states, full), np.float32)
    state = np.zeros((passes, states, width), np.float32)
    per_channel = 0 if across else 1  # lane strides
    u_lane, delta_lane, z_lane = (
        (strides[0, 0], strides[1, 0], strides[2, 0]) if across else (1, 1, 1)
    )
    B_lane, C_lane = (strides[3, 0], strides[4, 0]) if across else (0, 0)
    out_lane, state_lane, kept_lane = (
        (length * channels, states * channels, chunks * states * channels) if across else (1, 1, 1)
    )
    for tile in range(tiles):
        b0, d0, lanes = _place(tile, part, across, width, blocks)
        for p in range(passes):
            if initial.size:
                at = b0 * states * channels + d0 + p
                _load_states(state[p], initial, at, channels, 0, state_lane, 1, lanes)
            else:
                state[p] = _f(0.0)
        for chunk in range(chunks):
            t0 = chunk * STEPS
            steps = min(STEPS, length - t0)
            size = steps * lanes
            at = b0 * strides[3, 0] + t0 * strides[3, 1]
            _load_states(B_tile, B, at, 1, strides[3, 1], B_lane, steps, lanes)
            at = b0 * strides[4, 0] + t0 * strides[4, 1]
            _load_states(C_tile, C, at, 1, strides[4, 1], C_lane, steps, lanes)
            for p in range(passes):
                d = d0 + p
                if passes > 1 or chunk == 0:
                    _load(D_tile, D, d, 0, per_channel, steps, lanes)
                    _load(bias_tile, bias, d, 0, per_channel, steps, lanes)
                    _load_states(A_tile, A2, d, channels, 0, per_channel, steps, lanes)
                at = b0 * strides[0, 0] + t0 * strides[0, 1] + d
                _load(uu, u, at, strides[0, 1], u_lane, steps, lanes)
                at = b0 * strides[1, 0] + t0 * strides[1, 1] + d
                _load(s, delta, at, strides[1, 1], delta_lane, steps, lanes)
                at = b0 * strides[2, 0] + t0 * strides[2, 1] + d
                _load(zz, z, at, strides[2, 1], z_lane, steps, lanes)
                for m in range(size):
                    s[m] = _softplus(s[m] + bias_tile[m])
                for m in range(size):
                    su[m] = s[m] * uu[m]
                    y[m] = D_tile[m] * uu[m]
                if kept.size:
                    at = (b0 * chunks + chunk) * states * channels + d
                    _store_states(kept, state[p], at, channels, 0, kept_lane, 1, lanes)
                for n in range(states):
                    A_n, B_n, C_n, state_n = A_tile[n], B_tile[n], C_tile[n], state[p, n]
                    for m in range(size):
                        a[m] = _exp2(s[m] * A_n[m])
                        b[m] = su[m] * B_n[m]
                    _recur(h, state_n, a, b, steps, lanes)
                    for m in range(size):
                        y[m] += C_n[m] * h[m]
                for m in range(size):
                    y[m] *= zz[m] * _sigmoid(zz[m])
                _store(out, y, (b0 * length + t0) * channels + d, channels, out_lane, steps, lanes)
        if final.size:
            for p in range(passes):
                at = b0 * states * channels + d0 + p
                _store_states(final, state[p], at, channels, 0, state_lane, 1, lanes)


@njit(**_JIT)
def _scan_backward(
    part, across, shape, u, delta, z, B, C, strides, A2, D, bias, initial, kept, grad_out, grad_final,
    du, ddelta, dz, dB, dC, dA, dD, dbias, dinitial,
):  # fmt: skip
    """Backward pass over a part; see `_scan_forward`. All arrays flat; dB, dC start as zeros.

    du, ddelta, dz: (sequence, token, channel) float32. dB, dC: (sequence, token, state) float32, this part's sum over
    channels. dA (state, channel), dD, dbias (channel): float64, this part's sums over sequences and tokens.
    """
    length, channels, states = shape
    width, tiles, passes, blocks = _tiling(part, across, length)
    chunks = -(-length // STEPS)
    full = min(STEPS, length) * width
    s, su, uu = np.empty(full, np.float32), np.empty(full, np.float32), np.empty(full, np.float32)
    zz, y, D_tile = (
        np.empty(full, np.float32),
        np.empty(full, np.float32),
        np.empty(full, np.float32),
    )
    a, b, bias_tile = (
        np.empty(full, np.float32),
        np.empty(full, np.float32),
        np.empty(full, np.float32),
    )
    g, e, slope = np.empty(full, np.float32), np.empty(full, np.float32), np.empty(full, np.float32)
    S, ds, gate = np.empty(full, np.float32), np.empty(full, np.float32), np.empty(full, np.float32)
    h = np.empty(full + width, np.float32)
    A_tile = np.empty((states, full), np.float32)
    B_tile = np.empty((states, full), np.float32)
    C_tile = np.empty((states, full), np.float32)
    dA_tile = np.empty((states, full), np.float32)
    dB_tile = np.empty((states, full), np.float32)
    dC_tile = np.empty((states, full), np.float32)
    state = np.empty((states, width), np.float32)
    carry = np.zeros((passes, states, width), np.float32)
    per_channel = 0 if across else 1  # lane strides
    u_lane, delta_lane, z_lane = (
        (strides[0, 0], strides[1, 0], strides[2, 0]) if across else (1, 1, 1)
    )
    B_lane, C_lane, dB_lane = (
        (strides[3, 0], strides[4, 0], length * states) if across else (0, 0, 0)
    )
    out_lane, state_lane, kept_lane = (
        (length * channels, states * channels, chunks * states * channels) if across else (1, 1, 1)
    )
    for tile in range(tiles):
        b0, d0, lanes = _place(tile, part, across, width, blocks)
        for p in range(passes):
            if grad_final.size:
                at = b0 * states * channels + d0 + p
                _load_states(carry[p], grad_final, at, channels, 0, state_lane, 1, lanes)
            else:
                carry[p] = _f(0.0)
        dA_tile[:] = _f(0.0)
        for chunk in range(chunks - 1, -1, -1):
            t0 = chunk * STEPS
            steps = min(STEPS, length - t0)
            size = steps * lanes
            at = b0 * strides[3, 0] + t0 * strides[3, 1]
            _load_states(B_tile, B, at, 1, strides[3, 1], B_lane, steps, lanes)
            at = b0 * strides[4, 0] + t0 * strides[4, 1]
            _load_states(C_tile, C, at, 1, strides[4, 1], C_lane, steps, lanes)
            dB_tile[:] = _f(0.0)
            dC_tile[:] = _f(0.0)
            for p in range(passes):
                d = d0 + p
                if passes > 1 or chunk >= chunks - 2:  # the last chunk may have fewer rows
                    _load(D_tile, D, d, 0, per_channel, steps, lanes)
                    _load(bias_tile, bias, d, 0, per_channel, steps, lanes)
                    _load_states(A_tile, A2, d, channels, 0, per_channel, steps, lanes)
                at = b0 * strides[0, 0] + t0 * strides[0, 1] + d
                _load(uu, u, at, strides[0, 1], u_lane, steps, lanes)
                at = b0 * strides[1, 0] + t0 * strides[1, 1] + d
                _load(s, delta, at, strides[1, 1], delta_lane, steps, lanes)
                at = b0 * strides[2, 0] + t0 * strides[2, 1] + d
                _load(zz, z, at, strides[2, 1], z_lane, steps, lanes)
                at = (b0 * length + t0) * channels + d
                _load(gate, grad_out, at, channels, out_lane, steps, lanes)
                for m in range(size):
                    s[m] += bias_tile[m]
                    slope[m] = _sigmoid(s[m])
                for m in range(size):
                    s[m] = _softplus(s[m])
                for m in range(size):
                    sigmoid = _sigmoid(zz[m])
                    e[m] = gate[m] * zz[m] * sigmoid
                    gate[m] *= sigmoid * (_f(1.0) + zz[m] * (_f(1.0) - sigmoid))  # grad z = gate y
                for m in range(size):
                    su[m] = s[m] * uu[m]
                    y[m] = D_tile[m] * uu[m]
                    S[m] = _f(0.0)
                    ds[m] = _f(0.0)
                if kept.size:
                    at = (b0 * chunks + chunk) * states * channels + d
                    _load_states(state, kept, at, channels, 0, kept_lane, 1, lanes)
                elif initial.size:
                    at = b0 * states * channels + d
                    _load_states(state, initial, at, channels, 0, state_lane, 1, lanes)
                else:
                    state[:] = _f(0.0)
                before, after = h[:size], h[lanes : lanes + size]
                for n in range(states):
                    A_n, B_n, C_n, carry_n, state_n = (
                        A_tile[n],
                        B_tile[n],
                        C_tile[n],
                        carry[p, n],
                        state[n],
                    )
                    dA_n, dB_n, dC_n = dA_tile[n], dB_tile[n], dC_tile[n]
                    for m in range(size):
                        a[m] = _exp2(s[m] * A_n[m])
                        b[m] = su[m] * B_n[m]
                    for i in range(lanes):
                        before[i] = state_n[i]
                    _recur(after, state_n, a, b, steps, lanes)
                    for m in range(size):
                        y[m] += C_n[m] * after[m]
                        dC_n[m] += e[m] * after[m]
                        b[m] = e[m] * C_n[m]
                    for back in range(1, steps + 1):
                        _step_back(g, carry_n, a, b, size - back * lanes, lanes)
                    for m in range(size):
                        dB_n[m] += g[m] * su[m]
                        S[m] += g[m] * B_n[m]
                    for m in range(size):
                        b[m] = g[m] * a[m] * before[m]
                        ds[m] += b[m] * A_n[m]
                    if across:
                        total = _f(0.0)
                        for m in range(size):
                            total += s[m] * b[m]
                        dA[n * channels + d] += total
                    else:
                        for m in range(size):
                            dA_n[m] += s[m] * b[m]
                for m in range(size):
                    gate[m] *= y[m]
                    y[m] = s[m] * S[m] + e[m] * D_tile[m]
                    ds[m] = (uu[m] * S[m] + LN2 * ds[m]) * slope[m]
                at = (b0 * length + t0) * channels + d
                _store(dz, gate, at, channels, out_lane, steps, lanes)
                _store(du, y, at, channels, out_lane, steps, lanes)
                _store(ddelta, ds, at, channels, out_lane, steps, lanes)
                for m in range(size):
                    e[m] *= uu[m]
                _add_lanes(dD, e, d, per_channel, steps, lanes)
                _add_lanes(dbias, ds, d, per_channel, steps, lanes)
            at = (b0 * length + t0) * states
            _store_states(dB, dB_tile, at, 1, states, dB_lane, steps, lanes)
            _store_states(dC, dC_tile, at, 1, states, dB_lane, steps, lanes)
            if not across and (chunk % FLUSH == 0 or chunk == chunks - 1):
                for n in range(states):
                    _add_lanes(dA, dA_tile[n], n * channels + d0, 1, steps, lanes)
                dA_tile[:] = _f(0.0)
        if dinitial.size:
            for p in range(passes):
                at = b0 * states * channels + d0 + p
                _store_states(dinitial, carry[p], at, channels, 0, state_lane, 1, lanes)


@njit(**_JIT)
def _add_lanes(target, tile, base, lane, steps, lanes):
    """Add the tile's sum over tokens to `target` (float64), lane by lane."""
    for i in range(lanes):
        total = 0.0
        for t in range(steps):
            total += tile[np.uint64(t * lanes + i)]
        target[base + i * lane] += total


def _cut(count: int, parts: int) -> list[tuple[int, int]]:
    """Cut 0..count into at most `parts` pieces of nearly equal size."""
    parts = max(1, min(parts, count))
    return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def _in_threads(kernel: Callable[..., Any], calls: list[tuple]) -> list[Any]:
    """Call the kernel with each tuple of arguments, in threads of their own when there are several."""
    if len(calls) == 1:
        return [kernel(*calls[0])]
    with ThreadPoolExecutor(len(calls)) as pool:
        return [job.result() for job in [pool.submit(kernel, *call) for call in calls]]


def _flat(tensor: Tensor) -> np.ndarray:
    """A flat float32 array over the tensor's memory, from its first to its last value."""
    span = 1 + sum(
        (n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return tensor.detach().as_strided((span,), (1,)).numpy()


def _dense_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


_NONE = np.empty(0, np.float32)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, state):
        u, delta, z, B, C = (_dense_rows(x) for x in (u, delta, z, B, C))
        sequences, length, channels = u.shape
        states = A.shape[1]
        threads = torch.get_num_threads()
        if sequences >= threads:
            parts = [(*piece, 0, channels) for piece in _cut(sequences, threads)]
        else:
            parts = [(0, sequences, *piece) for piece in _cut(channels, threads)]
        lanes_across = min(parts[0][1] - parts[0][0], TILE // min(STEPS, length))
        across = lanes_across > min(parts[0][3] - parts[0][2], CHANNEL_LANES)
        strides = np.array([x.stride()[:2] for x in (u, delta, z, B, C)], dtype=np.int64)
        A2 = (A * float(LOG2E)).t().contiguous()
        D, delta_bias = D.contiguous(), delta_bias.contiguous()
        first = (
            None if state is None else state.transpose(1, 2).contiguous()
        )  # sequence, state, channel
        last = None if state is None else torch.empty_like(first)
        keep = any(ctx.needs_input_grad) and length > STEPS
        chunks = -(-length // STEPS)
        kept = u.new_empty(sequences, chunks, states, channels) if keep else None
        out = u.new_empty(sequences, length, channels)
        inputs = (
            *(_flat(x) for x in (u, delta, z, B, C)), strides, _flat(A2), _flat(D), _flat(delta_bias),
            _NONE if first is None else _flat(first),
        )  # fmt: skip
        outputs = (
            _flat(out), _NONE if last is None else _flat(last), _NONE if kept is None else _flat(kept)
        )  # fmt: skip
        shape = (length, channels, states)
        _in_threads(_scan_forward, [(p, across, shape, *inputs, *outputs) for p in parts])
        ctx.save_for_backward(u, delta, z, B, C, A2, D, delta_bias, first, kept)
        ctx.plan = parts, across, shape, strides
        return out, None if last is None else last.transpose(1, 2)

    @staticmethod
    def backward(ctx, grad_out, grad_final):
        u, delta, z, B, C, A2, D, delta_bias, first, kept = ctx.saved_tensors
        parts, across, shape, strides = ctx.plan
        sequences, (length, channels, states) = u.shape[0], shape
        du, ddelta, dz = (
            torch.empty_like(grad_out, memory_format=torch.contiguous_format) for _ in "123"
        )
        shared = (
            1 if parts[0][3] - parts[0][2] == channels else len(parts)
        )  # else sums over channels in parts
        dB, dC = (u.new_zeros(shared, sequences, length, states) for _ in "12")
        dA = np.zeros((len(parts), states * channels))
        dD, dbias = np.zeros((len(parts), channels)), np.zeros((len(parts), channels))
        dstate = None if first is None else torch.empty_like(first)
        if grad_final is not None:
            grad_final = grad_final.transpose(1, 2).contiguous()
        inputs = (
            *(_flat(x) for x in (u, delta, z, B, C)), strides, _flat(A2), _flat(D), _flat(delta_bias),
            *(_NONE if x is None else _flat(x) for x in (first, kept)), _flat(grad_out.contiguous()),
            _NONE if grad_final is None else _flat(grad_final), _flat(du), _flat(ddelta), _flat(dz),
        )  # fmt: skip
        last = _NONE if dstate is None else _flat(dstate)
        calls = []
        for i, part in enumerate(parts):
            own = i if shared > 1 else 0
            sums = (_flat(dB[own]), _flat(dC[own]), dA[i], dD[i], dbias[i], last)
            calls.append((part, across, shape, *inputs, *sums))
        _in_threads(_scan_backward, calls)
        dA, dD, dbias = (torch.from_numpy(x.sum(0)).float() for x in (dA, dD, dbias))
        dB, dC = (x[0] if shared == 1 else x.sum(0) for x in (dB, dC))
        dstate = None if dstate is None else dstate.transpose(1, 2)
        return du, ddelta, dA.view(states, channels).t(), dB, dC, dD, dz, dbias, dstate


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Selective scan with softplus on the step size and SiLU gate; gradients for all inputs.

    Args:
        u: input (sequence, token, channel).
        delta: step size before bias and softplus, like `u`.
        A: decay rates (channel, state), negative.
        B: input weights (sequence, token, state).
        C: output weights, like `B`.
        D: weight of the input itself (channel).
        z: gate before SiLU, like `u`.
        delta_bias: added to `delta` (channel).
        state: hidden state before the first token (sequence, channel, state); None: zeros.

    Returns:
        The output, like `u`, and the state after the last token, or None when no state was given (short sequences do
        not need it). float32 on the CPU runs the compiled kernels (exponentials to 1e-7 relative; sums over tokens
        in float64 from parts), any other dtype or device `parallel_scan`.
    """
    if u.numel() and u.device.type == "cpu" and u.dtype == torch.float32:
        return _Scan.apply(u, delta, A, B, C, D, z, delta_bias, state)
    return parallel_scan(u, delta, A, B, C, D, z, delta_bias, state)


def parallel_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`selective_scan` of plain torch operations, for GPUs without mamba-ssm: 2 log2(tokens) steps, all parallel.

    Holds several (sequence, token, channel, state) tensors for the backward pass: call it on segments.
    """
    s = F.softplus(delta + delta_bias)
    decay = torch.exp(s[..., None] * A)
    h = (s * u)[..., None] * B[:, :, None, :]
    if state is not None and u.shape[1]:
        h = torch.cat([h[:, :1] + decay[:, :1] * state[:, None], h[:, 1:]], 1)
    h = _recurrence(decay, h)
    y = torch.einsum("bldn,bln->bld", h, C) + u * D
    last = None if state is None else (h[:, -1] if u.shape[1] else state)
    return y * F.silu(z), last


def _recurrence(a: Tensor, b: Tensor) -> Tensor:
    """h_t = a_t h_(t-1) + b_t along dimension 1, with h = 0 before the first.

    Two neighbouring steps are one step with a = a2 a1 and b = a2 b1 + b2: solve that recurrence of half the length
    for every second h, and fill in the others from their neighbours (odd-even reduction; Blelloch, 1990).
    """
    length = b.shape[1]
    if length < 2:
        return b
    pairs = length // 2
    a2, b2 = a[:, 1::2], b[:, 1::2]
    second = _recurrence(a2 * a[:, : 2 * pairs : 2], a2 * b[:, : 2 * pairs : 2] + b2)
    rest = b[:, 2::2] + a[:, 2::2] * second[:, : (length - 1) // 2]
    first = torch.cat([b[:, :1], rest], 1)
    h = torch.stack([first[:, :pairs], second], 2).flatten(1, 2)
    return torch.cat([h, first[:, pairs:]], 1) if length % 2 else h


# ---------------------------------------------------------------------------------------------------------------
# The causal convolution: v_t = bias + sum_k w_k x_(t - K + 1 + k), out = v sigmoid(v), channel by channel. Tokens of
# a sequence are one flat array, so a shift by one token is a shift by the number of channels.
# ---------------------------------------------------------------------------------------------------------------


@njit(**_INLINE)
def _convolve(v, x, at, weight, bias, size, channels, taps):
    for m in range(size):
        v[m] = bias[m]
    for k in range(taps):
        w, row = weight[k], at + k * channels
        for m in range(size):
            v[m] += w[m] * x[np.uint64(row + m)]


@njit(**_JIT)
def _conv_forward(part, length, channels, taps, x, weight, bias, out):
    """Sequences part[0]..part[1], output tokens part[2]..part[3]; weight and bias are tiled over the tokens of a tile.

    A tile is some tokens of one sequence or, when sequences are short, several whole ones with the taps - 1 tokens
    before each: between them are values that nobody wants, but the loops stay long.
    """
    v = np.empty(bias.size, np.float32)
    period = length + taps - 1
    together, steps = _conv_tile(bias.size // channels, length, taps)
    for b in range(part[0], part[1], together):
        count = min(together, part[1] - b)
        for t in range(part[2], part[3], steps):
            run = min(steps, part[3] - t) * channels
            size = (count - 1) * period * channels + run
            _convolve(v, x, (b * period + t) * channels, weight, bias, size, channels, taps)
            for m in range(size):
                v[m] *= _sigmoid(v[m])
            for j in range(count):
                to, at = ((b + j) * length + t) * channels, j * period * channels
                for m in range(run):
                    out[np.uint64(to + m)] = v[np.uint64(at + m)]


@njit(**_JIT)
def _conv_tile(tokens, length, taps):
    """Sequences in a tile and tokens of each."""
    if length >= tokens:
        return 1, tokens
    return max(1, (tokens + taps - 1) // (length + taps - 1)), length


@njit(**_JIT)
def _conv_backward(part, length, channels, taps, x, weight, bias, grad, dx, dweight, dbias):
    """Gradients of a part. dx: the part's own (sequence, token, channel), zeros at first. dweight, dbias: float64."""
    v = np.empty(bias.size, np.float32)
    g = np.empty(bias.size, np.float32)
    dw = np.zeros((taps, bias.size), np.float32)
    db = np.zeros(bias.size, np.float32)
    period, own_period = length + taps - 1, part[3] - part[2] + taps - 1
    together, steps = _conv_tile(bias.size // channels, length, taps)
    since = 0
    for b in range(part[0], part[1], together):
        count = min(together, part[1] - b)
        for t in range(part[2], part[3], steps):
            run = min(steps, part[3] - t) * channels
            size = (count - 1) * period * channels + run
            x_at = (b * period + t) * channels
            _convolve(v, x, x_at, weight, bias, size, channels, taps)
            g[:size] = _f(0.0)
            for j in range(count):
                to, at = j * period * channels, ((b + j) * length + t) * channels
                for m in range(run):
                    g[np.uint64(to + m)] = grad[np.uint64(at + m)]
            for m in range(size):
                sigmoid = _sigmoid(v[m])
                g[m] *= sigmoid * (_f(1.0) + v[m] * (_f(1.0) - sigmoid))
                db[m] += g[m]
            to = ((b - part[0]) * own_period + t - part[2]) * channels
            for k in range(taps):
                w, dw_k, row, to_row = weight[k], dw[k], x_at + k * channels, to + k * channels
                for m in range(size):
                    dw_k[m] += g[m] * x[np.uint64(row + m)]
                for m in range(size):
                    dx[np.uint64(to_row + m)] += w[m] * g[m]
            since += 1
            if since == FLUSH or (b + together >= part[1] and t + steps >= part[3]):
                for m in range(bias.size):
                    dbias[m % channels] += db[m]
                    for k in range(taps):
                        dweight[k, m % channels] += dw[k, m]
                db[:] = _f(0.0)
                dw[:] = _f(0.0)
                since = 0


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        x = x.contiguous()
        taps = weight.shape[1]
        sequences, length, channels = x.shape[0], x.shape[1] - taps + 1, x.shape[2]
        threads = torch.get_num_threads()
        if sequences >= threads:
            parts = [(*piece, 0, length) for piece in _cut(sequences, threads)]
        else:
            parts = [(0, sequences, *piece) for piece in _cut(length, threads)]
        tokens = max(1, CONV_TILE // channels)
        tiled = weight.t().repeat(1, tokens).numpy(), bias.repeat(tokens).numpy()
        out = x.new_empty(sequences, length, channels)
        shape = length, channels, taps
        _in_threads(_conv_forward, [(p, *shape, _flat(x), *tiled, _flat(out)) for p in parts])
        ctx.save_for_backward(x)
        ctx.plan = parts, shape, tiled
        return out

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        parts, (length, channels, taps), tiled = ctx.plan
        dweight, dbias = np.zeros((len(parts), taps, channels)), np.zeros((len(parts), channels))
        grad = _flat(grad.contiguous())
        calls, pieces = [], []
        for i, part in enumerate(parts):
            pieces.append(x.new_zeros(part[1] - part[0], part[3] - part[2] + taps - 1, channels))
            call = (part, length, channels, taps, _flat(x), *tiled, grad, _flat(pieces[i]))
            calls.append((*call, dweight[i], dbias[i]))
        _in_threads(_conv_backward, calls)
        if parts[0][3] - parts[0][2] == length:
            dx = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        else:  # parts of time overlap by taps - 1 tokens of x
            dx = torch.zeros_like(x)
            for part, piece in zip(parts, pieces, strict=True):
                dx[:, part[2] : part[3] + taps - 1] += piece
        dweight, dbias = (torch.from_numpy(d.sum(0)).float() for d in (dweight, dbias))
        return dx, dweight.t(), dbias


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None) -> Tensor:
    """Depthwise causal convolution along tokens, then SiLU; gradients for all inputs.

    Args:
        x: input (sequence, token, channel).
        weight: (channel, tap); the last tap is the token itself.
        bias: (channel).
        before: the taps - 1 tokens before the first, (sequence, token, channel); None: zeros.

    Returns:
        The output, like `x`. float32 on the CPU runs the compiled kernel, else torch's.
    """
    taps = weight.shape[1]
    x = F.pad(x, (0, 0, taps - 1, 0)) if before is None else torch.cat([before, x], 1)
    if x.numel() and x.shape[1] >= taps and x.device.type == "cpu" and x.dtype == torch.float32:
        return _Conv.apply(x, weight, bias)
    return F.silu(F.conv1d(x.transpose(1, 2), weight[:, None], bias, groups=x.shape[2])).transpose(
        1, 2
    )
