// Costs and ∂C/∂a, in float64 whatever the network's dtype.
//
// A block has a row; what the rows cost, times their weight, goes into `costs`, and mean_cost makes the mean of
// it. Rows are added in one order, so that a run can be repeated bit by bit.
#include "rows.cuh"

// Cᵢ of one number and its slope, before the division by `parts`.
namespace cost {

struct squared {  // d² with slope 2d: parts = 2 for ½‖d‖², N for the mean
    static __device__ double value(double a, double t) { return (a - t) * (a - t); }
    static __device__ double slope(double a, double t) { return 2.0 * (a - t); }
};

struct absolute {
    static __device__ double value(double a, double t) { return fabs(a - t); }
    static __device__ double slope(double a, double t) {
        const double d = a - t;
        return d > 0.0 ? 1.0 : d < 0.0 ? -1.0 : d;
    }
};

struct huber {  // q|d| − ½q² with q = min(|d|, 1)
    static __device__ double value(double a, double t) {
        const double size = fabs(a - t), q = size > 1.0 ? 1.0 : size;
        return q * size - 0.5 * q * q;
    }
    static __device__ double slope(double a, double t) {
        const double d = a - t;
        return d > 1.0 ? 1.0 : d < -1.0 ? -1.0 : d;
    }
};

struct binary_cross_entropy {  // |z| e + log(1 + exp(−|z|)), e = 1 − t for z > 0, else t: no term cancels
    static __device__ double value(double z, double t) {
        return fabs(z) * (z > 0.0 ? 1.0 - t : t) + log1p(exp(-fabs(z)));
    }
    static __device__ double slope(double z, double t) {
        const double q = exp(-fabs(z)), d = q / (q + 1.0) - (z > 0.0 ? 1.0 - t : t);
        return z > 0.0 ? -d : d;
    }
};

struct poisson {  // exp(z) − t z + t log t − t, where 0 log 0 = 0
    static __device__ double value(double z, double t) {
        return ((t != 0.0 ? t * log(t) : 0.0) - t - t * z) + exp(z);
    }
    static __device__ double slope(double z, double t) { return exp(z) - t; }
};

}  // namespace cost

// Σ wᵢ, by one block; the other kernels read it where the batch is weighted.
template <typename T>
__global__ void mass_of(const T* w, double* loss, int rows) {
    double mine = 0.0;
    for (int r = threadIdx.x; r < rows; r += blockDim.x) mine += w[r];
    const double mass = block_sum(mine);
    if (threadIdx.x == 0) loss[1] = mass;
}

// wᵢ and wᵢ/Σw of a row; a batch without weight has no gradient.
struct Share {
    double weight, share;
};

template <typename T>
__device__ Share share_of(const T* w, const double* loss, int r, int rows) {
    if (!w) return {1.0, 1.0 / rows};
    const double weight = w[r], mass = loss[1];
    return {weight, mass != 0.0 ? weight / mass : 0.0};
}

// C and Σ wᵢ from what the rows cost, by one block.
__global__ void mean_cost(const double* costs, double* loss, int rows, double parts, int weighted) {
    double mine = 0.0;
    for (int r = threadIdx.x; r < rows; r += blockDim.x) mine += costs[r];
    const double total = block_sum(mine), mass = weighted ? loss[1] : rows;
    if (threadIdx.x == 0) {
        loss[0] = mass != 0.0 ? total / (parts * mass) : 0.0;
        if (!weighted) loss[1] = mass;
    }
}

// Within bounds; NaN stays.
__device__ __forceinline__ double bounded(double cost, double least, double most) {
    return cost < least ? least : cost > most ? most : cost;
}

// Costs that are a sum over the numbers of a row; `delta` may be null.
template <typename T, typename C>
__global__ void row_costs(const T* a, const T* t, const T* w, const double* loss, double* costs, T* delta,
                          int rows, int columns, double parts, double least, double most) {
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const long long start = static_cast<long long>(r) * columns;
        const Share row = share_of(w, loss, r, rows);
        double mine = 0.0;
        for (int j = threadIdx.x; j < columns; j += blockDim.x) {
            const double value = a[start + j], target = t[start + j];
            mine += bounded(C::value(value, target), least, most);
            if (delta) delta[start + j] = C::slope(value, target) * (row.share / parts);
        }
        const double total = block_sum(mine);
        if (threadIdx.x == 0) costs[r] = total * row.weight;
    }
}

// (max z − z[label]) + log(1 + Σ of the other exponentials), δ = softmax(z) − onehot.
template <typename T>
__global__ void softmax_cross_entropy(const T* z, const long long* labels, const T* w, const double* loss,
                                      double* costs, T* delta, int rows, int columns, double least,
                                      double most) {
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const T* row = z + static_cast<long long>(r) * columns;
        const Share part = share_of(w, loss, r, rows);
        const Softmax found = softmax_of(row, columns);
        const bool known = 0 <= labels[r] && labels[r] < columns;
        const int label = known ? labels[r] : 0;
        if (threadIdx.x == 0) {
            const double cost = bounded((found.largest - row[label]) + log1p(found.rest), least, most);
            costs[r] = known ? cost * part.weight : nan("");
        }
        if (!delta) continue;
        for (int j = threadIdx.x; j < columns; j += blockDim.x)
            delta[static_cast<long long>(r) * columns + j] =
                (found.probability(j, row[j]) - (j == label ? 1.0 : 0.0)) * part.share;
    }
}

// Σⱼ tⱼ (max z − zⱼ + log(1 + Σ of the other exponentials)), δ = softmax(z) Σⱼ tⱼ − t.
//
// Half of each difference, which cannot overflow, until t has made it small.
template <typename T>
__global__ void softmax_cross_entropy_targets(const T* z, const T* t, const T* w, const double* loss,
                                              double* costs, T* delta, int rows, int columns) {
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const T* row = z + static_cast<long long>(r) * columns;
        const T* target = t + static_cast<long long>(r) * columns;
        const Share part = share_of(w, loss, r, rows);
        const Softmax found = softmax_of(row, columns);
        const double half = 0.5 * found.largest, tail = 0.5 * log1p(found.rest);
        double own = 0.0, mass = 0.0;
        for (int j = threadIdx.x; j < columns; j += blockDim.x) {
            own += (half - 0.5 * row[j] + tail) * target[j];
            mass += target[j];
        }
        own = block_sum(own);
        mass = block_sum(mass);
        if (threadIdx.x == 0) costs[r] = 2.0 * own * part.weight;
        if (!delta) continue;
        for (int j = threadIdx.x; j < columns; j += blockDim.x)
            delta[static_cast<long long>(r) * columns + j] =
                (found.probability(j, row[j]) * mass - target[j]) * part.share;
    }
}
