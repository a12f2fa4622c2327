// Selective scan on the CPU, forward and backward; compiled and called by scan.py.
//
// For one sequence, channel d and state n, with s = softplus(delta + bias):
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
// Both passes go through *tiles* of TILE_TOKENS tokens (or several whole short sequences) that fit into the first-level
// cache. The forward pass keeps the states before each tile; the backward pass computes those within a tile again.
// A vector holds W neighbouring channels, a *block*, for G = LANES / W neighbouring states: lane j W + i is channel i,
// state j. Some such vectors at a time (TOGETHER) run through all tokens of a tile in registers.
//
// Of two products that are added, the compiler fuses one with the sum, and which one is its choice: to move code about
// can change last bits of results (measured: forward_block's loop as a function of its own does).
//
// The work is shared by as many workers as there are threads, in a fixed way: sequences or, where those are too few,
// spans of tiles in a pipeline (`Pipeline`). Sums over workers are taken in their order: results are a function of the
// number of threads only.
//
// Indices: b sequence, t token, d channel, n state, k block of channels, v vector of states of a block; within a tile
// q sequence, r row (all its tokens, one sequence after the other).

#include "simd.h"
#include "structures.h"

#include <tuple>

extern "C" {

struct ScanArguments {
    Int sequences, length, channels, states, threads;
    Int width;                    // W
    Rows u, delta, z, B, C, out;
    const float *A, *D, *bias;    // (channel, state), (channel), (channel)
    const float* initial_state;   // (sequence, channel, state) or null
    float* last_state;            // like initial_state, or null
    float* tile_states;           // before each tile: tile_states_size() values, or null
    Rows grad_out, du, ddelta, dz, dB, dC;  // in the backward pass, `out` is optional: the output once more
    const float* grad_last_state;   // like initial_state, or null
    float* dinitial_state;          // like initial_state, or null
    double *dA, *dD, *dbias;        // (worker, channel, state), (worker, channel), (worker, channel): zeros at first
};

}

