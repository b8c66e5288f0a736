"""Penalty, running sums, and what metrics count."""

from __future__ import annotations

import math

import numpy as np

from ...ops import HYPER
from .losses import difference
from .table import Array, kernel, places

L1, L2, CLIP_NORM, CLIP_SCALE = (HYPER[word] for word in ("l1", "l2", "clip_norm", "clip_scale"))


@kernel(scratch="d(P):float64")
def weight_penalty(
    theta: Array, hyper: Array, penalty: Array, *, weights: int, terms: tuple[str, ...], d: Array
) -> None:
    """½ l2 Σ w² + l1 Σ |w| over the prefix of Θ that holds the weights, in float64."""
    w = np.abs(theta[:weights], out=d[:weights])
    penalty[0] = hyper.item(L1) * np.add.reduce(w) if "l1" in terms else 0.0
    if "l2" in terms:
        penalty[0] += 0.5 * hyper.item(L2) * float(np.vdot(w, w))


@kernel()
def tally(loss: Array, step: Array, penalty: Array | None, loss_sum: Array, first_bad: Array) -> None:
    """Add the batch's cost to the running sums; remember the first step whose cost is not finite."""
    cost, mass = loss.item(0), loss.item(1)
    loss_sum[0] += cost * mass
    loss_sum[1] += mass
    if penalty is not None:
        loss_sum[2] += penalty.item() * mass
    if not math.isfinite(cost) and first_bad.item() < 0:
        first_bad[0] = step.item()


@kernel(scratch="guess(B):int64 mask(B):bool")
def count_correct(y: Array, labels: Array, correct: Array, *, guess: Array, mask: Array) -> None:
    """How many rows have their largest output at the label; a row that holds NaN has none."""
    np.argmax(y, axis=1, out=guess)
    np.equal(guess, labels, out=mask)
    np.logical_and(mask, ~np.isnan(y[places(len(y)), guess]), out=mask)
    correct[0] += np.count_nonzero(mask)


@kernel()
def argmax(t: Array, labels: Array) -> None:
    """The place of the largest target, the first of several."""
    np.argmax(t, axis=1, out=labels)


@kernel(scratch="before(B,N):bool score(B,1)")
def count_top_k(y: Array, labels: Array, correct: Array, *, k: int, before: Array, score: Array) -> None:
    """How many labels have fewer than k outputs before theirs: larger, or equal and of a lower place."""
    score[:, 0] = y[places(len(y)), labels]
    np.greater(y, score, out=before)
    ahead = np.count_nonzero(before, axis=1)
    np.equal(y, score, out=before)
    np.logical_and(before, places(y.shape[1]) < labels[:, None], out=before)
    ahead += np.count_nonzero(before, axis=1)
    correct[0] += np.count_nonzero((ahead < k) & ~np.isnan(score[:, 0]))


@kernel(scratch="guess(B,N):bool wanted(B,N):bool")
def count_exact(y: Array, t: Array, correct: Array, *, threshold: float, guess: Array, wanted: Array) -> None:
    """How many rows have every output on its target's side."""
    np.greater(y, threshold, out=guess)
    np.greater(t, 0.5, out=wanted)
    np.equal(guess, wanted, out=guess)
    correct[0] += np.count_nonzero(guess.all(axis=1))


@kernel(scratch="guess(B):int64")
def confusion(y: Array, labels: Array, counts: Array, *, guess: Array) -> None:
    """One more at (the class it is, the class it is taken for) for each row."""
    np.argmax(y, axis=1, out=guess)
    np.add.at(counts, (labels, guess), 1)


@kernel(scratch="guess(B,N):bool wanted(B,N):bool")
def confusion_by_output(
    y: Array, t: Array, counts: Array, *, threshold: float, guess: Array, wanted: Array
) -> None:
    """The four counts of each output: [is it][is it taken for it]."""
    np.greater(y, threshold, out=guess)
    np.greater(t, 0.5, out=wanted)
    taken, real = np.count_nonzero(guess, axis=0), np.count_nonzero(wanted, axis=0)
    both = np.count_nonzero(np.logical_and(guess, wanted, out=guess), axis=0)
    counts[:, 1, 1] += both
    counts[:, 0, 1] += taken - both
    counts[:, 1, 0] += real - both
    counts[:, 0, 0] += len(y) - taken - real + both


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def sum_absolute(y: Array, t: Array, total: Array, *, d: Array, e: Array) -> None:
    """Σ |y − t| over all elements, and their number."""
    difference(y, t, d, e)
    total[0] += np.add.reduce(np.abs(d, out=d), axis=None)
    total[1] += d.size


@kernel(scratch="d(B,N):float64 e(B,N):float64")
def moments(y: Array, t: Array, sums: Array, *, d: Array, e: Array) -> None:
    """The batch's own moments, joined to those of the rows before: no cancellation of large sums."""
    difference(y, t, d, e)
    sums[3] += np.einsum("ij,ij->j", d, d)
    first = e[0].copy()  # Equal targets have differences of 0 exactly, which a rounded mean would not give.
    np.subtract(e, first, out=e)
    mean = e.mean(axis=0)
    np.subtract(e, mean, out=e)
    mean += first
    before, now = sums[0].copy(), float(len(y))
    moved = mean - sums[1]
    sums[0] += now
    sums[1] += moved * (now / sums[0])
    sums[2] += np.einsum("ij,ij->j", e, e) + moved * moved * (before * now / sums[0])


@kernel(scratch="d(P):float64")
def clip_by_norm(grad: Array, hyper: Array, *, d: Array) -> None:
    """s = min(1, clip_norm/‖∇C‖); NaN stays NaN."""
    np.copyto(d, grad)
    norm = math.sqrt(float(np.vdot(d, d)))
    if math.isinf(norm):  # Squares of float64 numbers overflow above 1e154.
        largest = float(np.abs(d, out=d).max())
        norm = largest * math.sqrt(float(np.vdot(np.divide(d, largest, out=d), d)))
    hyper[CLIP_SCALE] = 1.0 if norm <= hyper.item(CLIP_NORM) else hyper.item(CLIP_NORM) / norm
