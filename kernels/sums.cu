// Sums: the bias gradient, penalty, the norm to clip by, the running cost, and what metrics count.
//
// What several blocks find of one sum goes into `partial`, and a kernel of one block adds it up in order.
#include "block.cuh"
#include "hyper.cuh"
#include "real.cuh"

constexpr int DOWN = 8;  // threads of a block that share a column

// Column sums of W columns a thread; block (32, DOWN), blockIdx.y has every gridDim.y-th stretch of rows.
template <typename T, int W>
__device__ void column_sums_of(const T* delta, T* sums, int rows, int columns, bool accumulate,
                               const double* words) {
    __shared__ Pack<T, W> part[DOWN][WARP];
    const int x = threadIdx.x, y = threadIdx.y;
    for (int first = blockIdx.x * WARP; first < columns / W; first += gridDim.x * WARP) {
        const int column = (first + x) * W;
        const bool inside = column < columns;
        Pack<T, W> mine = {};
        if (inside) {
            for (int r = blockIdx.y * DOWN + y; r < rows; r += gridDim.y * DOWN) {
                const Pack<T, W> row = load<W>(delta + static_cast<long long>(r) * columns + column);
#pragma unroll
                for (int k = 0; k < W; ++k) mine.at[k] += row.at[k];
            }
        }
        part[y][x] = mine;
        __syncthreads();
        if (y == 0 && inside) {
            for (int other = 1; other < DOWN; ++other) {
#pragma unroll
                for (int k = 0; k < W; ++k) mine.at[k] += part[other][x].at[k];
            }
            T* to = sums + static_cast<long long>(blockIdx.y) * columns + column;
            if (accumulate || words) {
                const Pack<T, W> old = load<W>(to);
                const T scale = words ? T(-words[hyper::lr]) : T(1);
#pragma unroll
                for (int k = 0; k < W; ++k) mine.at[k] = old.at[k] + scale * mine.at[k];
            }
            store(to, mine);
        }
        __syncthreads();
    }
}

// Σ over the rows (BP3): of all of them with gridDim.y = 1, else of gridDim.y stretches, a row of sums for each.
//
// With the words of the hyper slot, sums ← sums − lr Σ: the step of plain SGD.
template <typename T>
__global__ void column_sums(const T* delta, T* sums, int rows, int columns, int accumulate,
                            const double* words) {
    if (columns % WIDTH<T> == 0 && aligned(delta, sums))
        column_sums_of<T, WIDTH<T>>(delta, sums, rows, columns, accumulate, words);
    else
        column_sums_of<T, 1>(delta, sums, rows, columns, accumulate, words);
}

// partial[2b], partial[2b + 1] = Σ|v|, Σv² of what block b has of n numbers.
template <typename T>
__global__ void absolute_and_square(const T* values, double* partial, long long n) {
    double total = 0.0, squares = 0.0;
    each_pack<WIDTH<T>>(n, aligned(values), [&](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        const Pack<T, W> v = load<W>(values + i);
#pragma unroll
        for (int k = 0; k < W; ++k) {
            const double size = fabs(static_cast<double>(v.at[k]));
            total += size;
            squares += size * size;
        }
    });
    total = block_sum(total);
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = total;
        partial[2 * blockIdx.x + 1] = squares;
    }
}

// penalty = ½ l2 Σw² + l1 Σ|w|.
__global__ void weight_penalty(const double* partial, const double* words, double* penalty, int count,
                               int terms) {
    double total = 0.0, squares = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        total += partial[2 * i];
        squares += partial[2 * i + 1];
    }
    total = block_sum(total);
    squares = block_sum(squares);
    if (threadIdx.x == 0)
        *penalty = (terms & term::l1 ? words[hyper::l1] * total : 0.0) +
                   (terms & term::l2 ? 0.5 * words[hyper::l2] * squares : 0.0);
}

constexpr double SMALLER = 0x1p-600;  // of numbers whose squares overflow

// partial[2b], partial[2b + 1] = Σg², Σ(2⁻⁶⁰⁰g)² of what block b has of ∇C.
template <typename T>
__global__ void square_norm(const T* grad, double* partial, long long n) {
    double squares = 0.0, smaller = 0.0;
    each_pack<WIDTH<T>>(n, aligned(grad), [&](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        const Pack<T, W> g = load<W>(grad + i);
#pragma unroll
        for (int k = 0; k < W; ++k) {
            const double v = g.at[k], scaled = v * SMALLER;
            squares += v * v;
            smaller += scaled * scaled;
        }
    });
    squares = block_sum(squares);
    smaller = block_sum(smaller);
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = squares;
        partial[2 * blockIdx.x + 1] = smaller;
    }
}

// s = min(1, clip_norm/‖∇C‖); NaN where ∇C holds NaN or is infinite.
__global__ void clip_scale(const double* partial, double* words, int count) {
    double squares = 0.0, smaller = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        squares += partial[2 * i];
        smaller += partial[2 * i + 1];
    }
    squares = block_sum(squares);
    smaller = block_sum(smaller);
    if (threadIdx.x == 0) {
        double norm = sqrt(squares);
        if (isinf(norm)) norm = isinf(smaller) ? nan("") : sqrt(smaller) / SMALLER;
        const double most = words[hyper::clip_norm];
        words[hyper::clip_scale] = norm <= most ? 1.0 : most / norm;
    }
}