namespace {

constexpr Int TILE_TOKENS = 16;
constexpr Int SPAN_TILES = 32;   // tiles that a worker of a pipeline does at a time
constexpr Int FLUSH_TILES = 32;  // float32 sums over tokens go into float64 ones every so many tiles
constexpr float LN2 = 0.6931471805599453f;

// --- moving lanes ------------------------------------------------------------------------------------------------

// Lanes i of a and b, one after the other.
template <Int... i>
INLINE Vector pick(Vector a, Vector b, std::integer_sequence<Int, i...>) {
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

// For `sum_lanes`: values 0 and 2 (odd: 1 and 3) of each quarter of a, then b, within quarters of four values ...
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

// Of `count` vectors whose lanes are sums of `reach` values each, one vector of sums of `reach * count` values.
template <Int count, Int reach>
INLINE Vector sum_lanes(const Vector* v) {
    if constexpr (count == 1) {
        return v[0];
    } else {
        const Vector a = sum_lanes<count / 2, reach>(v), b = sum_lanes<count / 2, reach>(v + count / 2);
        if constexpr (reach * count <= 4)
            return pick(a, b, within<0>(Lanes{})) + pick(a, b, within<1>(Lanes{}));
        else
            return pick(a, b, quarters<0>(Lanes{})) + pick(a, b, quarters<1>(Lanes{}));
    }
}

// The lane in which `sum_lanes` of W vectors leaves their state n.
template <Int W>
constexpr Int lane_of_state(Int n) {
    const Int G = LANES / W, v = n / G, g = n % G;
    return W >= 4 ? (v / 4 * G + g) * 4 + v % 4 : W == 2 ? g / 2 * 4 + v * 2 + g % 2 : n;
}
template <Int W, Int... n>
INLINE Vector in_order_of_states(Vector v, std::integer_sequence<Int, n...>) {
    return pick(v, v, std::integer_sequence<Int, lane_of_state<W>(n)...>{});
}

// Values of W channels, the same for every state of a vector.
template <Int W>
INLINE Vector for_all_states(const float* p) {
    Vector v = load(p);
    return W == LANES ? v : pick(v, v, lanes_of<1, 0, W>(Lanes{}));
}

// Values of LANES / W states, the same for every channel of a vector.
template <Int W>
INLINE Vector for_all_channels(const float* p) {
    if (W == LANES) return all(*p);
    Vector v = load(p);
    return pick(v, v, lanes_of<W, 0, LANES>(Lanes{}));
}

// Sums over the states of a vector, in its first W lanes.
template <Int W, Int half = LANES / 2>
INLINE Vector sum_states(Vector v) {
    if constexpr (W > half)
        return v;
    else
        return sum_states<W, half / 2>(v + pick(v, v, lanes_of<1, half, half>(Lanes{})));
}

// --- functions ---------------------------------------------------------------------------------------------------

// log(1 + w) for w in [0, 1], relative error 1e-7: 2 artanh(v) with v = w / (2 + w), odd in v.
INLINE Vector log1p(Vector w) {
    const Vector v = w / (2.0f + w), z = v * v;
    Vector p = 0.2819153792f * z + 0.2795766787f;
    p = p * z + 0.4002511418f;
    p = p * z + 0.6666631015f;
    return v * (p * z + 2.0f);
}

// w = exp(-|x|)
INLINE Vector softplus(Vector x, Vector w) { return (x < 0.0f ? all(0.0f) : x) + log1p(w); }

// --- how the work is cut -----------------------------------------------------------------------------------------

struct Partition {
    Int workers, channel_blocks, sequences_per_tile, tiles_per_sequence, padded_states;
    Int vectors_per_block;  // of one block of channels and all states
    Int tiles_per_span, spans_per_sequence;
    bool pipelined;  // all workers go through all sequences, in spans, else they have sequences of their own

    explicit Partition(const ScanArguments& scan) {
        channel_blocks = (scan.channels + scan.width - 1) / scan.width;
        sequences_per_tile = scan.length <= TILE_TOKENS ? TILE_TOKENS / scan.length : 1;
        tiles_per_sequence = (scan.length + TILE_TOKENS - 1) / TILE_TOKENS;
        padded_states = (scan.states + LANES - 1) / LANES * LANES;
        vectors_per_block = padded_states * scan.width / LANES;
        pipelined = scan.sequences < scan.threads && tiles_per_sequence > 1;
        tiles_per_span = pipelined ? SPAN_TILES : 1;
        spans_per_sequence = (tiles_per_sequence - 1) / tiles_per_span + 1;
        workers = std::min(scan.threads, pipelined ? std::min(spans_per_sequence, channel_blocks) : scan.sequences);
    }
};

// What the workers of a pipeline hand on: a worker begins a block of channels when the worker before it has finished
// that block in the span before, and has left its states here. If each had some of the channels instead, cores would
// read and write neighbouring cache lines at the same time and add up each other's sums: measured as fast at best, and
// up to a fifth slower in stretches.
struct Pipeline {
    struct alignas(128) Progress {  // of one worker: the number of its last span x blocks + blocks of that one
        std::atomic<Int> finished_blocks{0};
    };
    Scratch scratch;
    float *state, *grad_state;  // of all sequences
    std::vector<Progress> progress;

    Pipeline(const ScanArguments& scan, const Partition& partition) : progress(partition.workers) {
        const Int vectors = scan.sequences * partition.channel_blocks * partition.vectors_per_block;
        const Int size = partition.pipelined ? vectors * LANES : 0;
        state = scratch.take(size), grad_state = scratch.take(size);
    }
};

enum class Order { FORWARD, BACKWARD };  // of time

struct Tile {
    Int first_sequence, sequences, first_token, tokens;
    Int rows() const { return sequences * tokens; }
};

// Rows of B or C in a tile: as they lie in the tensor, or a copy padded to whole vectors.
struct StateRows {
    const float* data;
    Int stride;
    const float* row(Int r) const { return data + r * stride; }
};

// One worker's share of a scan, with W channels to a vector.
template <Int W>
struct ScanWorker {
    static constexpr Int G = LANES / W;
    static constexpr Int TOGETHER = W < 4 ? W : 4;  // vectors of states in registers
    static constexpr Int FLAT = TILE_TOKENS * W < LANES ? LANES : TILE_TOKENS * W;

    const ScanArguments& scan;
    const Partition partition;
    Pipeline& pipeline;
    const Int index;
    Int first_sequence, end_sequence, tiles_since_flush = 0;
    Scratch scratch;
    // of a tile: (row, channel)
    alignas(BYTES) float u_tile[FLAT], z_tile[FLAT], step_tile[FLAT + LANES], input_tile[FLAT + LANES], gate_tile[FLAT];
    alignas(BYTES) float slope_tile[FLAT], grad_y_tile[FLAT + LANES];
    alignas(BYTES) float state_sums[3][W == LANES ? 1 : FLAT];
    // of a tile: (row) of vectors before the sum over their states: y, S, and sum_n g a h A, part of grad s
    Vector y_lanes[TILE_TOKENS], S_lanes[TILE_TOKENS], grad_step_lanes[TILE_TOKENS];
    Vector decays[TILE_TOKENS][TOGETHER], states[2 * TILE_TOKENS][TOGETHER];
    Vector *A_log2e, *state, *tile_start, *grad_state, *dA, *dD, *dbias, *D, *bias, *dB_sums, *dC_sums;
    float *B_padded, *C_padded;  // (row, padded state)
    StateRows B, C;

    ScanWorker(const ScanArguments& scan, Pipeline& pipeline, Int index)
        : scan(scan), partition(scan), pipeline(pipeline), index(index) {
        std::tie(first_sequence, end_sequence) =
            partition.pipelined ? std::make_pair(Int(0), scan.sequences)
                                : share(scan.sequences, partition.workers, index);
        const auto vectors = [&](Int count) { return reinterpret_cast<Vector*>(scratch.take(count * LANES)); };
        const Int blocks = partition.channel_blocks, all = blocks * partition.vectors_per_block;
        const Int sums = partition.tiles_per_span * TILE_TOKENS * partition.vectors_per_block / TOGETHER;
        A_log2e = vectors(all), dA = vectors(all);
        if (partition.pipelined) {
            state = reinterpret_cast<Vector*>(pipeline.state);
            grad_state = reinterpret_cast<Vector*>(pipeline.grad_state);
        } else {
            state = vectors(all * partition.sequences_per_tile);
            grad_state = vectors(all * partition.sequences_per_tile);
        }
        dD = vectors(blocks), dbias = vectors(blocks), D = vectors(blocks), bias = vectors(blocks);
        dB_sums = vectors(sums), dC_sums = vectors(sums);
        B_padded = scratch.take(TILE_TOKENS * partition.padded_states + LANES);
        C_padded = scratch.take(TILE_TOKENS * partition.padded_states + LANES);
        for (Int k = 0; k < blocks; k++)
            for (Int i = 0; i < channels_in(k); i++) {
                const Int d = k * W + i;
                for (Int j = 0; j < G; j++)
                    lane_at(D, k, j * W + i) = scan.D[d], lane_at(bias, k, j * W + i) = scan.bias[d];
                for (Int n = 0; n < scan.states; n++)
                    lane_at(A_log2e, k * partition.vectors_per_block + n / G, n % G * W + i) =
                        scan.A[d * scan.states + n] * LOG2E;
            }
    }

    static float& lane_at(Vector* v, Int index, Int lane) { return reinterpret_cast<float*>(v + index)[lane]; }

    Int channels_in(Int k) const { return std::min(W, scan.channels - k * W); }

    // States of a sequence, (channel, state), to or from vectors.
    void load_states(Vector* to, const float* from, Int b) {
        for (Int k = 0; k < partition.channel_blocks; k++)
            for (Int v = 0; v < partition.vectors_per_block; v++) {
                to[k * partition.vectors_per_block + v] = Vector{};
                if (!from) continue;
                for (Int lane = 0; lane < LANES; lane++) {
                    const Int d = k * W + lane % W, n = v * G + lane / W;
                    if (d < scan.channels && n < scan.states)
                        lane_at(to, k * partition.vectors_per_block + v, lane) =
                            from[(b * scan.channels + d) * scan.states + n];
                }
            }
    }
    void store_states(float* to, Vector* from, Int b) {
        for (Int k = 0; k < partition.channel_blocks; k++)
            for (Int d = k * W; d < std::min(k * W + W, scan.channels); d++)
                for (Int n = 0; n < scan.states; n++)
                    to[(b * scan.channels + d) * scan.states + n] =
                        lane_at(from, k * partition.vectors_per_block + n / G, n % G * W + d % W);
    }

    Tile next_tile;  // what this worker does next: a tile,
    Int next_block;  // and a block of its channels

    Tile tile_at(Int b, Int i) const {
        return {b, std::min(partition.sequences_per_tile, end_sequence - b), i * TILE_TOKENS,
                std::min(TILE_TOKENS, scan.length - i * TILE_TOKENS)};
    }

    // Calls work(tile, block of channels, place in its span) for all tiles of this worker in an order of time,
    // begin(tile) before the first one of a sequence and end(tile) behind the last.
    template <class Begin, class Work, class End>
    void for_each_tile(Order order, const Begin& begin, const Work& work, const End& end) {
        const Int before = (index + partition.workers - 1) % partition.workers;
        const auto& others = pipeline.progress[before].finished_blocks;
        auto& own = pipeline.progress[index].finished_blocks;
        const Int blocks = partition.channel_blocks, tiles = partition.tiles_per_sequence;
        const Int stride = partition.pipelined ? partition.workers * partition.tiles_per_span : 1;
        for (Int b = first_sequence; b < end_sequence; b += partition.sequences_per_tile)
            for (Int span = 0; span < partition.spans_per_sequence; span++) {
                const Int number = b * partition.spans_per_sequence + span;
                if (partition.pipelined && number % partition.workers != index) continue;
                const auto tile = [&](Int i) { return tile_at(b, order == Order::FORWARD ? i : tiles - 1 - i); };
                const Int from = span * partition.tiles_per_span, to = std::min(from + partition.tiles_per_span, tiles);
                const Tile later = tiles > 1 ? tile(from + stride) : tile_at(b + partition.sequences_per_tile, 0);
                if (span == 0) begin(tile(0));
                for (Int k = 0; k < blocks; k++) {
                    while (partition.pipelined && others.load() < (number - 1) * blocks + k + 1)
                        std::this_thread::yield();
                    for (Int i = from; i < to; i++) {
                        const bool last = i + 1 == to;
                        next_block = (k + last) % blocks;
                        next_tile = !last ? tile(i + 1) : next_block > 0 ? tile(from) : later;
                        work(tile(i), k, i - from);
                    }
                    own.store(number * blocks + k + 1);
                }
                if (span == partition.spans_per_sequence - 1) end(tile(to - 1));
            }
    }

    // Rows of the next tile are fetched into a cache while this one is worked on: every group of states fetches from
    // some of the tensors, a row at every step. All at once, they would be more than the processor has buffers for.
    template <int LOCALITY>  // 3: first level, 2: second
    struct Prefetch {
        const Tile& tile;
        const Int q, groups;
        Int until_next;  // tensors until the next one that is this group's
        const float* row[9];
        Int stride[9], count = 0;

        INLINE void add(const Rows& rows, Int column) {
            if (until_next-- > 0) return;
            until_next = groups - 1;
            row[count] = rows.row(tile.first_sequence + q, tile.first_token) + column;
            stride[count++] = rows.token;
        }
        INLINE void fetch() {
            for (Int i = 0; i < count; i++) __builtin_prefetch(row[i], 0, LOCALITY), row[i] += stride[i];
        }
    };

    // Rows of W channels of a tile: as they lie in a tensor where each is one whole vector, else flat in `buffer`.
    struct TileRows {
        float *data, *buffer;
        Int stride;
        bool flat() const { return data == buffer; }
        INLINE float* at(Int i) const { return data + (W == LANES ? i / LANES * stride : i); }
        INLINE Vector operator[](Int i) const { return load(at(i)); }
    };
    TileRows rows_of(float* buffer, const Rows& rows, const Tile& tile, Int k) {
        const bool whole = W == LANES && tile.sequences == 1 && (k + 1) * W <= scan.channels;
        if (!whole) return {buffer, buffer, W};
        return {rows.row(tile.first_sequence, tile.first_token) + k * W, buffer, rows.token};
    }
    TileRows loaded(float* buffer, const Rows& rows, const Tile& tile, Int k) {
        const TileRows found = rows_of(buffer, rows, tile, k);
        if (found.flat()) load_tile(buffer, rows, tile, k);
        return found;
    }
    void stored(const TileRows& from, const Rows& rows, const Tile& tile, Int k) {
        if (from.flat()) store_tile(rows, from.buffer, tile, k);
    }

    // to(row, channel) = rows of W channels of block k; zeros where there is none.
    void load_tile(float* to, const Rows& from, const Tile& tile, Int k) {
        const Int real = channels_in(k);
        for (Int q = 0; q < tile.sequences; q++) {
            const float* row = from.row(tile.first_sequence + q, tile.first_token) + k * W;
            for (Int t = 0; t < tile.tokens; t++, row += from.token, to += W) {
                if (real == W) {
                    std::memcpy(to, row, W * sizeof(float));
                } else {
                    std::memset(to, 0, W * sizeof(float));
                    copy(to, row, real);
                }
            }
        }
        for (Int i = tile.rows() * W; i % LANES; i++) *to++ = 0;
    }
    void store_tile(const Rows& to, const float* from, const Tile& tile, Int k) {
        const Int real = channels_in(k);
        for (Int q = 0; q < tile.sequences; q++) {
            float* row = to.row(tile.first_sequence + q, tile.first_token) + k * W;
            for (Int t = 0; t < tile.tokens; t++, row += to.token, from += W) {
                if (real == W)
                    std::memcpy(row, from, W * sizeof(float));
                else
                    copy(row, from, real);
            }
        }
    }
    StateRows state_rows(float* padded, const Rows& from, const Tile& tile) {
        if (W == LANES && tile.sequences == 1 && scan.states == partition.padded_states)
            return {from.row(tile.first_sequence, tile.first_token), from.token};
        const StateRows found{padded, partition.padded_states};
        for (Int q = 0; q < tile.sequences; q++)
            for (Int t = 0; t < tile.tokens; t++, padded += partition.padded_states)
                copy(padded, from.row(tile.first_sequence + q, tile.first_token + t), scan.states);
        return found;
    }

    // Sums over the states of the lanes of each row, flat: in `to`, or as they are where a lane is a channel.
    float* summed_over_states(float* to, Vector* from, Int rows) {
        if (W == LANES) return reinterpret_cast<float*>(from);
        for (Int r = 0; r < rows; r++) {
            const Vector v = sum_states<W>(from[r]);
            std::memcpy(to + r * W, &v, W * sizeof(float));
        }
        for (Int i = rows * W; i % LANES; i++) to[i] = 0;
        return to;
    }

    Vector* tile_states(const Tile& tile) {
        const Int number = tile.first_sequence * partition.tiles_per_sequence + tile.first_token / TILE_TOKENS;
        return reinterpret_cast<Vector*>(scan.tile_states) +
               number * partition.channel_blocks * partition.vectors_per_block;
    }

    Vector* state_of(Vector* states, const Tile& tile, Int q) {
        const Int sequence = partition.pipelined ? tile.first_sequence : q;
        return states + sequence * partition.channel_blocks * partition.vectors_per_block;
    }

    void load_states(Vector* states, const float* from, const Tile& tile) {
        for (Int q = 0; q < tile.sequences; q++)
            load_states(state_of(states, tile, q), from, tile.first_sequence + q);
    }
    void store_states(float* to, Vector* states, const Tile& tile) {
        if (!to) return;
        for (Int q = 0; q < tile.sequences; q++)
            store_states(to, state_of(states, tile, q), tile.first_sequence + q);
    }

    void forward() {
        for_each_tile(
            Order::FORWARD, [&](const Tile& tile) { load_states(state, scan.initial_state, tile); },
            [&](const Tile& tile, Int k, Int) { forward_block(tile, k); },
            [&](const Tile& tile) { store_states(scan.last_state, state, tile); });
    }

    void forward_block(const Tile& tile, Int k) {
        const Int rows = tile.rows(), flat = rows * W;
        const TileRows delta = loaded(step_tile, scan.delta, tile, k), u = loaded(u_tile, scan.u, tile, k);
        const TileRows z = loaded(z_tile, scan.z, tile, k), out = rows_of(u_tile, scan.out, tile, k);
        B = state_rows(B_padded, scan.B, tile);
        C = state_rows(C_padded, scan.C, tile);
        for (Int i = 0; i < flat; i += LANES) {
            const Vector x = delta[i] + bias[k], z_i = z[i], step = softplus(x, exp_of_minus_abs(x));
            store(step_tile + i, step);
            store(input_tile + i, step * u[i]);
            store(gate_tile + i, z_i * sigmoid(z_i));
        }
        for (Int r = 0; r < rows; r++) y_lanes[r] = Vector{};
        for (Int v = 0; v < partition.vectors_per_block; v += TOGETHER)
            for (Int q = 0; q < tile.sequences; q++) {
                const Int place = k * partition.vectors_per_block + v;
                Vector* held = state_of(state, tile, q) + place;
                Vector h[TOGETHER], A[TOGETHER];
                Prefetch<3> ahead{next_tile, q, partition.vectors_per_block / TOGETHER, v / TOGETHER};
                for (const Rows* rows : {&scan.delta, &scan.u, &scan.z, &scan.out}) ahead.add(*rows, next_block * W);
                ahead.add(scan.B, 0), ahead.add(scan.C, 0);
                for (Int n = 0; n < TOGETHER; n++) {
                    h[n] = held[n], A[n] = A_log2e[place + n];
                    if (!scan.tile_states) continue;
                    store(reinterpret_cast<float*>(tile_states(tile) + place + n), h[n]);
                    __builtin_prefetch(tile_states(next_tile) + next_block * partition.vectors_per_block + v + n, 1);
                }
                for (Int r = q * tile.tokens; r < (q + 1) * tile.tokens; r++) {
                    const Vector step = for_all_states<W>(step_tile + r * W);
                    const Vector input = for_all_states<W>(input_tile + r * W);
                    const float *B_r = B.row(r) + v * G, *C_r = C.row(r) + v * G;
                    Vector y = y_lanes[r];
                    ahead.fetch();
#pragma GCC unroll 8
                    for (Int n = 0; n < TOGETHER; n++) {
                        h[n] = exp2(step * A[n]) * h[n] + input * for_all_channels<W>(B_r + n * G);
                        y += h[n] * for_all_channels<W>(C_r + n * G);
                    }
                    y_lanes[r] = y;
                }
                for (Int n = 0; n < TOGETHER; n++) held[n] = h[n];
            }
        const float* y = summed_over_states(state_sums[0], y_lanes, rows);
        for (Int i = 0; i < flat; i += LANES)
            store(out.at(i), (load(y + i) + D[k] * u[i]) * load(gate_tile + i));
        stored(out, scan.out, tile, k);
    }

    void backward() {
        for_each_tile(
            Order::BACKWARD, [&](const Tile& tile) { load_states(grad_state, scan.grad_last_state, tile); },
            [&](const Tile& tile, Int k, Int i) {
                const Int sums = i * TILE_TOKENS * partition.vectors_per_block / TOGETHER;
                backward_block(tile, k, dB_sums + sums, dC_sums + sums);
            },
            [&](const Tile& tile) { store_states(scan.dinitial_state, grad_state, tile); });
        flush();
    }

    void backward_block(const Tile& tile, Int k, Vector* tile_dB, Vector* tile_dC) {
        const Int rows = tile.rows(), flat = rows * W;
        const TileRows delta = loaded(step_tile, scan.delta, tile, k), u = loaded(u_tile, scan.u, tile, k);
        const TileRows z = loaded(z_tile, scan.z, tile, k), grad_out = loaded(gate_tile, scan.grad_out, tile, k);
        B = state_rows(B_padded, scan.B, tile);
        C = state_rows(C_padded, scan.C, tile);
        tile_start = scan.tile_states ? tile_states(tile) : state;
        if (!scan.tile_states && k == 0) load_states(state, scan.initial_state, tile);
        for (Int i = 0; i < flat; i += LANES) {
            const Vector x = delta[i] + bias[k], w = exp_of_minus_abs(x), step = softplus(x, w);
            const Vector z_i = z[i], sigma = sigmoid(z_i), g = grad_out[i] * sigma;
            store(slope_tile + i, (x >= 0.0f ? all(1.0f) : w) / (1.0f + w));
            store(step_tile + i, step);
            store(input_tile + i, step * u[i]);
            store(z_tile + i, sigma * z_i);
            store(grad_y_tile + i, g * z_i);
            store(gate_tile + i, g * (1.0f + z_i * (1.0f - sigma)));  // times y: the gradient of z
        }
        for (Int r = 0; r < rows; r++) y_lanes[r] = S_lanes[r] = grad_step_lanes[r] = Vector{};
        for (Int v = 0; v < partition.vectors_per_block; v += TOGETHER)
            for (Int q = 0; q < tile.sequences; q++) backward_states(tile, k, v, q, tile_dB, tile_dC);
        float* y = summed_over_states(state_sums[0], y_lanes, rows);
        float* S = summed_over_states(state_sums[1], S_lanes, rows);
        float* grad_step = summed_over_states(state_sums[2], grad_step_lanes, rows);
        const TileRows dz = rows_of(gate_tile, scan.dz, tile, k), du = rows_of(S, scan.du, tile, k);
        const TileRows ddelta = rows_of(grad_step, scan.ddelta, tile, k);
        const TileRows out = scan.out.data ? rows_of(y, scan.out, tile, k) : TileRows{y, y, W};
        for (Int i = 0; i < flat; i += LANES) {
            const Vector u_i = u[i], e = load(grad_y_tile + i), S_i = load(S + i);
            const Vector grad = (u_i * S_i + LN2 * load(grad_step + i)) * load(slope_tile + i);
            const Vector y_i = load(y + i) + D[k] * u_i;
            store(dz.at(i), load(gate_tile + i) * y_i);
            store(out.at(i), y_i * load(z_tile + i));
            store(du.at(i), load(step_tile + i) * S_i + e * D[k]);
            store(ddelta.at(i), grad);
            dD[k] += e * u_i;
            dbias[k] += grad;
        }
        if (scan.out.data) stored(out, scan.out, tile, k);
        stored(dz, scan.dz, tile, k), stored(du, scan.du, tile, k), stored(ddelta, scan.ddelta, tile, k);
        if (k + 1 == partition.channel_blocks) {
            sum_over_channels(scan.dB, tile_dB, tile);
            sum_over_channels(scan.dC, tile_dC, tile);
            if (++tiles_since_flush % FLUSH_TILES == 0) flush();
        }
    }

    // TOGETHER vectors of states of sequence q of a tile, through its tokens and back.
    INLINE void backward_states(const Tile& tile, Int k, Int v, Int q, Vector* tile_dB, Vector* tile_dC) {
        const Int first = q * tile.tokens, end = first + tile.tokens;
        const Int place = k * partition.vectors_per_block + v;
        Vector (*before)[TOGETHER] = states + q;  // before[r] and before[r + 1]: states before and after row r
        Vector h[TOGETHER], A[TOGETHER], sums[TOGETHER];
        // The second level: the states within the tile fill the first.
        Prefetch<2> ahead{next_tile, q, partition.vectors_per_block / TOGETHER, v / TOGETHER};
        for (const Rows* rows :
             {&scan.delta, &scan.u, &scan.z, &scan.grad_out, &scan.du, &scan.ddelta, &scan.dz})
            ahead.add(*rows, next_block * W);
        ahead.add(scan.B, 0), ahead.add(scan.C, 0);
        for (Int n = 0; n < TOGETHER; n++) {
            A[n] = A_log2e[place + n];
            if (scan.tile_states)
                __builtin_prefetch(tile_states(next_tile) + next_block * partition.vectors_per_block + v + n, 0, 2);
            const Vector* from = tile_start + q * partition.channel_blocks * partition.vectors_per_block + place + n;
            before[first][n] = h[n] = load(reinterpret_cast<const float*>(from));
        }
        for (Int r = first; r < end; r++) {
            const Vector step = for_all_states<W>(step_tile + r * W), input = for_all_states<W>(input_tile + r * W);
            const float *B_r = B.row(r) + v * G, *C_r = C.row(r) + v * G;
            Vector y = y_lanes[r];
            ahead.fetch();
#pragma GCC unroll 8
            for (Int n = 0; n < TOGETHER; n++) {
                const Vector decay = exp2(step * A[n]);
                h[n] = decay * h[n] + input * for_all_channels<W>(B_r + n * G);
                y += h[n] * for_all_channels<W>(C_r + n * G);
                decays[r][n] = decay;
                before[r + 1][n] = h[n];
            }
            y_lanes[r] = y;
        }
        Vector* held = state_of(grad_state, tile, q) + place;
        Vector ag[TOGETHER];  // a_(t+1) g_(t+1)
        for (Int n = 0; n < TOGETHER; n++) ag[n] = held[n], sums[n] = dA[place + n];
        for (Int r = end - 1; r >= first; r--) {
            const Vector step = for_all_states<W>(step_tile + r * W), input = for_all_states<W>(input_tile + r * W);
            const Vector e = for_all_states<W>(grad_y_tile + r * W);
            const float *B_r = B.row(r) + v * G, *C_r = C.row(r) + v * G;
            Vector S = S_lanes[r], grad_step = grad_step_lanes[r], dB[TOGETHER], dC[TOGETHER];
#pragma GCC unroll 8
            for (Int n = 0; n < TOGETHER; n++) {
                const Vector g = ag[n] + e * for_all_channels<W>(C_r + n * G);
                dC[n] = e * before[r + 1][n];
                dB[n] = input * g;
                S += g * for_all_channels<W>(B_r + n * G);
                ag[n] = decays[r][n] * g;
                const Vector agh = ag[n] * before[r][n];
                sums[n] += step * agh;
                grad_step += agh * A[n];
            }
            S_lanes[r] = S;
            grad_step_lanes[r] = grad_step;
            // Sums over channels, as far as these vectors go; the rest after all blocks
            const Int to = (r * partition.vectors_per_block + v) / TOGETHER;
            const Vector dB_sum = sum_lanes<TOGETHER, 1>(dB), dC_sum = sum_lanes<TOGETHER, 1>(dC);
            tile_dB[to] = k == 0 ? dB_sum : tile_dB[to] + dB_sum;
            tile_dC[to] = k == 0 ? dC_sum : tile_dC[to] + dC_sum;
        }
        for (Int n = 0; n < TOGETHER; n++) held[n] = ag[n], dA[place + n] = sums[n];
    }

    // (sequence, token, state) = sums over the lanes that are channels
    void sum_over_channels(const Rows& to, const Vector* sums, const Tile& tile) {
        float values[LANES];
        for (Int q = 0; q < tile.sequences; q++)
            for (Int t = 0; t < tile.tokens; t++) {
                const Vector* from = sums + (q * tile.tokens + t) * partition.vectors_per_block / TOGETHER;
                float* row = to.row(tile.first_sequence + q, tile.first_token + t);
                for (Int n = 0; n < scan.states; n += LANES, from += W / TOGETHER) {
                    const Vector sum = in_order_of_states<W>(sum_lanes<W / TOGETHER, TOGETHER>(from), Lanes{});
                    if (scan.states - n >= LANES) {
                        store(row + n, sum);
                    } else {
                        store(values, sum);
                        copy(row + n, values, scan.states - n);
                    }
                }
            }
    }

    // Sums of the last tiles into those in float64.
    void flush() {
        for (Int k = 0; k < partition.channel_blocks; k++)
            for (Int i = 0; i < channels_in(k); i++) {
                const Int d = index * scan.channels + k * W + i;
                for (Int j = 0; j < G; j++)
                    scan.dD[d] += lane_at(dD, k, j * W + i), scan.dbias[d] += lane_at(dbias, k, j * W + i);
                for (Int n = 0; n < scan.states; n++)
                    scan.dA[d * scan.states + n] +=
                        lane_at(dA, k * partition.vectors_per_block + n / G, n % G * W + i);
            }
        for (Int k = 0; k < partition.channel_blocks; k++) {
            dD[k] = dbias[k] = Vector{};
            for (Int v = 0; v < partition.vectors_per_block; v++) dA[k * partition.vectors_per_block + v] = Vector{};
        }
    }
};

// Calls work(worker) for all workers of a scan, in threads.
template <Int W, class Work>
void for_each_worker(const ScanArguments& scan, const Work& work) {
    const Partition partition(scan);
    Pipeline pipeline(scan, partition);
    in_threads(partition.workers, [&](Int i) {
        ScanWorker<W> worker(scan, pipeline, i);
        work(worker);
    });
}

// The same with as many channels to a vector as the caller asks for.
template <class Work>
void run(const ScanArguments& scan, const Work& work) {
    switch (scan.width) {
        case 1: return for_each_worker<1>(scan, work);
        case 2: return for_each_worker<2>(scan, work);
        case 4: return for_each_worker<4>(scan, work);
        case 8: return for_each_worker<LANES < 8 ? 4 : 8>(scan, work);
        default: return for_each_worker<LANES>(scan, work);
    }
}

}  // namespace

extern "C" {

const char* layout() {
    static const std::string text =
        DESCRIBE(Rows, FIELD(data), FIELD(sequence), FIELD(token)) +
        DESCRIBE(ScanArguments, FIELD(sequences), FIELD(length), FIELD(channels), FIELD(states), FIELD(threads),
                 FIELD(width), FIELD(u), FIELD(delta), FIELD(z), FIELD(B), FIELD(C), FIELD(out), FIELD(A), FIELD(D),
                 FIELD(bias), FIELD(initial_state), FIELD(last_state), FIELD(tile_states), FIELD(grad_out), FIELD(du),
                 FIELD(ddelta), FIELD(dz), FIELD(dB), FIELD(dC), FIELD(grad_last_state), FIELD(dinitial_state),
                 FIELD(dA), FIELD(dD), FIELD(dbias));
    return text.c_str();
}

int64_t lanes() { return LANES; }

// Values of `tile_states`: the states before each tile of a sequence; none where one tile is all.
int64_t tile_states_size(const ScanArguments* scan) {
    const Partition partition(*scan);
    if (scan->length <= TILE_TOKENS) return 0;
    const Int tiles = scan->sequences * partition.tiles_per_sequence;
    return tiles * partition.channel_blocks * partition.vectors_per_block * LANES;
}

void scan_forward(const ScanArguments* scan) {
    run(*scan, [](auto& worker) { worker.forward(); });
}
void scan_backward(const ScanArguments* scan) {
    run(*scan, [](auto& worker) { worker.backward(); });
}

// For tests and the benchmark: 2**x - minus of `count` values (a multiple of LANES) of each thread, in place, `times`
// times.
void exponentials(float* values, int64_t count, int64_t times, float minus, int64_t threads) {
    in_threads(threads, [&](Int thread) {
        float* own = values + thread * count;
        for (Int turn = 0; turn < times; turn++) {
            for (Int i = 0; i < count; i += LANES) store(own + i, exp2(load(own + i)) - minus);
            __asm__ volatile("" ::: "memory");  // turns stay apart: two in one loop would wait for each other
        }
    });
}
void logarithms(float* values, int64_t count) {
    for (Int i = 0; i < count; i += LANES) store(values + i, log1p(load(values + i)));
}

}
