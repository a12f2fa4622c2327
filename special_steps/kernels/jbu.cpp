// One doubling of the learned joint bilateral upsampling on the CPU; compiled and called by jbu.py.
//
// With keys q and colours c of the fine pixels, projected guidance, the weights of the D x D pixels around pixel p are
//
//   k = softmax_t(q_p q_t temperature + gaussian_t),  k' = k + W2 gelu(W1 [k, c_p] + b1) + b2
//
// of which those beyond the window are added to those that they mirror. What they weigh are values of the small map,
// resized bicubically: a fixed linear map for each parity of y and x. So k' becomes weights r of the NEAR x NEAR cells
// around the pixel's own, and the pixel's values are the sums of r times the cells' values. ("Fine" pixels are those of
// the doubled map, "cells" those of the small one.)
//
// Source: FeatUp (arXiv 2403.10516), whose order (resize first, then weigh) is the same in other brackets.
//
// LANES x 4 pixels at a time go through all of it within the first two levels of the cache. A vector holds pixels of
// the same parity that are neighbours of their kind: lane i is pixel (2 Y + py, 2 (X + i) + px).

#include "simd.h"
#include "structures.h"

#include <cmath>

extern "C" {

struct DoublingArguments {
    Int h, w, channels;     // of the small map; channels: whole vectors
    Int keys, threads;
    Int axes, phrases;      // channels: coordinates along axes, then products with phrases; no phrases: features
    float temperature;      // times log2(e), as gaussian
    const float* guidance;  // (3, 2 h, 2 w)
    const float* source;    // (h, w, channel)
    const float* offset;    // (channel), with phrases: added to both
    const float* gaussian;  // (TAPS)
    const float *key, *key_bias, *key2, *key2_bias;          // (key, 3), (key), (key, key), (key)
    const float *first, *first_bias, *second, *second_bias;  // (TAPS, TAPS + 3), (TAPS), (TAPS, TAPS), (TAPS)
    const float* resizing;  // (parity, NEAR, D): weights of cells for fine pixels along a side
    float* out;             // (2 h, 2 w, channel or phrase)
};

}

namespace {

constexpr Int D = 11, R = D / 2, TAPS = D * D, NEAR = 9, CELLS = NEAR * NEAR;
constexpr Int GROUP = 4 * LANES;             // pixels: four parities
constexpr Int OUTPUTS = 11;                  // of a layer, in registers for ...
constexpr Int VECTORS = LANES > 8 ? 2 : 1;   // ... so many vectors of pixels
constexpr Int TOGETHER = LANES > 8 ? 5 : 2;  // vectors of channels in registers for four pixels

// x Phi(x); erf by Abramowitz and Stegun 7.1.26, error 1.5e-7.
INLINE Vector gelu(Vector x) {
    const Vector size = at_least(x, -x), t = 1.0f / (1.0f + 0.23164189f * size);
    Vector p = 0.530702714f * t - 0.726576013f;
    p = p * t + 0.710706871f;
    p = p * t - 0.142248368f;
    p = p * t + 0.127414796f;
    const Vector tail = p * t * exp2(x * x * (-0.5f * LOG2E)) * x;
    return x > 0.0f ? x - tail : tail;
}

// Weights of a layer in the order of `layer`.
void pack(float* to, const float* weight, Int inputs) {
    for (Int o = 0; o < TAPS; o += OUTPUTS)
        for (Int t = 0; t < inputs; t++)
            for (Int i = 0; i < OUTPUTS; i++) *to++ = weight[(o + i) * inputs + t];
}

// work(output, v, bias + W in) for all outputs and the four vectors v of `in` (input, 4, LANES).
template <class Work>
void layer(const float* packed, const float* bias, const float* in, Int inputs, const Work& work) {
    for (Int v = 0; v < 4; v += VECTORS)
        for (Int o = 0; o < TAPS; o += OUTPUTS) {
            const float* weight = packed + o * inputs;
            Vector sum[OUTPUTS][VECTORS];
            for (Int i = 0; i < OUTPUTS; i++)
                for (Int n = 0; n < VECTORS; n++) sum[i][n] = all(bias[o + i]);
            for (Int t = 0; t < inputs; t++, weight += OUTPUTS) {
                Vector value[VECTORS];
                for (Int n = 0; n < VECTORS; n++) value[n] = load(in + t * GROUP + (v + n) * LANES);
#pragma GCC unroll 11
                for (Int i = 0; i < OUTPUTS; i++)
                    for (Int n = 0; n < VECTORS; n++) sum[i][n] += weight[i] * value[n];
            }
            for (Int i = 0; i < OUTPUTS; i++)
                for (Int n = 0; n < VECTORS; n++) work(o + i, v + n, sum[i][n]);
        }
}

// Where a pixel beyond the window is seen in the mirror; a cell beyond the map repeats the last one.
INLINE Int mirrored(Int at, Int size) { return at < 0 ? -at : at < size ? at : 2 * (size - 1) - at; }
INLINE Int inside(Int at, Int size) { return std::min(std::max(at, Int(0)), size - 1); }

// The values of four pixels, `count` vectors of channels.
template <Int count>
void add_weighted(float* to, Int row, const float* const* lines, const Int* columns, const float* weights) {
    Vector sum[4][count] = {};
    for (Int a = 0; a < NEAR; a++)
        for (Int b = 0; b < NEAR; b++, weights += 4) {
            const float* from = lines[a] + columns[b];
            Vector value[count];
            for (Int n = 0; n < count; n++) value[n] = load(from + n * LANES);
#pragma GCC unroll 4
            for (Int p = 0; p < 4; p++)
                for (Int n = 0; n < count; n++) sum[p][n] += weights[p] * value[n];
        }
    for (Int p = 0; p < 4; p++)
        for (Int n = 0; n < count; n++) store(to + p * row + n * LANES, sum[p][n]);
}

struct DoublingWorker {
    const DoublingArguments& d;
    Scratch scratch;
    float *kernel, *hidden, *resized_rows, *weights, *values, *pixel_weights;
    const float *first, *second;  // packed
    float* projected;             // guidance: (2 h, parity of x, key and colour, half), mirrored beyond both borders
    const Int half, parity;

