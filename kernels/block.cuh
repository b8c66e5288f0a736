// What the threads of a block find together: sums and the place of the largest, the same at every run.
//
// Blocks are one-dimensional, of whole warps. Every thread of the block has to call, and every one gets the
// result.
#pragma once

constexpr unsigned ALL = 0xffffffffu;
constexpr int WARP = 32;

template <typename T>
__device__ T block_sum(T value) {
    __shared__ T part[WARP];
    for (int lane = WARP / 2; lane > 0; lane /= 2) value += __shfl_xor_sync(ALL, value, lane);
    const int warps = blockDim.x / WARP;
    if (warps == 1) return value;
    __syncthreads();  // A sum before this one may still be read.
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = value;
    __syncthreads();
    T total = part[0];
    for (int warp = 1; warp < warps; ++warp) total += part[warp];
    return total;
}

// A number and where it stands in its row.
template <typename T>
struct Placed {
    T value;
    int place;
};

// Whether a comes before b: NaN first, then the larger, of equals the one of the lower place.
template <typename T>
__device__ bool before(const Placed<T>& a, const Placed<T>& b) {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan;
    if (!a_nan && a.value != b.value) return a.value > b.value;
    return a.place < b.place;
}

// The place of the largest of a row, the first of several; that of the first NaN where there is one.
template <typename T>
__device__ int block_largest(const T* row, int columns) {
    __shared__ Placed<T> part[WARP];
    Placed<T> best{row[0], 0};
    for (int j = threadIdx.x; j < columns; j += blockDim.x) {
        const Placed<T> mine{row[j], j};
        if (before(mine, best)) best = mine;
    }
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        const Placed<T> other{__shfl_xor_sync(ALL, best.value, lane), __shfl_xor_sync(ALL, best.place, lane)};
        if (before(other, best)) best = other;
    }
    const int warps = blockDim.x / WARP;
    if (warps == 1) return best.place;
    __syncthreads();
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = best;
    __syncthreads();
    best = part[0];
    for (int warp = 1; warp < warps; ++warp) {
        if (before(part[warp], best)) best = part[warp];
    }
    return best.place;
}
