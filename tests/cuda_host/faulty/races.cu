// Each race of threads and of blocks, beside the kernel that has none.

template <bool atomic>
__global__ void count_blocks(const int* x, int* counts) {
    if (threadIdx.x != 0) return;
    if (atomic) atomicAdd(counts + 1, x[blockIdx.x]);
    else counts[1] += x[blockIdx.x];
}

template <bool own>
__global__ void mark_blocks(char* marks) {
    if (threadIdx.x == 0) marks[own ? blockIdx.x : 0] = 1;
}

template <bool atomic>
__global__ void count_threads(const int* x, int* count) {
    __shared__ int found;
    if (threadIdx.x == 0) found = 0;
    __syncthreads();
    if (atomic) atomicAdd(&found, x[threadIdx.x] % 2);
    else found += x[threadIdx.x] % 2;
    __syncthreads();
    if (threadIdx.x == 0) *count = found;
}

template <bool atomic>
__global__ void count_in_argument(const int* x, int* count) {
    if (atomic) atomicAdd(count, x[threadIdx.x] % 2);
    else *count += x[threadIdx.x] % 2;
}

template <bool wait>
__global__ void start_and_add(const int* x, int* count) {
    __shared__ int found;
    if (threadIdx.x == 0) found = 0;
    if (wait) __syncthreads();
    atomicAdd(&found, x[threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) *count = found;
}

struct alignas(16) Pair {
    double a, b;
};

struct Many {
    int at[8];
};

template <typename T, bool wait>
__global__ void write_in_turn(T* x) {
    if (threadIdx.x == 0) x[0] = T{1};
    if (wait) __syncthreads();
    if (threadIdx.x == 1) x[0] = T{1};
}

template <bool wait>
__global__ void same_value(const int* x, int* y) {
    __shared__ int all[64];
    all[threadIdx.x] = 1;
    __syncthreads();
    int other = all[(threadIdx.x + 1) % blockDim.x];
    if (wait) __syncthreads();
    all[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = other;
}

template <bool block>
__global__ void tell_other_warp(int* y) {
    __shared__ int told;
    if (threadIdx.x == 0) told = 7;
    if (block) __syncthreads();
    else __syncwarp();
    if (threadIdx.x == 32) *y = told;
}

// Lanes that read at different times, and a lane that writes after all of them.
__global__ void read_and_write_in_warp(const int* x, int* y) {
    __shared__ int told;
    if (threadIdx.x == 0) told = x[0];
    __syncwarp();
    int seen = threadIdx.x % 2 ? told : 0;
    __syncwarp();
    if (threadIdx.x % 2 == 0) seen = told;
    __syncwarp();
    if (threadIdx.x == 5) told = x[1];
    __syncwarp();
    y[threadIdx.x] = seen + told;
}

__global__ void largest(const int* x, int* most) {
    int seen = *most;
    __syncthreads();
    while (x[threadIdx.x] > seen) {
        int before = atomicCAS(most, seen, x[threadIdx.x]);
        if (before == seen) return;
        seen = before;
    }
}

// The last block adds what the others wrote, and leaves the ticket as it was.
__global__ void sum_by_ticket(const int* x, int* partial, int* total, unsigned* tickets) {
    if (threadIdx.x != 0) return;
    partial[blockIdx.x] = x[blockIdx.x];
    __threadfence();
    if (atomicAdd(tickets, 1u) != gridDim.x - 1) return;
    int sum = 0;
    for (unsigned i = 0; i < gridDim.x; i++) sum += partial[i];
    *total = sum;
    *tickets = 0;
}

__global__ void order_of_blocks(int* tickets, int* blocks) {
    if (threadIdx.x == 0) blocks[atomicAdd(tickets, 1)] = blockIdx.x;
}

// a b + c, rounded twice and rounded once.
__global__ void rounded(float a, double b, float* single, double* twofold) {
    single[0] = a * a - __fmul_rn(a, a);
    single[1] = __fsub_rn(__fadd_rn(__fmul_rn(a, a), 0.0f), __fmul_rn(a, a));
    single[2] = __fmaf_rn(a, a, -__fmul_rn(a, a));
    single[3] = fma(a, a, -(a * a));
    twofold[0] = b * b - __dmul_rn(b, b);
    twofold[1] = __dsub_rn(__dadd_rn(__dmul_rn(b, b), 0.0), __dmul_rn(b, b));
    twofold[2] = __fma_rn(b, b, -__dmul_rn(b, b));
    twofold[3] = fma(b, b, -(b * b));
}