    DoublingWorker(const DoublingArguments& doubling, float* packed, float* projected)
        : d(doubling), first(packed), second(packed + TAPS * (TAPS + 3)), projected(projected), half(half_of(doubling)),
          parity((d.keys + 3) * half) {
        kernel = scratch.take((TAPS + 3) * GROUP), hidden = scratch.take(std::max(TAPS, d.keys) * GROUP);
        resized_rows = scratch.take(NEAR * D * GROUP), weights = scratch.take(CELLS * GROUP);
        values = scratch.take(GROUP * d.channels), pixel_weights = scratch.take(4 * CELLS);
    }

    // Columns of one parity, and those that full vectors touch beyond.
    static Int half_of(const DoublingArguments& d) {
        return ((d.w + LANES - 1) / LANES + (R + LANES) / LANES) * LANES;
    }

    // Keys W2 gelu(W1 c + b1) + b2 and colours c of a row of fine pixels.
    void project(Int y) {
        const Int plane = 4 * d.h * d.w;
        const float* row = d.guidance + y * 2 * d.w;
        float* to = projected + y * 2 * parity;
        for (Int px = 0; px < 2; px++, to += parity)
            for (Int X = 0; X < half; X += LANES) {
                for (Int lane = 0; lane < LANES; lane++) {
                    const Int x = inside(mirrored(2 * (X + lane) + px - R, 2 * d.w), 2 * d.w);
                    for (Int c = 0; c < 3; c++) to[(d.keys + c) * half + X + lane] = row[c * plane + x];
                }
                Vector colour[3];
                for (Int c = 0; c < 3; c++) colour[c] = load(to + (d.keys + c) * half + X);
                for (Int k = 0; k < d.keys; k++) {
                    Vector sum = all(d.key_bias[k]);
                    for (Int c = 0; c < 3; c++) sum += d.key[3 * k + c] * colour[c];
                    store(hidden + k * LANES, gelu(sum));
                }
                for (Int o = 0; o < d.keys; o++) {
                    Vector sum = all(d.key2_bias[o]);
                    for (Int k = 0; k < d.keys; k++) sum += d.key2[o * d.keys + k] * load(hidden + k * LANES);
                    store(to + o * half + X, sum);
                }
            }
    }

