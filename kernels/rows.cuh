// Softmax of a row, in float64: a block has the row.
#pragma once

#include "block.cuh"

// What rounding left out of d = v − m (Knuth's two-sum).
__device__ __forceinline__ double rest_of_difference(double v, double m, double d) {
    const double b = d - v;
    return (v - (d - b)) - (b + m);
}

// exp(v − largest); exp makes a relative error of the rounding of the difference, which is put back.
__device__ __forceinline__ double exponential(double v, double largest) {
    const double d = v - largest, e = exp(d);
    return e + e * (d > -800.0 ? rest_of_difference(v, largest, d) : 0.0);
}

// The place of the largest of a row, that number, and the sum of the exponentials of all others.
struct Softmax {
    int at;
    double largest, rest;

    // exp(z_j − largest) / Σ, where `v` is z_j.
    __device__ double probability(int j, double v) const {
        return (j == at ? 1.0 : exponential(v, largest)) / (1.0 + rest);
    }
};

// NaN anywhere in the row gives NaN everywhere, and so does an infinite largest.
template <typename T>
__device__ Softmax softmax_of(const T* row, int columns) {
    Softmax found;
    found.at = block_largest(row, columns);
    found.largest = row[found.at];
    double rest = 0.0;
    for (int j = threadIdx.x; j < columns; j += blockDim.x) {
        if (j != found.at) rest += exponential(row[j], found.largest);
    }
    found.rest = block_sum(rest) + found.largest * 0.0;
    return found;
}
