// Numbers of 4 or 8 bytes, packs of them that move in one 16-byte access, and the grid-stride loop.
#pragma once

// W numbers that lie side by side; 16 bytes of them are loaded and stored at once.
template <typename T, int W>
struct alignas(W * sizeof(T) < 16 ? W * sizeof(T) : 16) Pack {
    T at[W];
};

template <int W, typename T>
__device__ __forceinline__ Pack<T, W> load(const T* from) {
    return *reinterpret_cast<const Pack<T, W>*>(from);
}

template <typename T, int W>
__device__ __forceinline__ void store(T* to, const Pack<T, W>& values) {
    *reinterpret_cast<Pack<T, W>*>(to) = values;
}

// Whether all of these addresses are multiples of so many bytes.
template <int BYTES = 16, typename... P>
__device__ __forceinline__ bool aligned(const P*... pointers) {
    return ((reinterpret_cast<unsigned long long>(pointers) | ...) & (BYTES - 1)) == 0;
}

// A width as a type, so that the body of a loop is compiled for it.
template <int W>
struct Width {
    static constexpr int value = W;
};

__device__ __forceinline__ long long first_index() {
    return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ long long index_stride() {
    return static_cast<long long>(gridDim.x) * blockDim.x;
}

// body(Width<W>, i) for n numbers: packs of W where `packed`, then one by one what is left.
template <int W, typename F>
__device__ __forceinline__ void each_pack(long long n, bool packed, F body) {
    const long long packs = packed ? n / W : 0;
    // Not unrolled: the number of turns would cost a division of 64 bits, more than the turns of most threads.
#pragma unroll 1
    for (long long p = first_index(); p < packs; p += index_stride()) body(Width<W>{}, p * W);
#pragma unroll 1
    for (long long i = packs * W + first_index(); i < n; i += index_stride()) body(Width<1>{}, i);
}

// How many T are 16 bytes.
template <typename T>
constexpr int WIDTH = 16 / sizeof(T);
