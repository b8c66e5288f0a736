// CUDA C++ as g++ sees it: one fiber for each thread, blocks one after another. What a kernel file may use.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) alignas(n)

#define CUDA_HOST_VECTORS(T, name, align2, align4)                            \
    struct alignas(align2) name##2 { T x, y; };                               \
    struct name##3 { T x, y, z; };                                            \
    struct alignas(align4) name##4 { T x, y, z, w; };                         \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }        \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_HOST_VECTORS(char, char, 2, 4)
CUDA_HOST_VECTORS(unsigned char, uchar, 2, 4)
CUDA_HOST_VECTORS(short, short, 4, 8)
CUDA_HOST_VECTORS(unsigned short, ushort, 4, 8)
CUDA_HOST_VECTORS(int, int, 8, 16)
CUDA_HOST_VECTORS(unsigned, uint, 8, 16)
CUDA_HOST_VECTORS(long long, longlong, 16, 16)
CUDA_HOST_VECTORS(unsigned long long, ulonglong, 16, 16)
CUDA_HOST_VECTORS(float, float, 8, 16)
CUDA_HOST_VECTORS(double, double, 16, 16)
#undef CUDA_HOST_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_host {

using u64 = unsigned long long;

enum class Exchange { sync, shuffle, ballot };

void barrier(const char* file, int line);
u64 warp(const char* operation, Exchange, const char* file, int line, unsigned mask, u64 value, int source);
int lane();
void note_atomic(const void* address, size_t size, void* caller);
[[noreturn]] void fault(const char* format, ...);

// Memory with a guard zone on each side.
struct Guarded {
    char *block = nullptr, *data = nullptr;
    size_t size = 0, capacity = 0;
};

struct SharedSlot {
    const char *name, *file;
    int line;
    size_t size;
    u64 block = 0;
    Guarded memory{};
};
extern u64 blocks_started;
void claim(SharedSlot&);

// A local static of the function that declares it: one variable for each declaration and instantiation.
template <typename T>
struct Shared {
    SharedSlot slot;
    constexpr Shared(const char* name, const char* file, int line) : slot{name, file, line, sizeof(T)} {}
    T& here() {
        if (slot.block != blocks_started) claim(slot);
        return *reinterpret_cast<T*>(slot.memory.data);
    }
};

struct Parameter {
    bool pointer, constant;
    unsigned size;
    char kind;
};

struct Instance {
    const char* name;
    const Parameter* parameters;
    unsigned count;
    void (*invoke)(void* const*);
};

template <typename T>
constexpr char kind_of() {
    return std::is_same_v<T, bool>           ? 'b'
           : std::is_floating_point_v<T>     ? 'f'
           : !std::is_integral_v<T>          ? 'x'
           : std::is_signed_v<T>             ? 'i'
                                             : 'u';
}

template <typename T>
constexpr Parameter parameter() {
    if constexpr (std::is_pointer_v<T>) {
        using Element = std::remove_pointer_t<T>;
        using Plain = std::remove_cv_t<Element>;
        if constexpr (std::is_void_v<Plain>) return {true, std::is_const_v<Element>, 1, 'u'};
        else return {true, std::is_const_v<Element>, sizeof(Plain), kind_of<Plain>()};
    } else {
        static_assert(std::is_arithmetic_v<T>, "a kernel's arguments are pointers and scalars");
        return {false, true, sizeof(T), kind_of<T>()};
    }
}

template <auto kernel, typename Signature = decltype(kernel)>
struct Invoker;

template <auto kernel, typename... A>
struct Invoker<kernel, void (*)(A...)> {
    static constexpr Parameter parameters[sizeof...(A) + 1] = {parameter<A>()...};
    template <size_t... i>
    static void spread(void* const* arguments, std::integer_sequence<size_t, i...>) {
        kernel(*static_cast<A*>(arguments[i])...);
    }
    static void invoke(void* const* arguments) { spread(arguments, std::index_sequence_for<A...>{}); }
    static constexpr Instance instance(const char* name) { return {name, parameters, sizeof...(A), invoke}; }
};