    // Products of keys with those around, of both parities of x (or of one: registers), and the colours.
    template <Int PARITIES>
    void multiply_keys(Int y, Int X, Int px) {
        const auto row = [&](Int y) { return projected + mirrored(y, 2 * d.h) * 2 * parity + X; };
        const auto column = [&](Int e) { return e % 2 * parity + e / 2; };
        const float* own = row(y);
        const Int first = 2 * (y % 2) + px;
        for (Int i = 0; i < D; i++) {
            const float* near = row(y + i - R);
            Vector sum[PARITIES][D] = {};
            for (Int c = 0; c < d.keys; c++) {
                Vector key[PARITIES];
                for (Int k = 0; k < PARITIES; k++) key[k] = load(own + c * half + column(px + k + R));
#pragma GCC unroll 12
                for (Int e = 0; e < D + PARITIES - 1; e++) {
                    const Vector value = load(near + c * half + column(px + e));
                    for (Int k = 0; k < PARITIES; k++)
                        if (e >= k && e - k < D) sum[k][e - k] += key[k] * value;
                }
            }
            for (Int k = 0; k < PARITIES; k++)
                for (Int j = 0; j < D; j++)
                    store(at(i * D + j, first + k), sum[k][j] * d.temperature + d.gaussian[i * D + j]);
        }
        for (Int k = 0; k < PARITIES; k++)
            for (Int c = 0; c < 3; c++)
                store(at(TAPS + c, first + k), load(own + (d.keys + c) * half + column(px + k + R)));
    }

    float* at(Int tap, Int v) const { return kernel + tap * GROUP + v * LANES; }

    void softmax(Int v) {
        Vector most = load(at(0, v)), sum = {};
        for (Int t = 1; t < TAPS; t++) most = at_least(most, load(at(t, v)));
        for (Int t = 0; t < TAPS; t++) {
            const Vector value = exp2(load(at(t, v)) - most);
            sum += value, store(at(t, v), value);
        }
        sum = 1.0f / sum;
        for (Int t = 0; t < TAPS; t++) store(at(t, v), load(at(t, v)) * sum);
    }

    // Weights of pixels beyond the window to those that they mirror.
    void mirror(Int Y, Int X, Int count) {
        for (Int v = 0; v < 4; v++) {
            const Int y = 2 * Y + v / 2;
            for (Int i = 0; i < D; i++) {
                const Int to = mirrored(y + i - R, 2 * d.h) - y + R;
                if (to == i) continue;
                for (Int j = 0; j < D; j++) {
                    float *a = at(i * D + j, v), *b = at(to * D + j, v);
                    store(b, load(b) + load(a)), store(a, Vector{});
                }
            }
            for (Int lane = 0; lane < count; lane++) {
                const Int x = 2 * (X + lane) + v % 2;
                if (x >= R && x < 2 * d.w - R) continue;
                for (Int j = 0; j < D; j++) {
                    const Int to = mirrored(x + j - R, 2 * d.w) - x + R;
                    if (to == j) continue;
                    for (Int i = 0; i < D; i++)
                        at(i * D + to, v)[lane] += at(i * D + j, v)[lane], at(i * D + j, v)[lane] = 0;
                }
            }
        }
    }

    // `weights` (cell, parity, lane) of cells of the small map, from those of fine pixels.
    void resize() {
        const auto along = [&](float* to, Int to_step, const float* from, Int from_step, const float* table) {
            for (Int a = 0; a < NEAR; a++) {
                Vector sum = {};
                for (Int i = std::max(Int(0), 2 * a - 7); i < std::min(D, 2 * a + 2); i++)
                    sum += table[a * D + i] * load(from + i * from_step);
                store(to + a * to_step, sum);
            }
        };
        for (Int v = 0; v < 4; v++) {
            float* middle = resized_rows + v * LANES;  // (cell of y, tap of x)
            for (Int j = 0; j < D; j++)
                along(middle + j * GROUP, D * GROUP, at(j, v), D * GROUP, d.resizing + v / 2 * NEAR * D);
            for (Int a = 0; a < NEAR; a++)
                along(weights + a * NEAR * GROUP + v * LANES, GROUP, middle + a * D * GROUP, GROUP,
                      d.resizing + v % 2 * NEAR * D);
        }
    }

