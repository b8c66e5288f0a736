"""Philox 4×32-10: random bits as a function of a counter and a key, the same on every backend.

A counter-based generator has no state to carry: any number of any step can be made at once, in any order, so
a dropout mask depends on (seed, step, layer) alone and a run can resume anywhere. NumPy's own Philox is 4×64,
another function.

Source: Salmon, Moraes, Dror, Shaw, Parallel random numbers: as easy as 1, 2, 3, SC11, section 3.3. The
constants are the paper's, and its authors' test vectors are in the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["keep", "key_of", "philox", "threshold"]

#: The two multipliers, and what is added to the two words of the key after each round.
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
WORD = 0xFFFFFFFF

#: Counters worked on at a time: their 64-bit words stay in a core's cache.
BLOCK = 2048


def philox(counter: Any, key: Any) -> tuple[Any, Any, Any, Any]:
    """Four random 32-bit words from four words of counter and two of key.

    Ten times: (c₀, c₁, c₂, c₃) ← (hi(M₁c₂) ⊕ c₁ ⊕ k₀, lo(M₁c₂), hi(M₀c₀) ⊕ c₃ ⊕ k₁, lo(M₀c₀)), then
    k₀ += W₀ and k₁ += W₁ (mod 2³²). Words may be Python integers or uint64 arrays.

    >>> [hex(word) for word in philox((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0, product1 = c0 * M0, c2 * M1
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & WORD,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & WORD,
        )
        k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
    return c0, c1, c2, c3


def key_of(seed: int) -> NDArray[np.int64]:
    """The two words of the key that a seed of any size stands for, apart from its other uses."""
    return np.random.SeedSequence([seed, 2]).generate_state(2, np.uint32).astype(np.int64)


def threshold(rate: float) -> int:
    """What a word has to reach for its element to be kept: P(word < threshold) = rate, to 2⁻³².

    >>> threshold(0.25) == 2**30
    True
    """
    return round(rate * 2**32)


def keep(key: NDArray[np.int64], step: int, layer: int, rate: float, mask: NDArray[np.bool_]) -> None:
    """Fill a mask: element 4b + i is word i of Philox((b, layer, step low, step high), key) ≥ rate 2³².

    Parameters
    ----------
    key : array (2,)
        From :func:`key_of`.
    step, layer : int
        Which update of the run, which dropout layer of the network.
    rate : float
        The probability of a zero.
    mask : array of bool
        Any shape, C-contiguous; its elements count in that order.
    """
    flat = mask.reshape(-1)
    least = threshold(rate)
    words = (int(key[0]), int(key[1]))
    for start in range(0, flat.size, 4 * BLOCK):
        part = flat[start : start + 4 * BLOCK]
        blocks = np.arange(start // 4, start // 4 + -(-part.size // 4), dtype=np.uint64)
        made = philox((blocks, layer, step & WORD, step >> 32), words)
        part[...] = (np.stack(np.broadcast_arrays(*made), axis=1) >= least).reshape(-1)[: part.size]
