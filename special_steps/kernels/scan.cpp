// Selective scan and causal convolution on the CPU, forward and backward; compiled and called by scan.py.
//
// The scan. For one sequence, channel d and state n, with s = softplus(delta + bias):
//
//   h_t = a_t h_(t-1) + s_t u_t B_t,  a_t = exp(s_t A),  y_t = sum_n C_t h_t + D u_t,  out_t = y_t z_t sigmoid(z_t)
//
// Let g_t be the gradient of the loss for h_t, and e_t = grad(out_t) z_t sigmoid(z_t) that for y_t. Backwards in t,
//
//   g_t = e_t C_t + a_(t+1) g_(t+1)
//   grad C_t = sum_d e_t h_t             grad u_t = s_t S_t + e_t D,  S_t = sum_n g_t B_t
//   grad B_t = sum_d g_t s_t u_t         grad s_t = u_t S_t + sum_n g_t a_t h_(t-1) A
//   grad A   = sum_t s_t g_t a_t h_(t-1) grad delta_t = grad s_t sigmoid(delta_t + bias)
//
// Source of the recurrence: Gu and Dao, "Mamba: Linear-time sequence modeling with selective state spaces", 2023,
// algorithm 2.
//
// Both passes go through *tiles* of STEPS tokens (or several whole short sequences) that fit into the first-level
// cache. The forward pass keeps the states before each tile; the backward pass computes those within a tile again.
// A vector holds W neighbouring channels for LANES / W neighbouring states: lane j W + i is channel i, state j. Some
// such vectors at a time (BLOCK) run through all tokens of a tile in registers.
//
// The work is cut into as many fixed parts as there are threads: sequences or, where those are too few, spans of tiles
// in turn (`Turns`). Sums over parts are taken in their order: results are a function of the number of threads only.

#include "simd.h"

#include <tuple>

namespace {

constexpr Int STEPS = 16;         // tokens of a tile
constexpr Int FLUSH = 32;         // float32 sums over time go into float64 ones every so many tiles
constexpr Int SPAN = 32;          // tiles that a part takes at a time where parts take turns
constexpr Int CONV_TILE = 1024;  // values of a tile of the convolution
constexpr Int OUTER_ROWS = 128;  // rows of a tile of an outer product
constexpr float LN2 = 0.6931471805599453f;

INLINE void copy(float* to, const float* from, Int count) {  // short rows: without the call of memcpy
    for (; count >= LANES; count -= LANES, to += LANES, from += LANES) store(to, load(from));
    if (LANES > 8 && count & 8) std::memcpy(to, from, 32), to += 8, from += 8;
    if (LANES > 4 && count & 4) std::memcpy(to, from, 16), to += 4, from += 4;
    for (count &= 3; count > 0; count--) *to++ = *from++;
}

template <Int... i>
INLINE Vector pick(Vector a, Vector b, std::integer_sequence<Int, i...>) {  // lanes i of a and b, one after the other
#if defined(__clang__)
    return __builtin_shufflevector(a, b, i...);
#else
    return __builtin_shuffle(a, b, Mask{i...});
#endif
}

template <Int scale, Int shift, Int modulo, Int... i>
constexpr std::integer_sequence<Int, (i / scale % modulo + shift)...> lanes_of(
    std::integer_sequence<Int, i...>) {
    return {};
}
using Lanes = std::make_integer_sequence<Int, LANES>;

// For `summed`: values 0 and 2 (odd: 1 and 3) of each quarter of a, then b, within quarters of four values ...
template <Int odd, Int... i>
constexpr std::integer_sequence<Int, (i / 4 * 4 + i % 2 * 2 + odd + i % 4 / 2 * LANES)...> within(
    std::integer_sequence<Int, i...>) {
    return {};
}
// ... and every second quarter of a, then b.
template <Int odd, Int... i>
constexpr std::integer_sequence<Int, (i / 4 * 8 + odd * 4 + i % 4)...> quarters(std::integer_sequence<Int, i...>) {
    return {};
}

// Sums of `reach` lanes to sums of `reach * count` lanes, of `count` vectors in one.
template <Int count, Int reach>
INLINE Vector summed(const Vector* v) {
    if constexpr (count == 1) {
        return v[0];
    } else {
        const Vector a = summed<count / 2, reach>(v), b = summed<count / 2, reach>(v + count / 2);
        if constexpr (reach * count <= 4)
            return pick(a, b, within<0>(Lanes{})) + pick(a, b, within<1>(Lanes{}));
        else
            return pick(a, b, quarters<0>(Lanes{})) + pick(a, b, quarters<1>(Lanes{}));
    }
}

// Where `summed` of W vectors leaves state n of theirs.
template <Int W>
constexpr Int place(Int n) {
    const Int G = LANES / W, v = n / G, g = n % G;
    return W >= 4 ? (v / 4 * G + g) * 4 + v % 4 : W == 2 ? g / 2 * 4 + v * 2 + g % 2 : n;
}
template <Int W, Int... n>
INLINE Vector in_order(Vector v, std::integer_sequence<Int, n...>) {
    return pick(v, v, std::integer_sequence<Int, place<W>(n)...>{});
}

// W values, again and again.
template <Int W>
INLINE Vector repeated(const float* p) {
    Vector v = load(p);
    return W == LANES ? v : pick(v, v, lanes_of<1, 0, W>(Lanes{}));
}

// LANES / W values, each W times.
template <Int W>
INLINE Vector spread(const float* p) {
    if (W == LANES) return all(*p);
    Vector v = load(p);
    return pick(v, v, lanes_of<W, 0, LANES>(Lanes{}));
}

// Sum over the states of a vector; the first W lanes are wanted.
template <Int W, Int half = LANES / 2>
INLINE Vector folded(Vector v) {
    if constexpr (W > half)
        return v;
    else
        return folded<W, half / 2>(v + pick(v, v, lanes_of<1, half, half>(Lanes{})));
}

// log(1 + w) for w in [0, 1], relative error 1e-7: 2 artanh(v) with v = w / (2 + w), odd in v.
INLINE Vector log1p(Vector w) {
    const Vector v = w / (2.0f + w), z = v * v;
    Vector p = 0.2819153792f * z + 0.2795766787f;
    p = p * z + 0.4002511418f;
    p = p * z + 0.6666631015f;
    return v * (p * z + 2.0f);
}

INLINE Vector decayed(Vector x) { return exp2((Vector)((Mask)x | INT32_MIN) * LOG2E); }  // exp(-|x|)

INLINE Vector sigmoid(Vector x) {
    const Vector w = decayed(x);
    return (x >= 0.0f ? all(1.0f) : w) / (1.0f + w);
}

INLINE Vector softplus(Vector x, Vector w) { return (x < 0.0f ? all(0.0f) : x) + log1p(w); }  // w = exp(-|x|)

// Values from first to last of `count` that part i of `parts` has.
std::pair<Int, Int> cut(Int count, Int parts, Int i) { return {count * i / parts, count * (i + 1) / parts}; }

}  // namespace

