// What the kernels share: vectors of floats as wide as the processor's, functions of them, memory, threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

typedef int64_t Int;
typedef float Vector __attribute__((vector_size(BYTES)));
typedef int32_t Mask __attribute__((vector_size(BYTES)));
typedef float Unaligned __attribute__((vector_size(BYTES), aligned(4), may_alias));

constexpr Int LANES = BYTES / 4;
constexpr float LOG2E = 1.4426950408889634f;

INLINE Vector load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
INLINE void store(float* p, Vector v) { *reinterpret_cast<Unaligned*>(p) = v; }
INLINE Vector all(float x) { return x - Vector{}; }

// max(x, low), or x where that is a NaN. (Compilers make two slower instructions of the comparison.)
INLINE Vector at_least(Vector low, Vector x) {
#if defined(__AVX512F__)
    return _mm512_max_ps(low, x);
#elif defined(__AVX__)
    return _mm256_max_ps(low, x);
#else
    return x < low ? low : x;
#endif
}

// 2**x for |x| < 127 (below: about 0), relative error 1e-7, exactly 1 at 0; a NaN stays one.
// 2**x = 2**r 2**f with r = round(x): 2**f = 1 + f P(f) by a minimax polynomial, 2**r by the exponent bits.
INLINE Vector exp2(Vector x) {
    x = at_least(all(-126.0f), x);
    const Vector shifted = x + 12582912.0f;  // 1.5 * 2**23: the last bits hold the rounded number
    const Vector f = x - (shifted - 12582912.0f);
    Vector p = 0.0001546973047f * f + 0.001339086686f;
    p = p * f + 0.009618030785f;
    p = p * f + 0.05550357105f;
    p = p * f + 0.2402265108f;
    p = p * f + 0.693147188f;
    p = p * f + 1.0f;
    return (Vector)((Mask)p + ((Mask)shifted << 23));
}

INLINE Vector exp_of_minus_abs(Vector x) { return exp2((Vector)((Mask)x | INT32_MIN) * LOG2E); }

INLINE Vector sigmoid(Vector x) {
    const Vector w = exp_of_minus_abs(x);
    return (x >= 0.0f ? all(1.0f) : w) / (1.0f + w);
}

// For short rows: without the call of memcpy.
INLINE void copy(float* to, const float* from, Int count) {
    for (; count >= LANES; count -= LANES, to += LANES, from += LANES) store(to, load(from));
    if (LANES > 8 && count & 8) std::memcpy(to, from, 32), to += 8, from += 8;
    if (LANES > 4 && count & 4) std::memcpy(to, from, 16), to += 4, from += 4;
    for (count &= 3; count > 0; count--) *to++ = *from++;
}

// Zeroed memory for vectors, handed out piece by piece.
class Scratch {
    std::vector<std::unique_ptr<float[]>> pieces;

  public:
    float* take(Int count) {
        pieces.emplace_back(new float[count + 2 * LANES]());
        const auto address = reinterpret_cast<uintptr_t>(pieces.back().get());
        return reinterpret_cast<float*>((address + BYTES - 1) / BYTES * BYTES);
    }
};

// work(0) ... work(workers - 1), each in a thread of its own.
template <class Work>
void in_threads(Int workers, const Work& work) {
    std::vector<std::thread> others;
    for (Int i = 1; i < workers; i++) others.emplace_back(work, i);
    work(0);
    for (auto& thread : others) thread.join();
}

// Which of `count` items worker i of `workers` does: from first to before second.
inline std::pair<Int, Int> share(Int count, Int workers, Int i) {
    return {count * i / workers, count * (i + 1) / workers};
}

}  // namespace
