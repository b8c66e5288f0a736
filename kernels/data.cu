// The minibatch: rows of the data, through a permutation and a cursor that the device advances.
#include "real.cuh"

// Rows of numbers of type N; a block has a row, blockIdx.y a stretch of it.
template <typename N>
__device__ void copy_rows(const char* X, const long long* perm, long long start, char* x, int rows,
                          long long count) {
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const N* from = reinterpret_cast<const N*>(X) + perm[start + r] * count;
        N* to = reinterpret_cast<N*>(x) + r * count;
        for (long long k = static_cast<long long>(blockIdx.y) * blockDim.x + threadIdx.x; k < count;
             k += static_cast<long long>(gridDim.y) * blockDim.x)
            to[k] = from[k];
    }
}

// x = X[perm[cursor : cursor + rows]], rows of so many bytes, whatever the dtype.
__global__ void gather(const char* X, const long long* perm, const long long* cursor, char* x, int rows,
                       long long bytes) {
    const long long start = *cursor;
    if (bytes % 16 == 0 && aligned(X, x))
        copy_rows<Pack<unsigned, 4>>(X, perm, start, x, rows, bytes / 16);
    else if (bytes % 4 == 0 && aligned<4>(X, x))
        copy_rows<unsigned>(X, perm, start, x, rows, bytes / 4);
    else
        copy_rows<char>(X, perm, start, x, rows, bytes);
}