// The running sums of the cost, and the first step whose cost is not finite; one thread.
__global__ void tally(const double* loss, const long long* step, const double* penalty, double* loss_sum,
                      long long* first_bad) {
    const double cost = loss[0], mass = loss[1];
    loss_sum[0] += cost * mass;
    loss_sum[1] += mass;
    if (penalty) loss_sum[2] += *penalty * mass;
    if (!isfinite(cost) && *first_bad < 0) *first_bad = *step;
}

// Counts are whole numbers in float64, so blocks may add to them in any order.

// How many rows have their largest output at the label; one that holds NaN has none.
template <typename T>
__global__ void count_correct(const T* y, const long long* labels, double* correct, int rows, int columns) {
    int count = 0;
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const T* row = y + static_cast<long long>(r) * columns;
        const int at = block_largest(row, columns);
        count += at == labels[r] && row[at] == row[at];
    }
    if (threadIdx.x == 0 && count) atomicAdd(correct, static_cast<double>(count));
}

// A label counts if fewer than k outputs come before its own: larger, or equal and of a lower place.
template <typename T>
__global__ void count_top_k(const T* y, const long long* labels, double* correct, int rows, int columns,
                            long long k) {
    int count = 0;
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const T* row = y + static_cast<long long>(r) * columns;
        const bool known = 0 <= labels[r] && labels[r] < columns;
        const int label = known ? labels[r] : 0;
        const T score = row[label];
        int mine = 0;
        for (int j = threadIdx.x; j < columns; j += blockDim.x)
            mine += row[j] > score || (row[j] == score && j < label);
        const int ahead = block_sum(mine);
        count += known && ahead < k && score == score;
    }
    if (threadIdx.x == 0 && count) atomicAdd(correct, static_cast<double>(count));
}

// How many rows have every output on its target's side.
template <typename T>
__global__ void count_exact(const T* y, const T* t, double* correct, int rows, int columns, double threshold) {
    int count = 0;
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const long long start = static_cast<long long>(r) * columns;
        int wrong = 0;
        for (int j = threadIdx.x; j < columns; j += blockDim.x)
            wrong += (y[start + j] > threshold) != (t[start + j] > 0.5);
        count += block_sum(wrong) == 0;
    }
    if (threadIdx.x == 0 && count) atomicAdd(correct, static_cast<double>(count));
}

// One more at (the class it is, the class it is taken for) for each row.
template <typename T>
__global__ void confusion(const T* y, const long long* labels, double* counts, int rows, int columns) {
    for (int r = blockIdx.x; r < rows; r += gridDim.x) {
        const int at = block_largest(y + static_cast<long long>(r) * columns, columns);
        if (threadIdx.x == 0 && 0 <= labels[r] && labels[r] < columns)
            atomicAdd(counts + labels[r] * columns + at, 1.0);
    }
}

// The four counts of each output: [is it][is it taken for it]; a block has a column.
template <typename T>
__global__ void confusion_by_output(const T* y, const T* t, double* counts, int rows, int columns,
                                    double threshold) {
    for (int j = blockIdx.x; j < columns; j += gridDim.x) {
        int is = 0, taken = 0, both = 0;
        for (int r = threadIdx.x; r < rows; r += blockDim.x) {
            const long long i = static_cast<long long>(r) * columns + j;
            const bool a = t[i] > 0.5, b = y[i] > threshold;
            is += a;
            taken += b;
            both += a && b;
        }
        is = block_sum(is);
        taken = block_sum(taken);
        both = block_sum(both);
        if (threadIdx.x == 0) {
            double* own = counts + 4 * j;
            own[0] += rows - is - taken + both;
            own[1] += taken - both;
            own[2] += is - both;
            own[3] += both;
        }
    }
}

// partial[b] = Σ|y − t| of what block b has.
template <typename T>
__global__ void absolute_differences(const T* y, const T* t, double* partial, long long n) {
    double total = 0.0;
    each_pack<WIDTH<T>>(n, aligned(y, t), [&](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        const Pack<T, W> left = load<W>(y + i), right = load<W>(t + i);
#pragma unroll
        for (int k = 0; k < W; ++k)
            total += fabs(static_cast<double>(left.at[k]) - static_cast<double>(right.at[k]));
    });
    total = block_sum(total);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// total += (Σ of the partial sums, n).
__global__ void sum_absolute(const double* partial, double* total, int count, long long n) {
    double mine = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) mine += partial[i];
    mine = block_sum(mine);
    if (threadIdx.x == 0) {
        total[0] += mine;
        total[1] += n;
    }
}

// The batch's own moments about its first target, joined to those of the rows before; a block has a column.
template <typename T>
__global__ void moments(const T* y, const T* t, double* sums, int rows, int columns) {
    for (int j = blockIdx.x; j < columns; j += gridDim.x) {
        const double first = t[j], now = rows;
        double mean = 0.0, error = 0.0, spread = 0.0;
        for (int r = threadIdx.x; r < rows; r += blockDim.x) {
            const long long i = static_cast<long long>(r) * columns + j;
            const double d = static_cast<double>(y[i]) - t[i];
            mean += t[i] - first;
            error += d * d;
        }
        mean = block_sum(mean) / now;
        error = block_sum(error);
        for (int r = threadIdx.x; r < rows; r += blockDim.x) {
            const double d = t[static_cast<long long>(r) * columns + j] - first - mean;
            spread += d * d;
        }
        spread = block_sum(spread);
        if (threadIdx.x == 0) {
            const double before = sums[j], moved = mean + first - sums[columns + j];
            sums[j] = before + now;
            sums[columns + j] += moved * (now / (before + now));
            sums[2 * columns + j] += spread + moved * moved * (before * now / (before + now));
            sums[3 * columns + j] += error;
        }
    }
}