    // The fine pixels of LANES cells.
    void double_cells(Int Y, Int X) {
        const Int count = std::min(LANES, d.w - X);
        for (Int py = 0; py < 2; py++)
            if (LANES > 8) {
                multiply_keys<2>(2 * Y + py, X, 0);
            } else {
                multiply_keys<1>(2 * Y + py, X, 0), multiply_keys<1>(2 * Y + py, X, 1);
            }
        for (Int v = 0; v < 4; v++) softmax(v);
        layer(first, d.first_bias, kernel, TAPS + 3,
              [&](Int o, Int v, Vector x) { store(hidden + o * GROUP + v * LANES, gelu(x)); });
        layer(second, d.second_bias, hidden, TAPS,
              [&](Int o, Int v, Vector x) { store(at(o, v), load(at(o, v)) + x); });
        mirror(Y, X, count);
        resize();
        const Int row = LANES * d.channels;  // values: (parity, lane, channel)
        const float* lines[NEAR];
        Int columns[NEAR];
        for (Int a = 0; a < NEAR; a++)
            lines[a] = d.source + inside(Y + a - NEAR / 2, d.h) * d.w * d.channels;
        for (Int lane = 0; lane < count; lane++) {
            for (Int c = 0; c < CELLS; c++)
                for (Int v = 0; v < 4; v++) pixel_weights[4 * c + v] = weights[c * GROUP + v * LANES + lane];
            for (Int b = 0; b < NEAR; b++) columns[b] = inside(X + lane + b - NEAR / 2, d.w) * d.channels;
            float* to = values + lane * d.channels;
            for (Int left = d.channels; left;) {
                const Int vectors = left >= TOGETHER * LANES ? TOGETHER : 1;
                vectors > 1 ? add_weighted<TOGETHER>(to, row, lines, columns, pixel_weights)
                            : add_weighted<1>(to, row, lines, columns, pixel_weights);
                left -= vectors * LANES, to += vectors * LANES;
                for (Int b = 0; b < NEAR; b++) columns[b] += vectors * LANES;
            }
        }
        for (Int v = 0; v < 4; v++)
            for (Int lane = 0; lane < count; lane++) {
                const Int pixel = ((2 * Y + v / 2) * d.w + X + lane) * 2 + v % 2;
                write_pixel(values + (v * LANES + lane) * d.channels, pixel);
            }
    }

    // Cosines with the phrases from coordinates along the axes and products, or all as it is.
    void write_pixel(const float* from, Int pixel) {
        if (!d.phrases) {
            std::memcpy(d.out + pixel * d.channels, from, d.channels * sizeof(float));
            return;
        }
        float square = 0;
        Vector sum = {};
        Int a = 0;
        for (; a + LANES <= d.axes; a += LANES) {
            const Vector value = load(from + a) + load(d.offset + a);
            sum += value * value;
        }
        for (; a < d.axes; a++) square += (from[a] + d.offset[a]) * (from[a] + d.offset[a]);
        for (Int i = 0; i < LANES; i++) square += sum[i];
        const float length = std::max(std::sqrt(square), 1e-12f);
        for (Int k = 0; k < d.phrases; k++)
            d.out[pixel * d.phrases + k] = (from[d.axes + k] + d.offset[d.axes + k]) / length;
    }
};

}  // namespace

extern "C" {

const char* layout() {
    static const std::string text =
        DESCRIBE(DoublingArguments, FIELD(h), FIELD(w), FIELD(channels), FIELD(keys), FIELD(threads), FIELD(axes),
                 FIELD(phrases), FIELD(temperature), FIELD(guidance), FIELD(source), FIELD(offset), FIELD(gaussian),
                 FIELD(key), FIELD(key_bias), FIELD(key2), FIELD(key2_bias), FIELD(first), FIELD(first_bias),
                 FIELD(second), FIELD(second_bias), FIELD(resizing), FIELD(out));
    return text.c_str();
}

void double_map(const DoublingArguments* doubling) {
    const DoublingArguments& d = *doubling;
    Scratch scratch;
    float* packed = scratch.take(TAPS * (2 * TAPS + 3));
    pack(packed, d.first, TAPS + 3), pack(packed + TAPS * (TAPS + 3), d.second, TAPS);
    float* projected = scratch.take(4 * d.h * (d.keys + 3) * DoublingWorker::half_of(d));
    const auto all_rows = [&](Int count, const auto& work) {
        std::atomic<Int> next{0};
        in_threads(d.threads, [&](Int) {
            DoublingWorker worker(d, packed, projected);
            for (Int row; (row = next++) < count;) work(worker, row);
        });
    };
    all_rows(2 * d.h, [](DoublingWorker& worker, Int y) { worker.project(y); });
    all_rows(d.h, [&](DoublingWorker& worker, Int Y) {
        for (Int X = 0; X < d.w; X += LANES) worker.double_cells(Y, X);
    });
}

}
