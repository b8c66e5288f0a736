// Rows, a block for each: softmax and its Jacobian, one-hot targets, the place of the largest.
#include "rows.cuh"

// a = exp(z − max z) / Σ.
template <typename T>
__global__ void softmax(const T* z, T* a, int rows, int columns) {
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const T* row = z + static_cast<long long>(r) * columns;
        const Softmax found = softmax_of(row, columns);
        for (int j = threadIdx.x; j < columns; j += blockDim.x)
            a[static_cast<long long>(r) * columns + j] = found.probability(j, row[j]);
    }
}

// δ ← a ⊙ (δ − Σⱼ δⱼ aⱼ).
template <typename T>
__global__ void softmax_grad(const T* a, T* delta, int rows, int columns) {
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const T* y = a + static_cast<long long>(r) * columns;
        T* d = delta + static_cast<long long>(r) * columns;
        T mine = T(0);
        for (int j = threadIdx.x; j < columns; j += blockDim.x) mine += d[j] * y[j];
        const T total = block_sum(mine);
        for (int j = threadIdx.x; j < columns; j += blockDim.x) d[j] = y[j] * (d[j] - total);
    }
}

// t = 1 at the label, 0 elsewhere; what has become no label since it was checked shows as NaN.
template <typename T>
__global__ void one_hot(const long long* labels, T* t, int rows, int columns) {
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const long long label = labels[r];
        const bool known = 0 <= label && label < columns;
        for (int j = threadIdx.x; j < columns; j += blockDim.x)
            t[static_cast<long long>(r) * columns + j] = !known && j == 0 ? T(nan("")) : T(j == label);
    }
}

// labels = argmax t, the first of several.
template <typename T>
__global__ void argmax(const T* t, long long* labels, int rows, int columns) {
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const int at = block_largest(t + static_cast<long long>(r) * columns, columns);
        if (threadIdx.x == 0) labels[r] = at;
    }
}