extern const Instance* const instances;

template <typename To, typename From>
To bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    memcpy(&result, &value, sizeof(To));
    return result;
}

template <typename T>
T shuffle(const char* operation, const char* file, int line, unsigned mask, T value, int source) {
    static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4, "CUDA shuffles scalars of 4 and 8 bytes");
    u64 wide = 0;
    memcpy(&wide, &value, sizeof(T));
    wide = warp(operation, Exchange::shuffle, file, line, mask, wide, source);
    memcpy(&value, &wide, sizeof(T));
    return value;
}

template <typename T>
struct Same {
    using type = T;
};

template <typename T, typename... Allowed>
constexpr bool one_of = (std::is_same_v<T, Allowed> || ...);

}  // namespace cuda_host

#define CUDA_HOST_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_HOST_HERE) { cuda_host::barrier(file, line); }
inline void __syncwarp(unsigned mask = ~0u, CUDA_HOST_HERE) {
    cuda_host::warp("__syncwarp", cuda_host::Exchange::sync, file, line, mask, 0, 0);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_HOST_HERE) {
    return cuda_host::warp("__ballot_sync", cuda_host::Exchange::ballot, file, line, mask, !!predicate, 0);
}
inline int __any_sync(unsigned mask, int predicate, CUDA_HOST_HERE) {
    return cuda_host::warp("__any_sync", cuda_host::Exchange::ballot, file, line, mask, !!predicate, 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_HOST_HERE) {
    return cuda_host::warp("__all_sync", cuda_host::Exchange::ballot, file, line, mask, !predicate, 0) == 0;
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_HOST_HERE) {
    int first = cuda_host::lane() & ~(width - 1);
    return cuda_host::shuffle("__shfl_sync", file, line, mask, value, first + (source & (width - 1)));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_HOST_HERE) {
    int lane = cuda_host::lane();
    int source = (lane & (width - 1)) + delta < unsigned(width) ? lane + delta : lane;
    return cuda_host::shuffle("__shfl_down_sync", file, line, mask, value, source);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_HOST_HERE) {
    int lane = cuda_host::lane();
    int source = unsigned(lane & (width - 1)) >= delta ? lane - delta : lane;
    return cuda_host::shuffle("__shfl_up_sync", file, line, mask, value, source);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUDA_HOST_HERE) {
    int lane = cuda_host::lane(), source = lane ^ bits;
    return cuda_host::shuffle("__shfl_xor_sync", file, line, mask, value,
                              source <= (lane | (width - 1)) ? source : lane);
}
#undef CUDA_HOST_HERE

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
[[noreturn]] inline void __trap() { cuda_host::fault("called __trap()"); }

// Threads take turns only where they wait, so a plain update is atomic. It is noted as one, and not as the read and
// the write that -fsanitize=thread would note.
#define CUDA_HOST_ATOMIC_FUNCTION template <typename T> __attribute__((noinline, no_sanitize_thread))
#define CUDA_HOST_ATOMIC(name, update, ...)                                                               \
    CUDA_HOST_ATOMIC_FUNCTION T name(T* address, typename cuda_host::Same<T>::type value) {               \
        static_assert(cuda_host::one_of<T, __VA_ARGS__>, "CUDA has no " #name " for this type");          \
        cuda_host::note_atomic(address, sizeof(T), __builtin_return_address(0));                          \
        T old = *address;                                                                                 \
        *address = update;                                                                                \
        return old;                                                                                       \
    }
CUDA_HOST_ATOMIC(atomicAdd, old + value, int, unsigned, unsigned long, unsigned long long, float, double)
CUDA_HOST_ATOMIC(atomicSub, old - value, int, unsigned)
CUDA_HOST_ATOMIC(atomicExch, value, int, unsigned, unsigned long long, float)
CUDA_HOST_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, long long, unsigned long long)
CUDA_HOST_ATOMIC(atomicMax, value > old ? value : old, int, unsigned, long long, unsigned long long)
CUDA_HOST_ATOMIC(atomicAnd, old & value, int, unsigned, unsigned long long)
CUDA_HOST_ATOMIC(atomicOr, old | value, int, unsigned, unsigned long long)
CUDA_HOST_ATOMIC(atomicXor, old ^ value, int, unsigned, unsigned long long)
CUDA_HOST_ATOMIC(atomicInc, old >= value ? 0 : old + 1, unsigned)
CUDA_HOST_ATOMIC_FUNCTION T atomicCAS(T* address, typename cuda_host::Same<T>::type expected,
                                      typename cuda_host::Same<T>::type value) {
    static_assert(cuda_host::one_of<T, int, unsigned, unsigned long long, unsigned short>);
    cuda_host::note_atomic(address, sizeof(T), __builtin_return_address(0));
    T old = *address;
    if (old == expected) *address = value;
    return old;
}
#undef CUDA_HOST_ATOMIC
#undef CUDA_HOST_ATOMIC_FUNCTION

template <typename T>
T __ldg(const T* address) { return *address; }

inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t(a) * b) >> 32; }
inline int __mulhi(int a, int b) { return (int64_t(a) * b) >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (static_cast<unsigned __int128>(a) * b) >> 64;
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __clz(int value) { return value ? __builtin_clz(value) : 32; }
inline int __clzll(long long value) { return value ? __builtin_clzll(value) : 64; }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }

