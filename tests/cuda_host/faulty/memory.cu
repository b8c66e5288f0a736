// Each fault of memory and order, beside the kernel that does it right.

template <typename T>
__global__ void twice(const T* x, T* y, long long n) {
    long long i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i];
}

__global__ void write_at(float* x, long long i) {
    if (threadIdx.x == 5) x[i] = 1;
}

__global__ void read_at(const float* x, long long i, float* y) {
    if (threadIdx.x == 5) *y = x[i];
}

__global__ void write_input(const float* x) { const_cast<float*>(x)[threadIdx.x] = 7; }

__global__ void uninitialised(float* x) {
    __shared__ float first, others[32];
    if (threadIdx.x == 0) first = 1;
    __syncthreads();
    x[threadIdx.x] = first + (threadIdx.x ? others[threadIdx.x] : 0);
}

__global__ void shared_at(float* x, int i) {
    __shared__ float matrix[2][/* columns */ 8];
    float* flat = &matrix[0][0];
    flat[i] = x[0];
    __syncthreads();
    x[0] = flat[i];
}

__global__ void shared_index(float* x, int i) {
    __shared__ float some[8];
    some[i] = x[0];
    x[0] = some[i];
}

__global__ void forever(float* x) {
    while (x[threadIdx.x] == x[threadIdx.x]) x[threadIdx.x] += 1;
}

__global__ void waits_forever(volatile int* flag) {
    while (*flag == 0) __syncthreads();
}

__global__ void vector_at(const float* x, float4* y) { *y = *reinterpret_cast<const float4*>(x); }

__global__ void address(const float* x, unsigned long long* rest) {
    *rest = reinterpret_cast<unsigned long long>(x) % 256;
}

__global__ void float_sum(const float* x, float* sum) { atomicAdd(sum, x[threadIdx.x]); }

__global__ void whole_sum(const int* x, int* sum) { atomicAdd(sum, x[threadIdx.x]); }

__global__ void last_ticket(int* tickets, int* blocks) {
    __threadfence();
    if (threadIdx.x == 0 && atomicAdd(tickets, 1) == int(gridDim.x) - 1) *blocks = gridDim.x;
}

__global__ void scalars(bool yes, int a, long long b, float c, double d, double* sum) {
    *sum = yes ? d + a + b + c : 0;
}
