__global__ void dynamic(float* x) {
    extern __shared__ float all[];
    x[0] = all[0];
}
