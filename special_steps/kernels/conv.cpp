// Causal convolution and SiLU on the CPU, forward and backward; compiled and called by conv.py.
//
// Channel by channel, with K taps: v_t = bias + sum_k w_k x_(t - K + 1 + k), out = v sigmoid(v).
//
// Tokens of a tile are one flat array, so that a shift by one token is a shift by the number of channels; weights are
// repeated for every token of a tile. A tile is some tokens of one sequence or several short sequences with what they
// need around them: between them are values that nobody wants, but the loops stay long.
//
// Workers have sequences or, where those are too few, spans of tokens of all sequences. Sums over workers are taken in
// their order: results are a function of the number of threads only.

#include "simd.h"
#include "structures.h"

#include <tuple>

extern "C" {

struct ConvArguments {
    Int sequences, length, channels, taps, threads;
    Rows x, out, grad_out, dx;
    const float *weight, *bias;  // (tap, channel), (channel)
    const float* before;         // the tokens before the first: (sequence, taps - 1, channel), or null: zeros
    float* dbefore;              // like before, or null
    double *dweight, *dbias;     // (worker, tap, channel), (worker, channel): zeros at first
};

}

namespace {

constexpr Int TILE_VALUES = 1024;
constexpr Int FLUSH_TILES = 32;  // float32 sums over tokens go into float64 ones every so many tiles

struct ConvWorker {
    const ConvArguments& conv;
    const Int index, history, tile_tokens;  // history: tokens before one that it sees
    bool by_tokens;                         // workers have tokens, else sequences
    Int first_sequence, end_sequence, first_token, end_token, tile_size;
    Scratch scratch;
    float *weight, *bias, *x, *v, *grad_v, *dx, *dweight, *dbias;

    static Int workers(const ConvArguments& conv) {
        return std::min(conv.threads, conv.sequences < conv.threads ? conv.length : conv.sequences);
    }

    ConvWorker(const ConvArguments& conv, Int index)
        : conv(conv), index(index), history(conv.taps - 1),
          tile_tokens(std::max<Int>(1, TILE_VALUES / conv.channels)), by_tokens(conv.sequences < conv.threads) {
        const auto own = [&](Int count, bool shared) {
            return shared ? share(count, workers(conv), index) : std::make_pair(Int(0), count);
        };
        std::tie(first_sequence, end_sequence) = own(conv.sequences, !by_tokens);
        std::tie(first_token, end_token) = own(conv.length, by_tokens);
        tile_size = (tile_tokens + 2 * history + history) * conv.channels;
        bias = scratch.take(stride());
        repeat(bias, conv.bias);
        weight = scratch.take(conv.taps * stride());
        for (Int k = 0; k < conv.taps; k++) repeat(weight + k * stride(), conv.weight + k * conv.channels);
        x = scratch.take(tile_size + history * conv.channels), v = scratch.take(tile_size);
        grad_v = scratch.take(tile_size + history * conv.channels), dx = scratch.take(tile_size);
        dweight = scratch.take(conv.taps * stride()), dbias = scratch.take(stride());
    }

    Int stride() const { return (tile_size + LANES - 1) / LANES * LANES; }  // between taps

    void repeat(float* to, const float* channels) {
        for (Int i = 0; i < tile_size; i++) to[i] = channels[i % conv.channels];
    }

    // Tokens first .. first + count of a sequence; before the first token come those of `before`, else zeros.
    void load_tokens(float* to, const Rows& from, const float* before, Int sequence, Int first, Int count) {
        for (Int t = first; t < first + count; t++, to += conv.channels) {
            const float* row = nullptr;
            if (t >= 0 && t < conv.length)
                row = from.row(sequence, t);
            else if (before && t < 0 && t >= -history)
                row = before + (sequence * history + t + history) * conv.channels;
            if (row)
                copy(to, row, conv.channels);
            else
                std::memset(to, 0, conv.channels * sizeof(float));
        }
    }

    void convolve(Int count) {
        for (Int m = 0; m < count; m += LANES) {
            Vector sum = load(bias + m);
            for (Int k = 0; k < conv.taps; k++)
                sum += load(weight + k * stride() + m) * load(x + k * conv.channels + m);
            store(v + m, sum);
        }
    }

    // A tile of some sequences, each `period` tokens behind the one before.
    struct Tile {
        Int first_sequence, sequences, first_token, tokens, period;
    };

    // Calls work(tile) for all tiles of this worker, from token `begin` on.
    template <class Work>
    void for_each_tile(Int begin, const Work& work) {
        const Int period = std::min(tile_tokens, end_token - begin) + history;
        const bool several = end_token - begin < tile_tokens && !by_tokens;
        const Int together = several ? std::max<Int>(1, tile_tokens / period) : 1;
        for (Int b = first_sequence; b < end_sequence; b += together)
            for (Int t = begin; t < end_token; t += tile_tokens)
                work(Tile{b, std::min(together, end_sequence - b), t, std::min(tile_tokens, end_token - t), period});
    }

