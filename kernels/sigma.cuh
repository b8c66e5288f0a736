// The table of σ and σ′, each once: value(z) is σ(z); prime takes what the activation keeps, a or z.
//
// The formulas, and why they are written so, are those of gpunn/activations.py.
#pragma once

// A product that is rounded: what follows finds out what the rounding left out, so no sum may be fused to it.
__device__ __forceinline__ float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double rounded_product(double a, double b) { return __dmul_rn(a, b); }

namespace sigma {

struct identity {
    template <typename T> static __device__ T value(T z) { return z; }
    template <typename T> static __device__ T prime(T) { return T(1); }
};

struct sigmoid {
    template <typename T> static __device__ T value(T z) {
        const T e = ::exp(-fabs(z));
        return (z >= T(0) ? T(1) : e) / (T(1) + e);
    }
    template <typename T> static __device__ T prime(T a) { return a * (T(1) - a); }
};

struct tanh {
    template <typename T> static __device__ T value(T z) { return ::tanh(z); }
    template <typename T> static __device__ T prime(T a) { return (T(1) - a) * (T(1) + a); }
};

struct relu {
    template <typename T> static __device__ T value(T z) { return z <= T(0) ? T(0) : z; }
    template <typename T> static __device__ T prime(T a) { return a > T(0) ? T(1) : a * T(0); }
};

struct leaky_relu {
    template <typename T> static __device__ T value(T z) { return z > T(0) ? z : T(0.01) * z; }
    template <typename T> static __device__ T prime(T a) {
        return a > T(0) ? T(1) : a <= T(0) ? T(0.01) : a;
    }
};

struct elu {
    template <typename T> static __device__ T value(T z) { return z > T(0) ? z : expm1(z); }
    template <typename T> static __device__ T prime(T a) { return a > T(0) ? T(1) : a + T(1); }
};

struct exp {
    template <typename T> static __device__ T value(T z) { return ::exp(z); }
    template <typename T> static __device__ T prime(T a) { return a; }
};

struct softplus {
    template <typename T> static __device__ T value(T z) {
        return (z > T(0) ? z : T(0)) + log1p(::exp(-fabs(z)));
    }
    template <typename T> static __device__ T prime(T a) { return -expm1(-a); }
};

struct hard_sigmoid {
    template <typename T> static __device__ T value(T z) {
        const T a = (z + T(3)) / T(6);
        return a < T(0) ? T(0) : a > T(1) ? T(1) : a;
    }
    template <typename T> static __device__ T prime(T a) {
        return a > T(0) && a < T(1) ? T(1) / T(6) : a * T(0);
    }
};

struct gelu {
    template <typename T> static __device__ T value(T z) {
        const T sqrt_half = T(0.7071067811865476);
        if (!(z < T(-1))) return z * (T(0.5) * erfc(-z * sqrt_half));
        if (z < T(-40)) return T(-0.0);
        const T r = fmod(z, T(0.015625)), h = z - r;
        if (z < T(-12)) {
            const T t = T(1) / (z * z);
            T series = T(1);
            for (T odd = T(29); odd > T(0); odd -= T(2)) series = T(1) - odd * t * series;
            const T density = T(0.3989422804014327) * series * ::exp(T(-0.5) * r * (z + h));
            return -::exp(T(-0.5) * h * h) * density;
        }
        const T x = rounded_product(-z, sqrt_half);
        const T lost = ((-h * T(0.70703125) - x) - r * T(0.70703125)) - z * T(7.553118654752440e-05);
        const T a = z * (T(0.5) * erfc(x));
        return a - a * (lost * (T(2) * x + T(1) / (x + T(0.5))));
    }
    template <typename T> static __device__ T prime(T z) {
        return T(0.5) * erfc(-z * T(0.7071067811865476)) +
               z * ::exp(T(-0.5) * z * z) * T(0.3989422804014327);
    }
};

struct silu {
    template <typename T> static __device__ T value(T z) {
        if (z < T(-80)) {
            const T e = ::exp(T(0.5) * z);
            return z * e * e;
        }
        return z / (T(1) + ::exp(-z));
    }
    template <typename T> static __device__ T prime(T z) {
        const T s = sigmoid::value(z);
        return s * (T(1) + z * (T(1) - s));
    }
};

}  // namespace sigma
