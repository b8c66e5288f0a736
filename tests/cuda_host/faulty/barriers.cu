// Each fault of barriers and warps, beside the kernel that does it right.

__device__ float exchanged(float value, bool wait) {
    __shared__ float all[256];
    all[threadIdx.x] = value;
    if (wait) __syncthreads();
    return all[blockDim.x - 1 - threadIdx.x];
}

template <bool wait>
__global__ void write_then_read(float* x) {
    float other = exchanged(x[threadIdx.x], wait);
    x[threadIdx.x] = other;
}

template <bool wait>
__global__ void read_then_write(float* x) {
    __shared__ float all[256];
    all[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    float other = all[(threadIdx.x + 1) % blockDim.x];
    if (wait) __syncthreads();
    all[threadIdx.x] = 2 * other;
    __syncthreads();
    x[threadIdx.x] = other + all[threadIdx.x];
}

template <bool wait>
__global__ void exchange_in_warp(float* x) {
    __shared__ float all[32];
    all[threadIdx.x] = x[threadIdx.x];
    if (wait) __syncwarp();
    x[threadIdx.x] = all[threadIdx.x ^ 1];
}

__global__ void barrier_in_branch(float* x) {
    if (x[threadIdx.x] > 0) __syncthreads();
    else __syncwarp(0x0000ffffu);
    x[threadIdx.x] = 1;
}

__global__ void uniform_branch(float* x, int wait) {
    if (wait) __syncthreads();
    x[threadIdx.x] = 1;
}

__global__ void early_return(float* x, int n) {
    if (int(threadIdx.x) >= n) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}

__global__ void late_return(float* x, int n) {
    __syncthreads();
    if (int(threadIdx.x) >= n) return;
    x[threadIdx.x] = 1;
}

__global__ void two_lines(float* x) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    x[threadIdx.x] = 1;
}

__global__ void shuffle_with_ended_lane(float* x, int n) {
    if (int(threadIdx.x) >= n) return;
    x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}

__global__ void shuffle_of_half(float* x) {
    if (threadIdx.x >= 16) return;
    x[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, x[threadIdx.x], 1);
}

__global__ void shuffle_from_outside(float* x) {
    if (threadIdx.x >= 16) return;
    x[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, x[threadIdx.x], 16);
}

__global__ void foreign_mask(float* x) { x[threadIdx.x] = __shfl_sync(0x00000001u, x[threadIdx.x], 0); }

__global__ void votes(unsigned* ballots, int* any, int* all) {
    bool odd = threadIdx.x % 2;
    ballots[threadIdx.x] = __ballot_sync(~0u, odd);
    any[threadIdx.x] = __any_sync(~0u, threadIdx.x == 40);
    all[threadIdx.x] = __all_sync(~0u, threadIdx.x != 40);
}

__global__ void shuffles(int* from_three, int* down, int* up, int* in_quarters) {
    int i = threadIdx.x;
    from_three[i] = __shfl_sync(~0u, i, 3);
    down[i] = __shfl_down_sync(~0u, i, 1);
    up[i] = __shfl_up_sync(~0u, i, 1);
    in_quarters[i] = __shfl_down_sync(~0u, i, 1, 8);
}

template <typename T>
__global__ void reduce(const T* x, long long n, T* sums) {
    __shared__ T partial[32];
    T sum = 0;
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(0xffffffffu, sum, d);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    sum = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0;
    for (int d = 16; d > 0; d /= 2) sum += __shfl_down_sync(0xffffffffu, sum, d);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
