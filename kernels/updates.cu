// Updates over the whole flat Θ, and the counters that move a step on.
//
// What changes between steps is read from the hyper slot; weights, to which penalties and decay apply, come
// before biases.
#include "hyper.cuh"
#include "real.cuh"

// g = the clipped gradient and that of the penalties, and w after its decoupled decay.
template <typename T>
struct Direction {
    T scale, ridge, lasso, keep;
    long long weights;
    int terms;

    __device__ Direction(const double* words, long long weights, int terms) : weights(weights), terms(terms) {
        scale = terms & term::clip ? T(words[hyper::clip_scale]) : T(1);
        ridge = terms & term::l2 ? T(words[hyper::l2]) : T(0);
        lasso = terms & term::l1 ? T(words[hyper::l1]) : T(0);
        keep = terms & term::decay ? T(1.0 - words[hyper::lr] * words[hyper::weight_decay]) : T(1);
    }

    __device__ T gradient(T g, T w, long long i) const {
        if (terms & term::clip) g *= scale;
        if (i >= weights) return g;
        if (terms & term::l2) g += ridge * w;
        if (terms & term::l1) g += w > T(0) ? lasso : w < T(0) ? -lasso : w * lasso;
        return g;
    }

    __device__ T decayed(T w, long long i) const { return i < weights ? w * keep : w; }
};

// θ ← θ − lr g.
template <typename T>
__global__ void sgd(const T* grad, const double* words, T* theta, long long n, long long weights, int terms) {
    const Direction<T> along(words, weights, terms);
    const T lr = words[hyper::lr];
    each_pack<WIDTH<T>>(n, aligned(grad, theta), [=](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        const Pack<T, W> g = load<W>(grad + i);
        Pack<T, W> w = load<W>(theta + i);
#pragma unroll
        for (int k = 0; k < W; ++k)
            w.at[k] = along.decayed(w.at[k], i + k) - lr * along.gradient(g.at[k], w.at[k], i + k);
        store(theta + i, w);
    });
}

// The α and β of θ ← α ∇C + β θ, which a product does that makes ∇C: −lr and 1 − lr decay − lr l2; one thread.
template <typename T>
__global__ void fold_rates(const double* words, T* rates, int terms) {
    const double lr = words[hyper::lr];
    rates[0] = -lr;
    rates[1] = 1.0 - lr * ((terms & term::decay ? words[hyper::weight_decay] : 0.0) +
                           (terms & term::l2 ? words[hyper::l2] : 0.0));
}

// v ← μ v − lr g, θ ← θ + v; AHEAD (Nesterov): θ ← θ + μ v − lr g.
template <typename T, bool AHEAD>
__global__ void momentum(const T* grad, const double* words, T* velocity, T* theta, long long n,
                         long long weights, int terms) {
    const Direction<T> along(words, weights, terms);
    const T lr = words[hyper::lr], mu = words[hyper::momentum];
    each_pack<WIDTH<T>>(n, aligned(grad, velocity, theta), [=](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        const Pack<T, W> g = load<W>(grad + i);
        Pack<T, W> v = load<W>(velocity + i), w = load<W>(theta + i);
#pragma unroll
        for (int k = 0; k < W; ++k) {
            const T step = lr * along.gradient(g.at[k], w.at[k], i + k);
            v.at[k] = mu * v.at[k] - step;
            w.at[k] = along.decayed(w.at[k], i + k) + (AHEAD ? mu * v.at[k] - step : v.at[k]);
        }
        store(velocity + i, v);
        store(theta + i, w);
    });
}

// Adam, algorithm 1: θ ← θ − lr m̂/(√v̂ + ε).
template <typename T>
__global__ void adam(const T* grad, const double* words, T* first, T* second, T* theta, long long n,
                     long long weights, int terms) {
    const Direction<T> along(words, weights, terms);
    const T beta1 = words[hyper::beta1], new1 = 1.0 - words[hyper::beta1];
    const T beta2 = words[hyper::beta2], new2 = 1.0 - words[hyper::beta2];
    const T rate = words[hyper::lr] / (1.0 - words[hyper::beta1_power]);
    const T unbias = 1.0 / (1.0 - words[hyper::beta2_power]), epsilon = words[hyper::epsilon];
    each_pack<WIDTH<T>>(n, aligned(grad, first, second, theta), [=](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        const Pack<T, W> grads = load<W>(grad + i);
        Pack<T, W> m = load<W>(first + i), v = load<W>(second + i), w = load<W>(theta + i);
#pragma unroll
        for (int k = 0; k < W; ++k) {
            const T g = along.gradient(grads.at[k], w.at[k], i + k);
            m.at[k] = beta1 * m.at[k] + new1 * g;
            v.at[k] = beta2 * v.at[k] + new2 * (g * g);
            w.at[k] = along.decayed(w.at[k], i + k) - rate * (m.at[k] / (sqrt(v.at[k] * unbias) + epsilon));
        }
        store(first + i, m);
        store(second + i, v);
        store(theta + i, w);
    });
}

// RMSprop, v ← ρ v + (1 − ρ) g²; not FORGET (Adagrad), v ← v + g²; θ ← θ − lr g/(√v + ε).
template <typename T, bool FORGET>
__global__ void adaptive(const T* grad, const double* words, T* second, T* theta, long long n,
                         long long weights, int terms) {
    const Direction<T> along(words, weights, terms);
    const T past = FORGET ? words[hyper::rho] : 1.0, fresh = FORGET ? 1.0 - words[hyper::rho] : 1.0;
    const T lr = words[hyper::lr], epsilon = words[hyper::epsilon];
    each_pack<WIDTH<T>>(n, aligned(grad, second, theta), [=](auto width, long long i) {
        constexpr int W = decltype(width)::value;
        const Pack<T, W> grads = load<W>(grad + i);
        Pack<T, W> v = load<W>(second + i), w = load<W>(theta + i);
#pragma unroll
        for (int k = 0; k < W; ++k) {
            const T g = along.gradient(grads.at[k], w.at[k], i + k);
            v.at[k] = past * v.at[k] + fresh * (g * g);
            w.at[k] = along.decayed(w.at[k], i + k) - lr * (g / (sqrt(v.at[k]) + epsilon));
        }
        store(second + i, v);
        store(theta + i, w);
    });
}

// lr = the rate of this step of the epoch; one thread.
__global__ void schedule(const double* rates, const long long* step, double* words) {
    words[hyper::lr] = rates[*step - static_cast<long long>(words[hyper::first_step])];
}

// l2 = l2_sum/Σw; one thread.
__global__ void l2_of_batch(const double* loss, double* words) {
    words[hyper::l2] = loss[1] != 0.0 ? words[hyper::l2_sum] / loss[1] : 0.0;
}

// Σw = B; one thread.
__global__ void count_examples(double* loss, int rows) { loss[1] = rows; }

// ε = ε̂/√(1 − β₂ᵗ); one thread.
__global__ void epsilon_of_step(double* words) {
    words[hyper::epsilon] = words[hyper::epsilon_hat] / sqrt(1.0 - words[hyper::beta2_power]);
}

// The next minibatch; one thread.
__global__ void advance(long long* cursor, long long* step, double* words, long long rows) {
    *cursor += rows;
    *step += 1;
    words[hyper::beta1_power] *= words[hyper::beta1];
    words[hyper::beta2_power] *= words[hyper::beta2];
}