extern "C" {

// A float32 tensor (sequence, token, value); values are next to each other.
struct Rows {
    float* data;
    Int sequence, token;  // strides
    float* row(Int b, Int t) const { return data + b * sequence + t * token; }
};

struct Scan {
    Int sequences, length, channels, states, width, threads;
    Rows u, delta, z, B, C, out;
    const float *A, *D, *bias;    // (channel, state), (channel), (channel)
    const float* initial;         // (sequence, channel, state) or null
    float *last, *kept;           // like initial; see kept_values(); or null
    Rows grad_out, du, ddelta, dz, dB, dC;
    const float* grad_last;       // like initial, or null
    float* dinitial;              // like initial, or null
    double *dA, *dD, *dbias;      // (part, channel, state), (part, channel), (part, channel): zeros at first
};

struct Conv {
    Int sequences, length, channels, taps, threads;
    Rows x, out, grad_out, dx;
    const float *weight, *bias;   // (tap, channel), (channel)
    const float* before;          // (sequence, taps - 1, channel) or null
    float* dbefore;               // like before, or null
    double *dweight, *dbias;      // (part, tap, channel), (part, channel): zeros at first
};

struct Product {
    Int rows, inner, columns, threads, add;
    const float* left;    // (row, inner)
    Int left_row;         // stride, like those below
    const float* right;   // multiply: (inner, column), contiguous; outer: (row, column)
    Int right_row;
    float* out;           // multiply: (row, column)
    Int out_row;
    double* sums;         // outer: (part, inner, column), zeros at first
};

}

namespace {

struct Plan {  // how a scan is laid out
    Int parts, blocks, together, chunks, padded, vectors, span, spans;
    bool in_turn;  // parts take spans of all sequences in turn, else they have sequences of their own

    explicit Plan(const Scan& s) {
        blocks = (s.channels + s.width - 1) / s.width;
        together = s.length <= STEPS ? STEPS / s.length : 1;
        chunks = (s.length + STEPS - 1) / STEPS;
        padded = (s.states + LANES - 1) / LANES * LANES;
        vectors = padded * s.width / LANES;  // of one block of channels and all states
        in_turn = s.sequences < s.threads && chunks > 1;
        span = in_turn ? SPAN : 1;
        spans = (chunks - 1) / span + 1;
        parts = std::min(s.threads, in_turn ? std::min(spans, blocks) : s.sequences);
    }
};

// Where parts that take spans in turn stand. A part begins a block of channels when the part before it is through with
// that block in the span before, and has left its states here. If each had some of the channels instead, cores would read
// and write neighbouring cache lines at the same time and add up each other's sums: measured as fast at best, and up
// to a fifth slower in stretches.
struct Turns {
    struct alignas(128) Count {
        std::atomic<Int> blocks{0};
    };
    Scratch scratch;
    float *state, *carry;     // of all sequences
    std::vector<Count> done;  // by each part: the number of its last span x blocks + blocks of that one

    Turns(const Scan& s, const Plan& plan) : done(plan.parts) {
        const Int size = plan.in_turn ? s.sequences * plan.blocks * plan.vectors * LANES : 0;
        state = scratch.take(size), carry = scratch.take(size);
    }
};

// Rows of B or C in a tile, where they lie or padded.
struct Weights {
    const float* data;
    Int token;
    const float* of(Int r) const { return data + r * token; }
};

// One part of a scan, with W channels to a vector.
template <Int W>
struct Part {
    static constexpr Int G = LANES / W;
    static constexpr Int BLOCK = W < 4 ? W : 4;  // vectors of state in registers
    static constexpr Int FLAT = STEPS * W < LANES ? LANES : STEPS * W;

    const Scan& s;
    const Plan plan;
    Turns& turns;
    const Int index;
    Int b0, b1, since = 0;
    Scratch scratch;
    // of a tile: (token, channel)
    alignas(BYTES) float uu[FLAT], zz[FLAT], ss[FLAT + LANES], su[FLAT + LANES], gate[FLAT];
    alignas(BYTES) float slope[FLAT], ee[FLAT + LANES];
    alignas(BYTES) float folds[3][W == LANES ? 1 : FLAT];
    // of a tile: (token), lanes as above
    Vector y[STEPS], S_lanes[STEPS], ds_lanes[STEPS];
    Vector a[STEPS][BLOCK], h[2 * STEPS][BLOCK];
    Vector *A2, *state, *start, *carry, *dA, *dD, *dbias, *D, *bias, *pB, *pC;
    float *B_tile, *C_tile;  // (token, padded state)
    Weights B, C;

