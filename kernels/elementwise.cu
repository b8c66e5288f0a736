// One result for each number: σ, σ′, bias, sums of two, dropout.
#include "real.cuh"
#include "sigma.cuh"
#include "philox.cuh"

// a = σ(z); a may be z.
template <typename T, typename S>
__global__ void activate(const T* z, T* a, long long n) {
    each_pack<WIDTH<T>>(n, aligned(z, a), [=](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        Pack<T, W> v = load<W>(z + i);
#pragma unroll
        for (int k = 0; k < W; ++k) v.at[k] = S::value(v.at[k]);
        store(a + i, v);
    });
}

// δ ← δ ⊙ σ′(y), y being what the activation keeps.
template <typename T, typename S>
__global__ void activate_grad(const T* y, T* delta, long long n) {
    each_pack<WIDTH<T>>(n, aligned(y, delta), [=](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        const Pack<T, W> kept = load<W>(y + i);
        Pack<T, W> d = load<W>(delta + i);
#pragma unroll
        for (int k = 0; k < W; ++k) d.at[k] *= S::prime(kept.at[k]);
        store(delta + i, d);
    });
}

// a = σ(z + b) with one b for each column; z ← z + b where `keep`. a may be z where it is not kept.
//
// A thread has its columns' b in registers and goes down the rows.
template <typename T, typename S, int W>
__device__ void bias_activate_columns(T* z, const T* b, T* a, int rows, int columns, bool keep) {
    const int stride = gridDim.x * blockDim.x;
    for (int p = blockIdx.x * blockDim.x + threadIdx.x; p < columns / W; p += stride) {
        const Pack<T, W> bias = load<W>(b + p * W);
        for (int r = blockIdx.y * blockDim.y + threadIdx.y; r < rows; r += gridDim.y * blockDim.y) {
            const long long i = static_cast<long long>(r) * columns + p * W;
            Pack<T, W> v = load<W>(z + i);
#pragma unroll
            for (int k = 0; k < W; ++k) v.at[k] += bias.at[k];
            if (keep) store(z + i, v);
#pragma unroll
            for (int k = 0; k < W; ++k) v.at[k] = S::value(v.at[k]);
            store(a + i, v);
        }
    }
}

template <typename T, typename S>
__global__ void bias_activate(T* z, const T* b, T* a, int rows, int columns, int keep) {
    if (columns % WIDTH<T> == 0 && aligned(z, b, a))
        bias_activate_columns<T, S, WIDTH<T>>(z, b, a, rows, columns, keep);
    else
        bias_activate_columns<T, S, 1>(z, b, a, rows, columns, keep);
}

// y = u + v.
template <typename T>
__global__ void add(const T* u, const T* v, T* y, long long n) {
    each_pack<WIDTH<T>>(n, aligned(u, v, y), [=](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        Pack<T, W> left = load<W>(u + i);
        const Pack<T, W> right = load<W>(v + i);
#pragma unroll
        for (int k = 0; k < W; ++k) left.at[k] += right.at[k];
        store(y + i, left);
    });
}

// v = u.
template <typename T>
__global__ void copy(const T* u, T* v, long long n) {
    each_pack<WIDTH<T>>(n, aligned(u, v), [=](auto width, long long i) {
        store(v + i, load<decltype(width)::value>(u + i));
    });
}

// y = x ⊙ mask · scale, mask = (word of Philox ≥ least): four numbers a counter, as in gpunn/philox.py.
template <typename T>
__global__ void dropout(const T* x, const long long* key, const long long* step, T* y, unsigned char* mask,
                        long long n, double scale, unsigned long long least, int layer) {
    const unsigned long long now = *step;
    const unsigned key0 = key[0], key1 = key[1];
    const bool packed = aligned(x, y, mask);
    each_pack<4>((n + 3) / 4 * 4, true, [=](auto, long long i) {
        const Words words = philox(i / 4, layer, now, now >> 32, key0, key1);
        const bool whole = packed && i + 4 <= n;
        Pack<T, 4> v = {};
        Pack<unsigned char, 4> kept;
        if (whole) v = load<4>(x + i);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (!whole && i + k < n) v.at[k] = x[i + k];
            kept.at[k] = words.at[k] >= least;
            v.at[k] = v.at[k] * T(scale) * (kept.at[k] ? T(1) : T(0));
            if (!whole && i + k < n) {
                y[i + k] = v.at[k];
                mask[i + k] = kept.at[k];
            }
        }
        if (whole) {
            store(y + i, v);
            store(mask + i, kept);
        }
    });
}

// δ ← δ ⊙ mask · scale.
template <typename T>
__global__ void dropout_grad(const unsigned char* mask, T* delta, long long n, double scale) {
    each_pack<WIDTH<T>>(n, aligned(mask, delta), [=](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        const Pack<unsigned char, W> kept = load<W>(mask + i);
        Pack<T, W> d = load<W>(delta + i);
#pragma unroll
        for (int k = 0; k < W; ++k) d.at[k] = d.at[k] * T(scale) * (kept.at[k] ? T(1) : T(0));
        store(delta + i, d);
    });
}