inline int __float_as_int(float value) { return cuda_host::bits<int>(value); }
inline unsigned __float_as_uint(float value) { return cuda_host::bits<unsigned>(value); }
inline float __int_as_float(int value) { return cuda_host::bits<float>(value); }
inline float __uint_as_float(unsigned value) { return cuda_host::bits<float>(value); }
inline long long __double_as_longlong(double value) { return cuda_host::bits<long long>(value); }
inline double __longlong_as_double(long long value) { return cuda_host::bits<double>(value); }
inline float __int2float_rn(int value) { return value; }
inline float __uint2float_rn(unsigned value) { return value; }
inline double __uint2double_rn(unsigned value) { return value; }
inline float __double2float_rn(double value) { return value; }
inline double __ll2double_rn(long long value) { return value; }
inline float __ll2float_rn(long long value) { return value; }
inline float __ull2float_rn(unsigned long long value) { return value; }
inline double __ull2double_rn(unsigned long long value) { return value; }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __drcp_rn(double a) { return 1 / a; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __expf(float a) { return expf(a); }
inline float __logf(float a) { return logf(a); }
inline float __powf(float a, float b) { return powf(a, b); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1) : 0; }
inline double rsqrt(double a) { return 1 / sqrt(a); }
inline float rsqrt(float a) { return 1 / sqrtf(a); }
inline float rsqrtf(float a) { return 1 / sqrtf(a); }
inline double rcbrt(double a) { return 1 / cbrt(a); }
inline float rcbrtf(float a) { return 1 / cbrtf(a); }
inline double sinpi(double a) { return sin(M_PI * fmod(a, 2.0)); }
inline float sinpi(float a) { return sinpi(double(a)); }
inline float sinpif(float a) { return sinpi(double(a)); }
inline double cospi(double a) { return cos(M_PI * fmod(a, 2.0)); }
inline float cospi(float a) { return cospi(double(a)); }
inline float cospif(float a) { return cospi(double(a)); }
inline void sincos(float a, float* sine, float* cosine) { sincosf(a, sine, cosine); }
inline double normcdf(double a) { return 0.5 * erfc(-a * M_SQRT1_2); }
inline float normcdf(float a) { return normcdf(double(a)); }
inline float normcdff(float a) { return normcdf(double(a)); }

template <typename A, typename B, typename C = std::common_type_t<A, B>,
          typename = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
constexpr C min(A a, B b) {
    if constexpr (std::is_floating_point_v<C>) return fmin(C(a), C(b));
    else return C(b) < C(a) ? C(b) : C(a);
}
template <typename A, typename B, typename C = std::common_type_t<A, B>,
          typename = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
constexpr C max(A a, B b) {
    if constexpr (std::is_floating_point_v<C>) return fmax(C(a), C(b));
    else return C(a) < C(b) ? C(b) : C(a);
}