    Part(const Scan& scan, Turns& shared, Int i) : s(scan), plan(scan), turns(shared), index(i) {
        std::tie(b0, b1) = plan.in_turn ? std::make_pair(Int(0), s.sequences) : cut(s.sequences, plan.parts, i);
        const auto vectors = [&](Int count) { return reinterpret_cast<Vector*>(scratch.take(count * LANES)); };
        const Int all = plan.blocks * plan.vectors;
        A2 = vectors(all), dA = vectors(all);
        state = plan.in_turn ? reinterpret_cast<Vector*>(turns.state) : vectors(all * plan.together);
        carry = plan.in_turn ? reinterpret_cast<Vector*>(turns.carry) : vectors(all * plan.together);
        dD = vectors(plan.blocks), dbias = vectors(plan.blocks), D = vectors(plan.blocks), bias = vectors(plan.blocks);
        pB = vectors(plan.span * STEPS * plan.vectors / BLOCK), pC = vectors(plan.span * STEPS * plan.vectors / BLOCK);
        B_tile = scratch.take(STEPS * plan.padded + LANES), C_tile = scratch.take(STEPS * plan.padded + LANES);
        for (Int k = 0; k < plan.blocks; k++) {
            for (Int i = 0; i < std::min(W, s.channels - k * W); i++) {
                const Int d = k * W + i;
                for (Int j = 0; j < G; j++) at(D, k, j * W + i) = s.D[d], at(bias, k, j * W + i) = s.bias[d];
                for (Int n = 0; n < s.states; n++)
                    at(A2, k * plan.vectors + n / G, n % G * W + i) = s.A[d * s.states + n] * LOG2E;
            }
        }
    }

    static float& at(Vector* v, Int index, Int lane) { return reinterpret_cast<float*>(v + index)[lane]; }

    // States of a sequence, (channel, state), to or from vectors.
    void load_states(Vector* to, const float* from, Int b) {
        for (Int k = 0; k < plan.blocks; k++)
            for (Int v = 0; v < plan.vectors; v++) {
                to[k * plan.vectors + v] = Vector{};
                if (!from) continue;
                for (Int lane = 0; lane < LANES; lane++) {
                    const Int d = k * W + lane % W, n = v * G + lane / W;
                    if (d < s.channels && n < s.states)
                        at(to, k * plan.vectors + v, lane) = from[(b * s.channels + d) * s.states + n];
                }
            }
    }
    void store_states(float* to, Vector* from, Int b) {
        for (Int k = 0; k < plan.blocks; k++)
            for (Int d = k * W; d < std::min(k * W + W, s.channels); d++)
                for (Int n = 0; n < s.states; n++)
                    to[(b * s.channels + d) * s.states + n] = at(from, k * plan.vectors + n / G, n % G * W + d % W);
    }

    // A tile: `count` sequences from b on, `steps` tokens from t on.
    struct Tile {
        Int b, count, t, steps;
        Int rows() const { return count * steps; }
    };
    Tile next;  // what this part works on next: a tile,
    Int next_k;  // and a block of its channels

    Tile tile_of(Int b, Int chunk) const {
        return {b, std::min(plan.together, b1 - b), chunk * STEPS, std::min(STEPS, s.length - chunk * STEPS)};
    }

    // Calls work(tile, block of channels, place in its span) for all tiles of this part in the order of time (way: 1) or
    // against it (-1), begin(tile) before the first one of a sequence and end(tile) behind the last.
    template <class Begin, class Work, class End>
    void walk(Int way, const Begin& begin, const Work& work, const End& end) {
        const auto& others = turns.done[(index + plan.parts - 1) % plan.parts].blocks;
        const Int stride = plan.in_turn ? plan.parts * plan.span : 1;
        for (Int b = b0; b < b1; b += plan.together)
            for (Int turn = 0; turn < plan.spans; turn++) {
                const Int number = b * plan.spans + turn;
                if (plan.in_turn && number % plan.parts != index) continue;
                const auto tile = [&](Int i) { return tile_of(b, way > 0 ? i : plan.chunks - 1 - i); };
                const Int from = turn * plan.span, to = std::min(from + plan.span, plan.chunks);
                const Tile later = plan.chunks > 1 ? tile(from + stride) : tile_of(b + plan.together, 0);
                if (turn == 0) begin(tile(0));
                for (Int k = 0; k < plan.blocks; k++) {
                    while (plan.in_turn && others.load() < (number - 1) * plan.blocks + k + 1)
                        std::this_thread::yield();
                    for (Int i = from; i < to; i++) {
                        const bool last = i + 1 == to;
                        next_k = (k + last) % plan.blocks;
                        next = !last ? tile(i + 1) : next_k > 0 ? tile(from) : later;
                        work(tile(i), k, i - from);
                    }
                    turns.done[index].blocks.store(number * plan.blocks + k + 1);
                }
                if (turn == plan.spans - 1) end(tile(to - 1));
            }
    }

    // Rows of the next tile are fetched into a cache while this one is worked on: every block of states has some of the
    // tensors, and fetches a row at every step. All at once, they would be more than the processor has buffers for.
    template <int LOCALITY>  // 3: first level, 2: second
    struct Ahead {
        const Tile& at;
        const Int q, blocks;
        Int next;  // tensors until the next one that is this block's
        const float* row[9];
        Int token[9], count = 0;

        INLINE void add(const Rows& rows, Int column) {
            if (next-- > 0) return;
            next = blocks - 1;
            row[count] = rows.row(at.b + q, at.t) + column;
            token[count++] = rows.token;
        }
        INLINE void fetch() {
            for (Int i = 0; i < count; i++) __builtin_prefetch(row[i], 0, LOCALITY), row[i] += token[i];
        }
    };

