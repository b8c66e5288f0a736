"""What each op does, as loops over arrays that Numba compiles: the bodies of the kernels.

Arrays come in the order of the op's signature, inputs first; those of any number of dimensions come flat.
An operand that is absent is None. Attributes follow by name. Numbers of a slot's own dtype are made with its
``dtype.type``, so that no float64 slips into a float32 loop.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ops import HYPER

LR, L1, L2, DECAY = (HYPER[word] for word in ("lr", "l1", "l2", "weight_decay"))
MU, RHO, BETA1, BETA2 = (HYPER[word] for word in ("momentum", "rho", "beta1", "beta2"))
EPSILON, POWER1, POWER2 = (HYPER[word] for word in ("epsilon", "beta1_power", "beta2_power"))
CLIP_NORM, CLIP_SCALE, FIRST = (HYPER[word] for word in ("clip_norm", "clip_scale", "first_step"))
L2_SUM, EPSILON_HAT = (HYPER[word] for word in ("l2_sum", "epsilon_hat"))

#: Elements of whole vectors, of any processor and dtype.
LINE = 16

# ------------------------------------------------------------------ the minibatch


def gather(X: Any, perm: Any, cursor: Any, x: Any, columns: int, first: int) -> None:
    """Rows perm[cursor + first :] of X, as many as x has room for, both flat."""
    start = cursor[0] + first
    for r in range(x.size // columns):
        source = X[perm[start + r] * columns : (perm[start + r] + 1) * columns]
        target = x[r * columns : (r + 1) * columns]
        for k in range(columns):
            target[k] = source[k]


def addresses(X: int, stride: int, perm: Any, cursor: Any, rows: Any, ahead: Any) -> None:
    """Where the rows of this minibatch lie, and those of the next as far as there are."""
    start, count = cursor[0], rows.size
    for r in range(count):
        rows[r] = X + perm[start + r] * stride
        ahead[r] = X + perm[min(start + count + r, perm.size - 1)] * stride


def one_hot(labels: Any, t: Any) -> None:
    """Labels as rows of 0 and 1; what has become no label since it was checked shows as NaN."""
    zero, one = t.dtype.type(0), t.dtype.type(1)
    for r in range(t.shape[0]):
        row = t[r]
        for j in range(row.size):
            row[j] = zero
        if 0 <= labels[r] < row.size:
            row[labels[r]] = one
        else:
            row[0] = math.nan


# ------------------------------------------------------------------ forward and backward


def activate(z: Any, a: Any, tail: Any, sigma: Any) -> None:
    """a = σ(z); without z, of a itself (a loop over two arrays that are one does not become vectors).

    What is left over fills a vector too: one by one it would take as long as all the rest.
    """
    whole = a.size // LINE * LINE
    for i in range(whole):
        a[i] = sigma(a[i] if z is None else z[i])
    left = a[whole:]
    if left.size:
        rest = left if z is None else z[whole:]
        for i in range(left.size):
            tail[i] = rest[i]
        for i in range(LINE):
            tail[i] = sigma(tail[i])
        for i in range(left.size):
            left[i] = tail[i]


def activate_grad(y: Any, delta: Any, tail: Any, prime: Any) -> None:
    """δ ← δ ⊙ σ′."""
    whole = delta.size // LINE * LINE
    for i in range(whole):
        delta[i] *= prime(y[i])
    rest = y[whole:]
    if rest.size:
        for i in range(rest.size):
            tail[i] = rest[i]
        for i in range(LINE):
            tail[LINE + i] = prime(tail[i])
        left = delta[whole:]
        for i in range(left.size):
            left[i] *= tail[LINE + i]


def add(u: Any, v: Any, y: Any) -> None:
    """y = u + v."""
    for i in range(y.size):
        y[i] = u[i] + v[i]


def copy(u: Any, v: Any, accumulate: bool) -> None:
    """v = u, or v += u."""
    for i in range(v.size):
        v[i] = v[i] + u[i] if accumulate else u[i]


def linear_grad_bias(delta: Any, grad: Any, start: int, stop: int, accumulate: bool) -> None:
    """Σ_batch δ (BP3), of some of the outputs."""
    b = grad[start:stop]
    if not accumulate:
        for j in range(b.size):
            b[j] = b.dtype.type(0)
    for r in range(delta.shape[0]):
        row = delta[r, start:stop]
        for j in range(b.size):
            b[j] += row[j]


def bias_step(delta: Any, s: Any, hyper: Any, bias: Any, start: int, stop: int) -> None:
    """b ← b − lr Σ_batch δ, of some of the outputs."""
    b = bias[start:stop]
    rate = b.dtype.type(-hyper[LR])
    for j in range(b.size):
        s[j] = b.dtype.type(0)
    for r in range(delta.shape[0]):
        row = delta[r, start:stop]
        for j in range(b.size):
            s[j] += row[j]
    for j in range(b.size):
        b[j] += rate * s[j]


def rates_of_step(hyper: Any, rates: Any, l2: bool, decay: bool) -> None:
    """−lr, and by what part of themselves penalties and decay change the weights."""
    rates[0] = -hyper[LR]
    rates[1] = -hyper[LR] * ((hyper[L2] if l2 else 0.0) + (hyper[DECAY] if decay else 0.0))


def shrink(w: Any, hyper: Any, l1: bool, l2: bool, decay: bool) -> None:
    """What penalties and decay do to the weights, before −lr ∂C/∂W is added."""
    kind = w.dtype.type
    lr, zero = kind(hyper[LR]), kind(0)
    ridge, lasso = kind(hyper[L2] if l2 else 0.0), kind(hyper[L1] if l1 else 0.0)
    keep = kind(1 - hyper[LR] * hyper[DECAY] if decay else 1.0)
    for i in range(w.size):
        v = w[i]
        step = ridge * v if l2 else zero
        if l1:
            step += lasso if v > zero else -lasso if v < zero else v * zero
        w[i] = (v * keep if decay else v) - lr * step


def rest_of_difference(v: float, m: float, d: float) -> float:
    """What rounding left out of d = v − m (Knuth's two-sum)."""
    b = d - v
    return (v - (d - b)) - (b + m)


#: What is compiled as it stands: sums of terms of any size, whose order keeps them finite or exact.
EXACT = frozenset(
    {
        "rest_of_difference",
        "binary_cross_entropy",
        "poisson",
        "softmax_cross_entropy",
        "softmax_cross_entropy_targets",
        "moments",
    }
)


def exponentials(z: Any, p: Any) -> tuple[int, float]:
    """p = exp(z − max z) in float64, 0 in the place of the largest; that place, and the sum.

    The rounding of a difference is found (Knuth's two-sum) and put back: exp makes a relative error of it.
    NaN anywhere gives NaN everywhere.
    """
    at = 0
    for j in range(z.size):
        if z[j] > z[at] or z[j] != z[j]:
            at = j
    largest = np.float64(z[at])
    rest = 0.0
    for j in range(z.size):
        v = np.float64(z[j])
        d = v - largest
        e = rest_of_difference(v, largest, d)
        x = math.exp(d)
        p[j] = x + x * (e if d > -800.0 else 0.0)
    p[at] = largest * 0.0
    for j in range(z.size):
        rest += p[j]
    return at, rest


def softmax(z: Any, a: Any, p: Any) -> None:
    """exp(z − max z), divided by its row sum."""
    for r in range(z.shape[0]):
        at, rest = exponentials(z[r], p)
        p[at] = 1.0
        row, scale = a[r], 1.0 + rest
        for j in range(row.size):
            row[j] = p[j] / scale


def softmax_grad(a: Any, delta: Any) -> None:
    """δ ← a ⊙ (δ − Σⱼ δⱼ aⱼ)."""
    for r in range(a.shape[0]):
        y, d = a[r], delta[r]
        total = a.dtype.type(0)
        for j in range(y.size):
            total += d[j] * y[j]
        for j in range(y.size):
            d[j] = y[j] * (d[j] - total)


def dropout_grad(mask: Any, delta: Any, rate: float) -> None:
    """δ ← δ ⊙ mask/(1 − rate)."""
    scale, zero = delta.dtype.type(1 / (1 - rate)), delta.dtype.type(0)
    for i in range(delta.size):
        delta[i] = (delta[i] * scale) * (delta.dtype.type(1) if mask[i] != 0 else zero)


M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
WORD, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def dropout(
    x: Any, key: Any, step: Any, y: Any, mask: Any, rate: float, least: int, layer: int, first: int
) -> None:
    """Philox 4×32-10 as in :mod:`gpunn.philox`: four elements a block, from the first block of this range."""
    one, zero = x.dtype.type(1), x.dtype.type(0)
    scale, threshold = x.dtype.type(1 / (1 - rate)), np.uint64(least)
    low, high = np.uint64(step[0]) & WORD, np.uint64(step[0]) >> HALF
    for block in range((x.size + 3) // 4):
        c0, c1, c2, c3 = np.uint64(first + block), np.uint64(layer), low, high
        k0, k1 = np.uint64(key[0]), np.uint64(key[1])
        for _ in range(10):
            p0, p1 = c0 * M0, c2 * M1
            c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & WORD, (p0 >> HALF) ^ c3 ^ k1, p0 & WORD
            k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
        for i in range(4 * block, min(4 * block + 4, x.size)):
            word = c0 if i & 3 == 0 else c1 if i & 3 == 1 else c2 if i & 3 == 2 else c3
            mask[i] = 1 if word >= threshold else 0
            y[i] = (x[i] * scale) * (one if word >= threshold else zero)


# ------------------------------------------------------------------ costs, in float64

# Each of some of the rows: its share of the cost of all, and the mass of all.


def mass_of(w: Any, rows: int) -> float:
    """Σ wᵢ, without weights the number of examples."""
    if w is None:
        return float(rows)
    total = 0.0
    for r in range(rows):
        total += w[r]
    return total


def weight_of(w: Any, r: int) -> float:
    """wᵢ, without weights 1."""
    if w is None:
        return 1.0
    return np.float64(w[r])


def squared(a: Any, t: Any, w: Any, loss: Any, delta: Any, parts: float, start: int, stop: int) -> None:
    """Cᵢ = ‖aᵢ − tᵢ‖²/parts, divided once: each division would round."""
    rows, columns = a.shape
    mass = mass_of(w, rows)
    cost = 0.0
    for r in range(start, stop):
        own = 0.0
        for j in range(columns):
            d = np.float64(a[r, j]) - np.float64(t[r, j])
            own += d * d
        cost += own * weight_of(w, r)
        if delta is not None:
            scale = 2.0 / parts * (weight_of(w, r) / mass) if mass != 0.0 else 0.0
            for j in range(columns):
                delta[r, j] = (np.float64(a[r, j]) - np.float64(t[r, j])) * scale
    loss[0] = cost / (parts * mass) if mass != 0.0 else 0.0
    loss[1] = mass


def quadratic(a: Any, t: Any, w: Any, loss: Any, delta: Any, start: int, stop: int) -> None:
    """Cᵢ = ½‖aᵢ − tᵢ‖²."""
    squared(a, t, w, loss, delta, 2.0, start, stop)


def mean_squared_error(a: Any, t: Any, w: Any, loss: Any, delta: Any, start: int, stop: int) -> None:
    """Cᵢ = ‖aᵢ − tᵢ‖²/N."""
    squared(a, t, w, loss, delta, float(a.shape[1]), start, stop)


def mean_absolute_error(a: Any, t: Any, w: Any, loss: Any, delta: Any, start: int, stop: int) -> None:
    """Cᵢ = Σⱼ |aᵢⱼ − tᵢⱼ|/N."""
    rows, columns = a.shape
    mass = mass_of(w, rows)
    cost = 0.0
    for r in range(start, stop):
        own = 0.0
        scale = weight_of(w, r) / mass / columns if mass != 0.0 else 0.0
        for j in range(columns):
            d = np.float64(a[r, j]) - np.float64(t[r, j])
            own += abs(d)
            if delta is not None:
                delta[r, j] = scale * (1.0 if d > 0.0 else -1.0 if d < 0.0 else d)
        cost += own / columns * weight_of(w, r)
    loss[0] = cost / mass if mass != 0.0 else 0.0
    loss[1] = mass


def huber(a: Any, t: Any, w: Any, loss: Any, delta: Any, start: int, stop: int) -> None:
    """q|d| − ½q² with q = min(|d|, 1): ½d² up to 1, |d| − ½ beyond."""
    rows, columns = a.shape
    mass = mass_of(w, rows)
    cost = 0.0
    for r in range(start, stop):
        own = 0.0
        scale = weight_of(w, r) / mass / columns if mass != 0.0 else 0.0
        for j in range(columns):
            d = np.float64(a[r, j]) - np.float64(t[r, j])
            size = abs(d)
            q = 1.0 if size > 1.0 else size
            own += q * size - 0.5 * q * q
            if delta is not None:
                delta[r, j] = scale * (1.0 if d > 1.0 else -1.0 if d < -1.0 else d)
        cost += own / columns * weight_of(w, r)
    loss[0] = cost / mass if mass != 0.0 else 0.0
    loss[1] = mass


def bounded(cost: float, least: float, most: float) -> float:
    """Within bounds; NaN stays."""
    cost = least if cost < least else cost
    return most if cost > most else cost


def binary_cross_entropy(
    z: Any, t: Any, w: Any, loss: Any, delta: Any, least: float, most: float, start: int, stop: int
) -> None:
    """|z| e + log(1 + exp(−|z|)), e = 1 − t for z > 0, else t: terms that cannot cancel."""
    rows, columns = z.shape
    mass = mass_of(w, rows)
    cost = 0.0
    for r in range(start, stop):
        own = 0.0
        scale = weight_of(w, r) / mass if mass != 0.0 else 0.0
        for j in range(columns):
            v, target = np.float64(z[r, j]), np.float64(t[r, j])
            e = 1.0 - target if v > 0.0 else target
            q = math.exp(-abs(v))
            own += bounded(abs(v) * e + math.log1p(q), least, most)
            if delta is not None:
                d = q / (q + 1.0) - e
                delta[r, j] = scale * (-d if v > 0.0 else d)
        cost += own * weight_of(w, r)
    loss[0] = cost / mass if mass != 0.0 else 0.0
    loss[1] = mass


def poisson(z: Any, t: Any, w: Any, loss: Any, delta: Any, start: int, stop: int) -> None:
    """exp(z) − t z + t log t − t, where 0 log 0 = 0."""
    rows, columns = z.shape
    mass = mass_of(w, rows)
    cost = 0.0
    for r in range(start, stop):
        own = 0.0
        scale = weight_of(w, r) / mass if mass != 0.0 else 0.0
        for j in range(columns):
            v, target = np.float64(z[r, j]), np.float64(t[r, j])
            e = math.exp(v)
            own += ((target * math.log(target) if target != 0.0 else 0.0) - target - target * v) + e
            if delta is not None:
                delta[r, j] = scale * (e - target)
        cost += own * weight_of(w, r)
    loss[0] = cost / mass if mass != 0.0 else 0.0
    loss[1] = mass


def softmax_cross_entropy(
    z: Any,
    labels: Any,
    w: Any,
    loss: Any,
    delta: Any,
    p: Any,
    least: float,
    most: float,
    start: int,
    stop: int,
) -> None:
    """(max z − z[label]) + log(1 + Σ of the other exponentials): terms that cannot cancel."""
    rows = z.shape[0]
    mass = mass_of(w, rows)
    cost = 0.0
    for r in range(start, stop):
        at, rest = exponentials(z[r], p)
        known = 0 <= labels[r] < z.shape[1]
        label = labels[r] if known else 0
        own = np.float64(z[r, at]) - np.float64(z[r, label]) + math.log1p(rest)
        own = np.float64(bounded(own, least, most)) if known else np.float64(math.nan)
        cost += own * weight_of(w, r)
        if delta is not None:
            scale = weight_of(w, r) / mass if mass != 0.0 else 0.0
            p[at] = 1.0
            whole = rest + 1.0
            row = delta[r]
            for j in range(row.size):
                row[j] = p[j] / whole * scale
            row[label] = (p[label] / whole - 1.0) * scale
    loss[0] = cost / mass if mass != 0.0 else 0.0
    loss[1] = mass


def softmax_cross_entropy_targets(
    z: Any, t: Any, w: Any, loss: Any, delta: Any, p: Any, start: int, stop: int
) -> None:
    """Σⱼ tⱼ (max z − zⱼ + log(1 + Σ of the other exponentials)); halves, which cannot overflow, until t."""
    rows, columns = z.shape
    mass = mass_of(w, rows)
    cost = 0.0
    for r in range(start, stop):
        at, rest = exponentials(z[r], p)
        own, total = 0.0, 0.0
        half, tail = 0.5 * np.float64(z[r, at]), 0.5 * math.log1p(rest)
        for j in range(columns):
            target = np.float64(t[r, j])
            own += (half - 0.5 * np.float64(z[r, j]) + tail) * target
            total += target
        cost += 2.0 * own * weight_of(w, r)
        if delta is not None:
            scale = weight_of(w, r) / mass if mass != 0.0 else 0.0
            p[at] = 1.0
            whole = rest + 1.0
            for j in range(columns):
                delta[r, j] = (p[j] / whole * total - np.float64(t[r, j])) * scale
    loss[0] = cost / mass if mass != 0.0 else 0.0
    loss[1] = mass


# ------------------------------------------------------------------ sums


def sum_of_costs(parts: Any, loss: Any) -> None:
    """The cost of all rows, of what several walkers found for some: pairs of cost and mass."""
    cost = 0.0
    for i in range(parts.size // 2):
        cost += parts[2 * i]
    loss[0] = cost
    loss[1] = parts[1]


def weight_penalty(theta: Any, hyper: Any, penalty: Any, weights: int, l1: bool, l2: bool) -> None:
    """½ l2 Σ w² + l1 Σ |w| over the weights."""
    total, squares = 0.0, 0.0
    for i in range(weights):
        v = abs(np.float64(theta[i]))
        total += v
        squares += v * v
    penalty[0] = (hyper[L1] * total if l1 else 0.0) + (0.5 * hyper[L2] * squares if l2 else 0.0)


def tally(loss: Any, step: Any, penalty: Any, loss_sum: Any, first_bad: Any) -> None:
    """The running sums of the cost, and the first step whose cost is not finite."""
    cost, mass = loss[0], loss[1]
    loss_sum[0] += cost * mass
    loss_sum[1] += mass
    if penalty is not None:
        loss_sum[2] += penalty[0] * mass
    if cost - cost != 0.0 and first_bad[0] < 0:
        first_bad[0] = step[0]


def largest(row: Any) -> int:
    """The place of the largest, the first of several; that of the first NaN where there is one."""
    at = 0
    for j in range(row.size):
        if row[at] == row[at] and (row[j] > row[at] or row[j] != row[j]):
            at = j
    return at


def count_correct(y: Any, labels: Any, correct: Any) -> None:
    """How many rows have their largest output at the label; one that holds NaN has none."""
    for r in range(y.shape[0]):
        at = largest(y[r])
        if at == labels[r] and y[r, at] == y[r, at]:
            correct[0] += 1.0


def argmax(t: Any, labels: Any) -> None:
    """The place of the largest target."""
    for r in range(t.shape[0]):
        labels[r] = largest(t[r])


def count_top_k(y: Any, labels: Any, correct: Any, k: int) -> None:
    """A label counts if fewer than k outputs come before its own: larger, or equal and of a lower place."""
    for r in range(y.shape[0]):
        row = y[r]
        label = labels[r] if 0 <= labels[r] < row.size else 0
        score, ahead = row[label], 0
        for j in range(row.size):
            if row[j] > score or (row[j] == score and j < label):
                ahead += 1
        if ahead < k and score == score and label == labels[r]:
            correct[0] += 1.0


def count_exact(y: Any, t: Any, correct: Any, threshold: float) -> None:
    """How many rows have every output on its target's side."""
    for r in range(y.shape[0]):
        right = True
        for j in range(y.shape[1]):
            if (y[r, j] > threshold) != (t[r, j] > 0.5):
                right = False
        if right:
            correct[0] += 1.0


def confusion(y: Any, labels: Any, counts: Any) -> None:
    """One more at (the class it is, the class it is taken for) for each row."""
    for r in range(y.shape[0]):
        if 0 <= labels[r] < counts.shape[0]:
            counts[labels[r], largest(y[r])] += 1.0


def confusion_by_output(y: Any, t: Any, counts: Any, threshold: float) -> None:
    """The four counts of each output: [is it][is it taken for it]."""
    for r in range(y.shape[0]):
        for j in range(y.shape[1]):
            counts[j, 1 if t[r, j] > 0.5 else 0, 1 if y[r, j] > threshold else 0] += 1.0


def sum_absolute(y: Any, t: Any, total: Any) -> None:
    """Σ |y − t|, and how many there are."""
    found = 0.0
    for i in range(y.size):
        found += abs(np.float64(y[i]) - np.float64(t[i]))
    total[0] += found
    total[1] += y.size


def moments(y: Any, t: Any, sums: Any) -> None:
    """The batch's own moments about its first target, joined to those of the rows before."""
    rows, columns = y.shape
    now = float(rows)
    for j in range(columns):
        first = np.float64(t[0, j])
        mean, error = 0.0, 0.0
        for r in range(rows):
            mean += np.float64(t[r, j]) - first
            d = np.float64(y[r, j]) - np.float64(t[r, j])
            error += d * d
        mean /= now
        spread = 0.0
        for r in range(rows):
            d = np.float64(t[r, j]) - first - mean
            spread += d * d
        before = sums[0, j]
        moved = mean + first - sums[1, j]
        sums[0, j] = before + now
        sums[1, j] += moved * (now / (before + now))
        sums[2, j] += spread + moved * moved * (before * now / (before + now))
        sums[3, j] += error


def clip_by_norm(grad: Any, hyper: Any) -> None:
    """min(1, clip_norm/‖∇C‖); NaN stays NaN, and squares that overflow are taken of smaller numbers."""
    square, most = 0.0, 0.0
    for i in range(grad.size):
        v = np.float64(grad[i])
        square += v * v
    norm = math.sqrt(square)
    if norm - norm != 0.0 and norm == norm:
        for i in range(grad.size):
            v = abs(np.float64(grad[i]))
            most = v if v > most else most
        square = 0.0
        for i in range(grad.size):
            v = np.float64(grad[i]) / most
            square += v * v
        norm = most * math.sqrt(square)
    hyper[CLIP_SCALE] = 1.0 if norm <= hyper[CLIP_NORM] else hyper[CLIP_NORM] / norm


# ------------------------------------------------------------------ updates


def schedule(rates: Any, step: Any, hyper: Any) -> None:
    """The learning rate of this step of the epoch."""
    hyper[LR] = rates[step[0] - int(hyper[FIRST])]


def l2_of_batch(loss: Any, hyper: Any) -> None:
    """The penalty's factor for a batch of that mass."""
    hyper[L2] = hyper[L2_SUM] / loss[1] if loss[1] != 0.0 else 0.0


def count_examples(w: Any, loss: Any) -> None:
    """What a minibatch counts in the mean of an epoch: its examples."""
    loss[1] = w.size


def epsilon_of_step(hyper: Any) -> None:
    """ε̂ as the ε of the form with m̂ and v̂."""
    hyper[EPSILON] = hyper[EPSILON_HAT] / math.sqrt(1.0 - hyper[POWER2])


def direction(g: Any, v: Any, scale: Any, ridge: Any, lasso: Any, clip: bool, l1: bool, l2: bool) -> Any:
    """The clipped gradient, and that of the penalties of a weight v."""
    found = g * scale if clip else g
    if l2:
        found = found + ridge * v
    if l1:
        found = found + (lasso if v > 0 else -lasso if v < 0 else v * lasso)
    return found


def sgd(grad: Any, hyper: Any, theta: Any, weights: int, l1: bool, l2: bool, decay: bool, clip: bool) -> None:
    """θ ← θ − lr g."""
    kind = theta.dtype.type
    lr, scale, ridge, lasso = kind(hyper[LR]), kind(hyper[CLIP_SCALE]), kind(hyper[L2]), kind(hyper[L1])
    keep = kind(1 - hyper[LR] * hyper[DECAY])
    w = theta[:weights]
    for i in range(w.size):
        g = direction(grad[i], w[i], scale, ridge, lasso, clip, l1, l2)
        w[i] = (w[i] * keep if decay else w[i]) - lr * g
    w, rest = theta[weights:], grad[weights:]
    for i in range(w.size):
        w[i] -= lr * (rest[i] * scale if clip else rest[i])


def momentum(
    grad: Any,
    hyper: Any,
    velocity: Any,
    theta: Any,
    weights: int,
    l1: bool,
    l2: bool,
    decay: bool,
    clip: bool,
    ahead: bool,
) -> None:
    """v ← μ v − lr g, θ ← θ + v; looking ahead (Nesterov), θ ← θ + μ v − lr g."""
    kind = theta.dtype.type
    lr, scale, ridge, lasso = kind(hyper[LR]), kind(hyper[CLIP_SCALE]), kind(hyper[L2]), kind(hyper[L1])
    keep, mu = kind(1 - hyper[LR] * hyper[DECAY]), kind(hyper[MU])
    for i in range(theta.size):
        inside = i < weights
        old = theta[i]
        g = direction(grad[i], old, scale, ridge, lasso, clip, l1 and inside, l2 and inside)
        v = mu * velocity[i] - lr * g
        velocity[i] = v
        old = old * keep if decay and inside else old
        theta[i] = old + (mu * v - lr * g if ahead else v)


def adam(
    grad: Any,
    hyper: Any,
    m: Any,
    v: Any,
    theta: Any,
    weights: int,
    l1: bool,
    l2: bool,
    decay: bool,
    clip: bool,
) -> None:
    """Algorithm 1 of the paper, with β₁ᵗ and β₂ᵗ from the hyper slot."""
    kind = theta.dtype.type
    scale, ridge, lasso = kind(hyper[CLIP_SCALE]), kind(hyper[L2]), kind(hyper[L1])
    keep, epsilon = kind(1 - hyper[LR] * hyper[DECAY]), kind(hyper[EPSILON])
    beta1, beta2, new1, new2 = (
        kind(hyper[BETA1]),
        kind(hyper[BETA2]),
        kind(1 - hyper[BETA1]),
        kind(1 - hyper[BETA2]),
    )
    rate, unbias = kind(hyper[LR] / (1 - hyper[POWER1])), kind(1 / (1 - hyper[POWER2]))
    for i in range(theta.size):
        inside = i < weights
        old = theta[i]
        g = direction(grad[i], old, scale, ridge, lasso, clip, l1 and inside, l2 and inside)
        first = beta1 * m[i] + new1 * g
        second = beta2 * v[i] + new2 * (g * g)
        m[i], v[i] = first, second
        old = old * keep if decay and inside else old
        theta[i] = old - rate * (first / (math.sqrt(second * unbias) + epsilon))


def adaptive(
    grad: Any,
    hyper: Any,
    v: Any,
    theta: Any,
    weights: int,
    l1: bool,
    l2: bool,
    decay: bool,
    clip: bool,
    forget: bool,
) -> None:
    """RMSprop, v ← ρ v + (1 − ρ) g², or without forgetting Adagrad, v ← v + g²; θ ← θ − lr g/(√v + ε)."""
    kind = theta.dtype.type
    lr, scale, ridge, lasso = kind(hyper[LR]), kind(hyper[CLIP_SCALE]), kind(hyper[L2]), kind(hyper[L1])
    keep, epsilon = kind(1 - hyper[LR] * hyper[DECAY]), kind(hyper[EPSILON])
    past, new = kind(hyper[RHO] if forget else 1.0), kind(1 - hyper[RHO] if forget else 1.0)
    for i in range(theta.size):
        inside = i < weights
        old = theta[i]
        g = direction(grad[i], old, scale, ridge, lasso, clip, l1 and inside, l2 and inside)
        second = past * v[i] + new * (g * g)
        v[i] = second
        old = old * keep if decay and inside else old
        theta[i] = old - lr * (g / (math.sqrt(second) + epsilon))


def advance(cursor: Any, step: Any, hyper: Any, rows: int) -> None:
    """Move on to the next minibatch."""
    cursor[0] += rows
    step[0] += 1
    if hyper[POWER1] != 0 or hyper[POWER2] != 0:
        hyper[POWER1] *= hyper[BETA1]
        hyper[POWER2] *= hyper[BETA2]
