// Products of a tall matrix and a small one, for which libraries for matrices are slow; compiled and called by
// matmul.py.

#include "simd.h"
#include "structures.h"

extern "C" {

// multiply: out = left right, or out += left right. outer: sums = left^T right.
struct ProductArguments {
    Int rows, inner, columns, threads;
    Int add;             // to what is in `out`
    const float* left;   // (row, inner)
    Int left_stride;     // between rows, like those below
    const float* right;  // multiply: (inner, column), contiguous; outer: (row, column)
    Int right_stride;    // outer
    float* out;          // multiply: (row, column)
    Int out_stride;      // multiply
    double* sums;        // outer: (worker, inner, column), zeros at first
};

}

namespace {

constexpr Int OUTER_ROWS = 128;  // float32 sums over rows go into float64 ones every so many

// `count` vectors of columns from vector `first` on, of ROWS rows of the product; right: padded to whole vectors.
template <Int ROWS, Int count>
void multiply_block(const ProductArguments& product, Int row, Int first, const float* right, Int stride) {
    Vector sum[ROWS][count] = {};
    for (Int k = 0; k < product.inner; k++) {
        Vector weight[count];
        for (Int n = 0; n < count; n++) weight[n] = load(right + k * stride + (first + n) * LANES);
#pragma GCC unroll 8
        for (Int r = 0; r < ROWS; r++)
            for (Int n = 0; n < count; n++) sum[r][n] += product.left[(row + r) * product.left_stride + k] * weight[n];
    }
    for (Int r = 0; r < ROWS; r++)
        for (Int n = 0; n < count; n++) {
            const Int column = (first + n) * LANES, real = std::min(LANES, product.columns - column);
            float* to = product.out + (row + r) * product.out_stride + column;
            if (real == LANES) {
                store(to, product.add ? load(to) + sum[r][n] : sum[r][n]);
                continue;
            }
            float values[LANES] = {};
            if (product.add) copy(values, to, real);
            store(values, load(values) + sum[r][n]);
            copy(to, values, real);
        }
}

// The rows of one worker.
void multiply_share(const ProductArguments& product, Int worker) {
    constexpr Int ROWS = LANES > 8 ? 8 : 4;
    const Int vectors = (product.columns + LANES - 1) / LANES, stride = vectors * LANES;
    Scratch scratch;
    float* right = scratch.take(product.inner * stride);
    for (Int k = 0; k < product.inner; k++)
        copy(right + k * stride, product.right + k * product.columns, product.columns);
    const auto [begin, end] = share(product.rows, product.threads, worker);
    Int row = begin;
    for (; row + ROWS <= end; row += ROWS) {
        Int n = 0;
        for (; n + 2 <= vectors; n += 2) multiply_block<ROWS, 2>(product, row, n, right, stride);
        if (n < vectors) multiply_block<ROWS, 1>(product, row, n, right, stride);
    }
    for (; row < end; row++)
        for (Int n = 0; n < vectors; n++) multiply_block<1, 1>(product, row, n, right, stride);
}

// The sums over the rows of one worker.
void outer_share(const ProductArguments& product, Int worker) {
    constexpr Int BLOCK = 8;
    const Int stride = (product.columns + LANES - 1) / LANES * LANES;
    const Int height = (product.inner + BLOCK - 1) / BLOCK * BLOCK;
    Scratch scratch;
    float *left = scratch.take(OUTER_ROWS * height), *right = scratch.take(OUTER_ROWS * stride);
    double* sums = product.sums + worker * product.inner * product.columns;
    const auto [begin, end] = share(product.rows, product.threads, worker);
    for (Int first = begin; first < end; first += OUTER_ROWS) {
        const Int rows = std::min(OUTER_ROWS, end - first);
        for (Int r = 0; r < rows; r++) {
            copy(left + r * height, product.left + (first + r) * product.left_stride, product.inner);
            copy(right + r * stride, product.right + (first + r) * product.right_stride, product.columns);
        }
        for (Int m = 0; m < product.inner; m += BLOCK)
            for (Int n = 0; n < product.columns; n += LANES) {
                Vector sum[BLOCK] = {};
                for (Int r = 0; r < rows; r++) {
                    const Vector value = load(right + r * stride + n);
#pragma GCC unroll 8
                    for (Int i = 0; i < BLOCK; i++) sum[i] += left[r * height + m + i] * value;
                }
                for (Int i = 0; i < std::min(BLOCK, product.inner - m); i++)
                    for (Int j = 0; j < std::min(LANES, product.columns - n); j++)
                        sums[(m + i) * product.columns + n + j] += sum[i][j];
            }
    }
}

}  // namespace

extern "C" {

const char* layout() {
    static const std::string text =
        DESCRIBE(ProductArguments, FIELD(rows), FIELD(inner), FIELD(columns), FIELD(threads), FIELD(add), FIELD(left),
                 FIELD(left_stride), FIELD(right), FIELD(right_stride), FIELD(out), FIELD(out_stride), FIELD(sums));
    return text.c_str();
}

void multiply(const ProductArguments* product) {
    in_threads(product->threads, [&](Int i) { multiply_share(*product, i); });
}
void outer(const ProductArguments* product) {
    in_threads(product->threads, [&](Int i) { outer_share(*product, i); });
}

}