    // The rows of W channels of a tile: as they lie in a tensor where each is one whole vector, else flat in `buffer`.
    struct View {
        float *data, *buffer;
        Int token;
        bool flat() const { return data == buffer; }
        INLINE float* at(Int i) const { return data + (W == LANES ? i / LANES * token : i); }
        INLINE Vector operator[](Int i) const { return load(at(i)); }
    };
    View view(float* buffer, const Rows& rows, const Tile& at, Int k) {
        const bool whole = W == LANES && at.count == 1 && (k + 1) * W <= s.channels;
        if (!whole) return {buffer, buffer, W};
        return {rows.row(at.b, at.t) + k * W, buffer, rows.token};
    }
    View loaded(float* buffer, const Rows& rows, const Tile& at, Int k) {
        const View found = view(buffer, rows, at, k);
        if (found.flat()) load_tile(buffer, rows, at, k);
        return found;
    }
    void stored(const View& from, const Rows& rows, const Tile& at, Int k) {
        if (from.flat()) store_tile(rows, from.buffer, at, k);
    }

    // tile(token, channel) = rows of W channels of block k; zeros where there is none.
    void load_tile(float* tile, const Rows& from, const Tile& at, Int k) {
        const Int real = std::min(W, s.channels - k * W);
        for (Int q = 0; q < at.count; q++) {
            const float* row = from.row(at.b + q, at.t) + k * W;
            for (Int t = 0; t < at.steps; t++, row += from.token, tile += W) {
                if (real == W) {
                    std::memcpy(tile, row, W * sizeof(float));
                } else {
                    std::memset(tile, 0, W * sizeof(float));
                    copy(tile, row, real);
                }
            }
        }
        for (Int i = at.rows() * W; i % LANES; i++) *tile++ = 0;
    }
    void store_tile(const Rows& to, const float* tile, const Tile& at, Int k) {
        const Int real = std::min(W, s.channels - k * W);
        for (Int q = 0; q < at.count; q++) {
            float* row = to.row(at.b + q, at.t) + k * W;
            for (Int t = 0; t < at.steps; t++, row += to.token, tile += W) {
                if (real == W)
                    std::memcpy(row, tile, W * sizeof(float));
                else
                    copy(row, tile, real);
            }
        }
    }
    Weights weights(float* tile, const Rows& from, const Tile& at) {
        if (W == LANES && at.count == 1 && s.states == plan.padded)
            return {from.row(at.b, at.t), from.token};
        const Weights padded{tile, plan.padded};
        for (Int q = 0; q < at.count; q++)
            for (Int t = 0; t < at.steps; t++, tile += plan.padded) {
                copy(tile, from.row(at.b + q, at.t + t), s.states);
            }
        return padded;
    }

    // Sums over the states of the lanes of each token, flat: in `to`, or as they are where a lane is a channel.
    float* fold(float* to, Vector* from, Int rows) {
        if (W == LANES) return reinterpret_cast<float*>(from);
        for (Int r = 0; r < rows; r++) {
            const Vector v = folded<W>(from[r]);
            std::memcpy(to + r * W, &v, W * sizeof(float));
        }
        for (Int i = rows * W; i % LANES; i++) to[i] = 0;
        return to;
    }

    Vector* kept(const Tile& tile) {
        return reinterpret_cast<Vector*>(s.kept) + (tile.b * plan.chunks + tile.t / STEPS) * plan.blocks * plan.vectors;
    }

    Vector* state_of(Vector* states, const Tile& tile, Int q) {
        return states + (plan.in_turn ? tile.b : q) * plan.blocks * plan.vectors;
    }

    void states_from(Vector* states, const float* from, const Tile& tile) {
        for (Int q = 0; q < tile.count; q++) load_states(state_of(states, tile, q), from, tile.b + q);
    }
    void states_to(float* to, Vector* states, const Tile& tile) {
        if (!to) return;
        for (Int q = 0; q < tile.count; q++) store_states(to, state_of(states, tile, q), tile.b + q);
    }

    void forward() {
        walk(
            1, [&](const Tile& tile) { states_from(state, s.initial, tile); },
            [&](const Tile& tile, Int k, Int) { forward_block(tile, k); },
            [&](const Tile& tile) { states_to(s.last, state, tile); });
    }