    void forward() {
        for_each_tile(first_token, [&](const Tile& tile) { forward_tile(tile); });
    }

    void forward_tile(const Tile& tile) {
        const Int distance = tile.period * conv.channels;
        for (Int q = 0; q < tile.sequences; q++)
            load_tokens(x + q * distance, conv.x, conv.before, tile.first_sequence + q, tile.first_token - history,
                        tile.tokens + history);
        const Int size = (tile.sequences - 1) * distance + tile.tokens * conv.channels;
        convolve(size);
        for (Int m = 0; m < size; m += LANES) store(v + m, load(v + m) * sigmoid(load(v + m)));
        for (Int q = 0; q < tile.sequences; q++)
            for (Int t = 0; t < tile.tokens; t++)
                copy(conv.out.row(tile.first_sequence + q, tile.first_token + t), v + q * distance + t * conv.channels,
                     conv.channels);
    }

    void backward() {
        const Int begin = first_token == 0 && conv.dbefore ? -history : first_token;
        Int tiles_since_flush = 0;
        for_each_tile(begin, [&](const Tile& tile) {
            backward_tile(tile);
            if (++tiles_since_flush % FLUSH_TILES == 0) flush();
        });
        flush();
    }

    // A tile needs the gradients of `history` tokens behind it, which are computed once more: tiles are independent.
    void backward_tile(const Tile& tile) {
        const Int channels = conv.channels, distance = tile.period * channels;
        const Int own = (tile.sequences - 1) * distance + tile.tokens * channels, size = own + history * channels;
        std::fill(grad_v + own, grad_v + size + history * channels + LANES, 0.0f);
        for (Int q = 0; q < tile.sequences; q++) {
            const Int b = tile.first_sequence + q;
            load_tokens(x + q * distance, conv.x, conv.before, b, tile.first_token - history,
                        tile.tokens + 2 * history);
            load_tokens(grad_v + q * distance, conv.grad_out, nullptr, b, tile.first_token, tile.tokens + history);
        }
        convolve(size);
        for (Int m = 0; m < size; m += LANES) {
            const Vector value = load(v + m), sigma = sigmoid(value);
            store(grad_v + m, load(grad_v + m) * sigma * (1.0f + value * (1.0f - sigma)));
        }
        for (Int m = 0; m < own; m += LANES) {
            Vector sum = Vector{};
            for (Int k = 0; k < conv.taps; k++)
                sum += load(weight + k * stride() + m) * load(grad_v + (history - k) * channels + m);
            store(dx + m, sum);
        }
        for (Int q = 0; q < tile.sequences; q++)
            for (Int t = 0; t < tile.tokens; t++) {
                const Int b = tile.first_sequence + q, token = tile.first_token + t;
                float* row = token < 0 ? conv.dbefore + (b * history + token + history) * channels
                                       : conv.dx.row(b, token);
                copy(row, dx + q * distance + t * channels, channels);
            }
        std::fill(grad_v + own, grad_v + own + LANES, 0.0f);  // tokens behind belong to other tiles
        for (Int m = 0; m < own; m += LANES) {
            const Vector grad = load(grad_v + m);
            store(dbias + m, load(dbias + m) + grad);
            for (Int k = 0; k < conv.taps; k++) {
                float* sum = dweight + k * stride() + m;
                store(sum, load(sum) + grad * load(x + k * channels + m));
            }
        }
    }

    // Sums of the last tiles into those in float64.
    void flush() {
        for (Int m = 0; m < tile_size; m++) {
            conv.dbias[index * conv.channels + m % conv.channels] += dbias[m];
            dbias[m] = 0;
            for (Int k = 0; k < conv.taps; k++) {
                float* sum = dweight + k * stride() + m;
                conv.dweight[(index * conv.taps + k) * conv.channels + m % conv.channels] += *sum;
                *sum = 0;
            }
        }
    }
};

}  // namespace

extern "C" {

const char* layout() {
    static const std::string text =
        DESCRIBE(Rows, FIELD(data), FIELD(sequence), FIELD(token)) +
        DESCRIBE(ConvArguments, FIELD(sequences), FIELD(length), FIELD(channels), FIELD(taps), FIELD(threads), FIELD(x),
                 FIELD(out), FIELD(grad_out), FIELD(dx), FIELD(weight), FIELD(bias), FIELD(before), FIELD(dbefore),
                 FIELD(dweight), FIELD(dbias));
    return text.c_str();
}

void conv_forward(const ConvArguments* conv) {
    in_threads(ConvWorker::workers(*conv), [&](Int i) { ConvWorker(*conv, i).forward(); });
}
void conv_backward(const ConvArguments* conv) {
    in_threads(ConvWorker::workers(*conv), [&](Int i) { ConvWorker(*conv, i).backward(); });
}

}