    void forward_block(const Tile& tile, Int k) {
        const Int rows = tile.rows(), flat = rows * W;
        const View delta = loaded(ss, s.delta, tile, k), u = loaded(uu, s.u, tile, k), z = loaded(zz, s.z, tile, k);
        const View out = view(uu, s.out, tile, k);
        B = weights(B_tile, s.B, tile);
        C = weights(C_tile, s.C, tile);
        for (Int i = 0; i < flat; i += LANES) {
            const Vector x = delta[i] + bias[k], z_i = z[i], step = softplus(x, decayed(x));
            store(ss + i, step);
            store(su + i, step * u[i]);
            store(gate + i, z_i * sigmoid(z_i));
        }
        for (Int r = 0; r < rows; r++) y[r] = Vector{};
        for (Int v = 0; v < plan.vectors; v += BLOCK)
            for (Int q = 0; q < tile.count; q++) {
                const Int place = k * plan.vectors + v;
                Vector* held = state_of(state, tile, q) + place;
                Vector now[BLOCK], A[BLOCK];
                Ahead<3> ahead{next, q, plan.vectors / BLOCK, v / BLOCK};
                for (const Rows* rows : {&s.delta, &s.u, &s.z, &s.out}) ahead.add(*rows, next_k * W);
                ahead.add(s.B, 0), ahead.add(s.C, 0);
                for (Int n = 0; n < BLOCK; n++) {
                    now[n] = held[n], A[n] = A2[place + n];
                    if (!s.kept) continue;
                    store(reinterpret_cast<float*>(kept(tile) + place + n), now[n]);
                    __builtin_prefetch(kept(next) + next_k * plan.vectors + v + n, 1);
                }
                for (Int r = q * tile.steps; r < (q + 1) * tile.steps; r++) {
                    const Vector step = repeated<W>(ss + r * W), input = repeated<W>(su + r * W);
                    const float *B_r = B.of(r) + v * G, *C_r = C.of(r) + v * G;
                    Vector sum = y[r];
                    ahead.fetch();
#pragma GCC unroll 8
                    for (Int n = 0; n < BLOCK; n++) {
                        now[n] = exp2(step * A[n]) * now[n] + input * spread<W>(B_r + n * G);
                        sum += now[n] * spread<W>(C_r + n * G);
                    }
                    y[r] = sum;
                }
                for (Int n = 0; n < BLOCK; n++) held[n] = now[n];
            }
        const float* yy = fold(folds[0], y, rows);
        for (Int i = 0; i < flat; i += LANES) store(out.at(i), (load(yy + i) + D[k] * u[i]) * load(gate + i));
        stored(out, s.out, tile, k);
    }

    void backward() {
        walk(
            -1, [&](const Tile& tile) { states_from(carry, s.grad_last, tile); },
            [&](const Tile& tile, Int k, Int i) { backward_block(tile, k, i * STEPS * plan.vectors / BLOCK); },
            [&](const Tile& tile) { states_to(s.dinitial, carry, tile); });
        flush();
    }

    void backward_block(const Tile& tile, Int k, Int sums) {
        const Int rows = tile.rows(), flat = rows * W;
        const View delta = loaded(ss, s.delta, tile, k), u = loaded(uu, s.u, tile, k), z = loaded(zz, s.z, tile, k);
        const View grad_out = loaded(gate, s.grad_out, tile, k);
        B = weights(B_tile, s.B, tile);
        C = weights(C_tile, s.C, tile);
        start = s.kept ? kept(tile) : state;
        if (!s.kept && k == 0) states_from(state, s.initial, tile);
        for (Int i = 0; i < flat; i += LANES) {
            const Vector x = delta[i] + bias[k], w = decayed(x), step = softplus(x, w);
            const Vector z_i = z[i], sigma = sigmoid(z_i), g = grad_out[i] * sigma;
            store(slope + i, (x >= 0.0f ? all(1.0f) : w) / (1.0f + w));
            store(ss + i, step);
            store(su + i, step * u[i]);
            store(zz + i, sigma * z_i);
            store(ee + i, g * z_i);
            store(gate + i, g * (1.0f + z_i * (1.0f - sigma)));  // grad z = gate y
        }
        for (Int r = 0; r < rows; r++) y[r] = S_lanes[r] = ds_lanes[r] = Vector{};
        for (Int v = 0; v < plan.vectors; v += BLOCK)
            for (Int q = 0; q < tile.count; q++) backward_states(tile, k, v, q, pB + sums, pC + sums);
        float *yy = fold(folds[0], y, rows), *S = fold(folds[1], S_lanes, rows), *ds = fold(folds[2], ds_lanes, rows);
        const View dz = view(gate, s.dz, tile, k), du = view(S, s.du, tile, k), ddelta = view(ds, s.ddelta, tile, k);
        const View out = s.out.data ? view(yy, s.out, tile, k) : View{yy, yy, W};
        for (Int i = 0; i < flat; i += LANES) {
            const Vector u_i = u[i], e = load(ee + i), sum = load(S + i);
            const Vector grad = (u_i * sum + LN2 * load(ds + i)) * load(slope + i), y = load(yy + i) + D[k] * u_i;
            store(dz.at(i), load(gate + i) * y);
            store(out.at(i), y * load(zz + i));
            store(du.at(i), load(ss + i) * sum + e * D[k]);
            store(ddelta.at(i), grad);
            dD[k] += e * u_i;
            dbias[k] += grad;
        }
        if (s.out.data) stored(out, s.out, tile, k);
        stored(dz, s.dz, tile, k), stored(du, s.du, tile, k), stored(ddelta, s.ddelta, tile, k);
        if (k + 1 == plan.blocks) {
            sum_channels(s.dB, pB + sums, tile);
            sum_channels(s.dC, pC + sums, tile);
            if (++since % FLUSH == 0) flush();
        }
    }

    // BLOCK vectors of state of sequence q of a tile, forwards and back.
    INLINE void backward_states(const Tile& tile, Int k, Int v, Int q, Vector* pB, Vector* pC) {
        const Int first = q * tile.steps, end = first + tile.steps, place = k * plan.vectors + v;
        Vector (*before)[BLOCK] = h + q;  // before[r] and before[r + 1]: states before and after token r
        Vector now[BLOCK], A[BLOCK], sums[BLOCK];
        // The second level: the states within the tile fill the first.
        Ahead<2> ahead{next, q, plan.vectors / BLOCK, v / BLOCK};
        for (const Rows* rows : {&s.delta, &s.u, &s.z, &s.grad_out, &s.du, &s.ddelta, &s.dz})
            ahead.add(*rows, next_k * W);
        ahead.add(s.B, 0), ahead.add(s.C, 0);
        for (Int n = 0; n < BLOCK; n++) {
            A[n] = A2[place + n];
            if (s.kept) __builtin_prefetch(kept(next) + next_k * plan.vectors + v + n, 0, 2);
            const Vector* from = start + q * plan.blocks * plan.vectors + place + n;
            before[first][n] = now[n] = load(reinterpret_cast<const float*>(from));
        }
        for (Int r = first; r < end; r++) {
            const Vector step = repeated<W>(ss + r * W), input = repeated<W>(su + r * W);
            const float *B_r = B.of(r) + v * G, *C_r = C.of(r) + v * G;
            Vector sum = y[r];
            ahead.fetch();
#pragma GCC unroll 8
            for (Int n = 0; n < BLOCK; n++) {
                const Vector decay = exp2(step * A[n]);
                now[n] = decay * now[n] + input * spread<W>(B_r + n * G);
                sum += now[n] * spread<W>(C_r + n * G);
                a[r][n] = decay;
                before[r + 1][n] = now[n];
            }
            y[r] = sum;
        }
        Vector* held = state_of(carry, tile, q) + place;
        for (Int n = 0; n < BLOCK; n++) now[n] = held[n], sums[n] = dA[place + n];
        for (Int r = end - 1; r >= first; r--) {
            const Vector step = repeated<W>(ss + r * W), input = repeated<W>(su + r * W), e = repeated<W>(ee + r * W);
            const float *B_r = B.of(r) + v * G, *C_r = C.of(r) + v * G;
            Vector S_r = S_lanes[r], ds_r = ds_lanes[r], tB[BLOCK], tC[BLOCK];
#pragma GCC unroll 8
            for (Int n = 0; n < BLOCK; n++) {
                const Vector g = now[n] + e * spread<W>(C_r + n * G);
                tC[n] = e * before[r + 1][n];
                tB[n] = input * g;
                S_r += g * spread<W>(B_r + n * G);
                now[n] = a[r][n] * g;
                const Vector slope = now[n] * before[r][n];
                sums[n] += step * slope;
                ds_r += slope * A[n];
            }
            S_lanes[r] = S_r;
            ds_lanes[r] = ds_r;
            // Sums over channels, as far as these vectors go; the rest after all blocks
            const Int to = (r * plan.vectors + v) / BLOCK;
            const Vector sB = summed<BLOCK, 1>(tB), sC = summed<BLOCK, 1>(tC);
            pB[to] = k == 0 ? sB : pB[to] + sB;
            pC[to] = k == 0 ? sC : pC[to] + sC;
        }
        for (Int n = 0; n < BLOCK; n++) held[n] = now[n], dA[place + n] = sums[n];
    }

    // (sequence, token, state) = sums over the lanes that are channels
    void sum_channels(const Rows& to, const Vector* sums, const Tile& tile) {
        float all[LANES];
        for (Int q = 0; q < tile.count; q++)
            for (Int t = 0; t < tile.steps; t++) {
                const Vector* mine = sums + (q * tile.steps + t) * plan.vectors / BLOCK;
                float* row = to.row(tile.b + q, tile.t + t);
                for (Int n = 0; n < s.states; n += LANES, mine += W / BLOCK) {
                    const Vector sum = in_order<W>(summed<W / BLOCK, BLOCK>(mine), Lanes{});
                    if (s.states - n >= LANES) {
                        store(row + n, sum);
                    } else {
                        store(all, sum);
                        copy(row + n, all, s.states - n);
                    }
                }
            }
    }

    // Sums of the last tiles into those in float64.
    void flush() {
        for (Int k = 0; k < plan.blocks; k++)
            for (Int i = 0; i < std::min(W, s.channels - k * W); i++) {
                const Int d = index * s.channels + k * W + i;
                for (Int j = 0; j < G; j++) s.dD[d] += at(dD, k, j * W + i), s.dbias[d] += at(dbias, k, j * W + i);
                for (Int n = 0; n < s.states; n++)
                    s.dA[d * s.states + n] += at(dA, k * plan.vectors + n / G, n % G * W + i);
            }
        for (Int k = 0; k < plan.blocks; k++) {
            dD[k] = dbias[k] = Vector{};
            for (Int v = 0; v < plan.vectors; v++) dA[k * plan.vectors + v] = Vector{};
        }
    }
};

template <Int W>
void run_forward(const Scan& s) {
    const Plan plan(s);
    Turns turns(s, plan);
    in_threads(plan.parts, [&](Int i) { Part<W>(s, turns, i).forward(); });
}
template <Int W>
void run_backward(const Scan& s) {
    const Plan plan(s);
    Turns turns(s, plan);
    in_threads(plan.parts, [&](Int i) { Part<W>(s, turns, i).backward(); });
}

// The causal convolution: v_t = bias + sum_k w_k x_(t - K + 1 + k), out = v sigmoid(v), channel by channel. Tokens of
// a tile are one flat array, so that a shift by one token is a shift by the number of channels; weights are repeated
// for every token of a tile. A tile is some tokens of one sequence or several short sequences with what they need
// around them: between them are values that nobody wants, but the loops stay long.
struct ConvPart {
    const Conv& c;
    const Int index, history, tokens;  // history: tokens before the first that the convolution sees
    bool by_tokens;
    Int b0, b1, t0, t1, size;
    Scratch scratch;
    float *weight, *bias, *x, *v, *g, *dx, *dweight, *dbias;

    static Int parts(const Conv& c) { return std::min(c.threads, c.sequences < c.threads ? c.length : c.sequences); }

    ConvPart(const Conv& conv, Int i)
        : c(conv), index(i), history(c.taps - 1), tokens(std::max<Int>(1, CONV_TILE / c.channels)) {
        by_tokens = c.sequences < c.threads;
        std::tie(b0, b1) = by_tokens ? std::make_pair(Int(0), c.sequences) : cut(c.sequences, parts(c), i);
        std::tie(t0, t1) = by_tokens ? cut(c.length, parts(c), i) : std::make_pair(Int(0), c.length);
        size = (tokens + 2 * history + history) * c.channels;
        bias = repeat(c.bias);
        weight = scratch.take(c.taps * stride());
        for (Int k = 0; k < c.taps; k++) fill(weight + k * stride(), c.weight + k * c.channels);
        x = scratch.take(size + history * c.channels), v = scratch.take(size), g = scratch.take(size + history * c.channels);
        dx = scratch.take(size), dweight = scratch.take(c.taps * stride()), dbias = scratch.take(stride());
    }

    Int stride() const { return (size + LANES - 1) / LANES * LANES; }
    void fill(float* to, const float* from) {
        for (Int i = 0; i < size; i++) to[i] = from[i % c.channels];
    }
    float* repeat(const float* from) {
        float* to = scratch.take(stride());
        fill(to, from);
        return to;
    }

    // Tokens first .. first + count of a sequence; before the first token come those of `before`, else zeros.
    void load_rows(float* to, const Rows& from, const float* before, Int b, Int first, Int count) {
        for (Int t = first; t < first + count; t++, to += c.channels) {
            const float* row = nullptr;
            if (t >= 0 && t < c.length)
                row = from.row(b, t);
            else if (before && t < 0 && t >= -history)
                row = before + (b * history + t + history) * c.channels;
            if (row)
                copy(to, row, c.channels);
            else
                std::memset(to, 0, c.channels * sizeof(float));
        }
    }

    void convolve(Int count) {
        for (Int m = 0; m < count; m += LANES) {
            Vector sum = load(bias + m);
            for (Int k = 0; k < c.taps; k++) sum += load(weight + k * stride() + m) * load(x + k * c.channels + m);
            store(v + m, sum);
        }
    }

    void forward() {
        const Int period = std::min(tokens, t1 - t0) + history;
        const Int together = t1 - t0 < tokens && !by_tokens ? std::max<Int>(1, tokens / period) : 1;
        for (Int b = b0; b < b1; b += together)
            for (Int t = t0; t < t1; t += tokens) {
                const Int count = std::min(together, b1 - b), steps = std::min(tokens, t1 - t), run = steps * c.channels;
                for (Int j = 0; j < count; j++)
                    load_rows(x + j * period * c.channels, c.x, c.before, b + j, t - history, steps + history);
                const Int all = (count - 1) * period * c.channels + run;
                convolve(all);
                for (Int m = 0; m < all; m += LANES) store(v + m, load(v + m) * sigmoid(load(v + m)));
                for (Int j = 0; j < count; j++)
                    for (Int r = 0; r < steps; r++)
                        copy(c.out.row(b + j, t + r), v + (j * period + r) * c.channels, c.channels);
            }
    }

    // A tile needs the gradients of `history` tokens behind it, which are computed once more: tiles are independent.
    void backward() {
        const Int begin = t0 == 0 && c.dbefore ? -history : t0;
        const Int period = std::min(tokens, t1 - begin) + history;
        const Int together = t1 - begin < tokens && !by_tokens ? std::max<Int>(1, tokens / period) : 1;
        Int since = 0;
        for (Int b = b0; b < b1; b += together)
            for (Int t = begin; t < t1; t += tokens) {
                const Int count = std::min(together, b1 - b), steps = std::min(tokens, t1 - t);
                const Int own = ((count - 1) * period + steps) * c.channels, all = own + history * c.channels;
                std::fill(g + own, g + all + history * c.channels + LANES, 0.0f);
                for (Int j = 0; j < count; j++) {
                    const Int to = j * period * c.channels;
                    load_rows(x + to, c.x, c.before, b + j, t - history, steps + 2 * history);
                    load_rows(g + to, c.grad_out, nullptr, b + j, t, steps + history);
                }
                convolve(all);
                for (Int m = 0; m < all; m += LANES) {
                    const Vector value = load(v + m), sigma = sigmoid(value);
                    store(g + m, load(g + m) * sigma * (1.0f + value * (1.0f - sigma)));
                }
                for (Int m = 0; m < own; m += LANES) {
                    Vector sum = Vector{};
                    for (Int k = 0; k < c.taps; k++)
                        sum += load(weight + k * stride() + m) * load(g + (history - k) * c.channels + m);
                    store(dx + m, sum);
                }
                for (Int j = 0; j < count; j++)
                    for (Int r = 0; r < steps; r++) {
                        const Int p = t + r;
                        float* row = p < 0 ? c.dbefore + ((b + j) * history + p + history) * c.channels
                                           : c.dx.row(b + j, p);
                        copy(row, dx + (j * period + r) * c.channels, c.channels);
                    }
                std::fill(g + own, g + own + LANES, 0.0f);  // tokens behind belong to other tiles
                for (Int m = 0; m < own; m += LANES) {
                    const Vector grad = load(g + m);
                    store(dbias + m, load(dbias + m) + grad);
                    for (Int k = 0; k < c.taps; k++) {
                        float* sum = dweight + k * stride() + m;
                        store(sum, load(sum) + grad * load(x + k * c.channels + m));
                    }
                }
                if (++since % FLUSH == 0) flush();
            }
        flush();
    }

    void flush() {
        for (Int m = 0; m < size; m++) {
            c.dbias[index * c.channels + m % c.channels] += dbias[m];
            dbias[m] = 0;
            for (Int k = 0; k < c.taps; k++) {
                c.dweight[(index * c.taps + k) * c.channels + m % c.channels] += dweight[k * stride() + m];
                dweight[k * stride() + m] = 0;
            }
        }
    }
};

// Products of a tall matrix and a small one, for which libraries for matrices are slow.

// `count` vectors of columns from `first` on of ROWS rows of the product; right: padded to whole vectors.
template <Int ROWS, Int count>
void multiply_block(const Product& p, Int row, Int first, const float* right, Int stride) {
    Vector sum[ROWS][count] = {};
    for (Int k = 0; k < p.inner; k++) {
        Vector weight[count];
        for (Int n = 0; n < count; n++) weight[n] = load(right + k * stride + (first + n) * LANES);
#pragma GCC unroll 8
        for (Int r = 0; r < ROWS; r++)
            for (Int n = 0; n < count; n++) sum[r][n] += p.left[(row + r) * p.left_row + k] * weight[n];
    }
    for (Int r = 0; r < ROWS; r++)
        for (Int n = 0; n < count; n++) {
            const Int column = (first + n) * LANES, real = std::min(LANES, p.columns - column);
            float* to = p.out + (row + r) * p.out_row + column;
            if (real == LANES) {
                store(to, p.add ? load(to) + sum[r][n] : sum[r][n]);
                continue;
            }
            float values[LANES] = {};
            if (p.add) copy(values, to, real);
            store(values, load(values) + sum[r][n]);
            copy(to, values, real);
        }
}

void multiply_part(const Product& p, Int index) {
    constexpr Int ROWS = LANES > 8 ? 8 : 4;
    const Int vectors = (p.columns + LANES - 1) / LANES, stride = vectors * LANES;
    Scratch scratch;
    float* right = scratch.take(p.inner * stride);
    for (Int k = 0; k < p.inner; k++) copy(right + k * stride, p.right + k * p.columns, p.columns);
    const auto [begin, end] = cut(p.rows, p.threads, index);
    Int row = begin;
    for (; row + ROWS <= end; row += ROWS) {
        Int n = 0;
        for (; n + 2 <= vectors; n += 2) multiply_block<ROWS, 2>(p, row, n, right, stride);
        if (n < vectors) multiply_block<ROWS, 1>(p, row, n, right, stride);
    }
    for (; row < end; row++)
        for (Int n = 0; n < vectors; n++) multiply_block<1, 1>(p, row, n, right, stride);
}

// sums += left^T right, in float32 over OUTER_ROWS rows.
void outer_part(const Product& p, Int index) {
    constexpr Int BLOCK = 8;
    const Int stride = (p.columns + LANES - 1) / LANES * LANES, height = (p.inner + BLOCK - 1) / BLOCK * BLOCK;
    Scratch scratch;
    float *left = scratch.take(OUTER_ROWS * height), *right = scratch.take(OUTER_ROWS * stride);
    double* sums = p.sums + index * p.inner * p.columns;
    const auto [begin, end] = cut(p.rows, p.threads, index);
    for (Int first = begin; first < end; first += OUTER_ROWS) {
        const Int rows = std::min(OUTER_ROWS, end - first);
        for (Int r = 0; r < rows; r++) {
            copy(left + r * height, p.left + (first + r) * p.left_row, p.inner);
            copy(right + r * stride, p.right + (first + r) * p.right_row, p.columns);
        }
        for (Int m = 0; m < p.inner; m += BLOCK)
            for (Int n = 0; n < p.columns; n += LANES) {
                Vector sum[BLOCK] = {};
                for (Int r = 0; r < rows; r++) {
                    const Vector value = load(right + r * stride + n);
#pragma GCC unroll 8
                    for (Int i = 0; i < BLOCK; i++) sum[i] += left[r * height + m + i] * value;
                }
                for (Int i = 0; i < std::min(BLOCK, p.inner - m); i++)
                    for (Int j = 0; j < std::min(LANES, p.columns - n); j++)
                        sums[(m + i) * p.columns + n + j] += sum[i][j];
            }
    }
}

}  // namespace

#define FOR_WIDTH(call)                      \
    switch (scan->width) {                   \
        case 1: return call<1>(*scan);       \
        case 2: return call<2>(*scan);       \
        case 4: return call<4>(*scan);       \
        case 8: return call<LANES < 8 ? 4 : 8>(*scan); \
        default: return call<LANES>(*scan);  \
    }

extern "C" {

int64_t lanes() { return LANES; }

// Values of Scan.kept: the states before each tile of a sequence; none where one tile is all.
int64_t kept_values(const Scan* scan) {
    const Plan plan(*scan);
    return scan->length > STEPS ? scan->sequences * plan.chunks * plan.blocks * plan.vectors * LANES : 0;
}

void scan_forward(const Scan* scan) { FOR_WIDTH(run_forward) }
void scan_backward(const Scan* scan) { FOR_WIDTH(run_backward) }

void conv_forward(const Conv* conv) {
    in_threads(ConvPart::parts(*conv), [&](Int i) { ConvPart(*conv, i).forward(); });
}
void conv_backward(const Conv* conv) {
    in_threads(ConvPart::parts(*conv), [&](Int i) { ConvPart(*conv, i).backward(); });
}

void multiply(const Product* product) {
    in_threads(product->threads, [&](Int i) { multiply_part(*product, i); });
}
void outer(const Product* product) {
    in_threads(product->threads, [&](Int i) { outer_part(*product, i); });
}

// For tests and the benchmark: 2**x - minus of `count` values (a multiple of 16) of each thread, in place, so many times.
void exponentials(float* values, int64_t count, int64_t turns, float minus, int64_t threads) {
    in_threads(threads, [&](Int i) {
        float* own = values + i * count;
        for (Int turn = 0; turn < turns; turn++) {
            for (Int i = 0; i < count; i += LANES) store(own + i, exp2(load(own + i)) - minus);
            __asm__ volatile("" ::: "memory");  // turns stay apart: two in one loop would wait for each other
        }
    });
}
void logarithms(float* values, int64_t count) {
    for (Int i = 0; i < count; i += LANES) store(values + i, log1p(load(values + i)));
}

}
