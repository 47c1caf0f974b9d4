"""Position to sample, nothing else: which window of text is sample ``i`` of a run.

Sample ``i`` is a pure function of (seed, ``i``, number of windows). Every pass over the text (an epoch) visits
every window once in a new order, shuffled over the whole text. There is no state to save or restore, so a run
continues exactly after a change of micro-batch size, reader threads or world size.

The shuffle is a Feistel network over the index bits: a bijection computed for any index by itself, where a
stored permutation would cost 8 bytes per window (for 10 billion tokens in windows of 256: 300 MB per epoch).
"""

import numpy as np
from numpy.typing import NDArray

from litmoe.splitmix import GOLDEN, MASK, mix

_ROUNDS = 8
"""Four give a pseudo-random permutation in theory (Luby and Rackoff, 1988); more cost nothing here."""

Indices = NDArray[np.int64]


def windows_of(samples: Indices, n_windows: int, seed: int) -> Indices:
    """The windows that the given samples of a run read.

    Args:
        samples: Positions in the run, from 0, any shape.
        n_windows: Windows in the training text.
        seed: The run's seed of the data order.

    Returns:
        Window numbers in ``[0, n_windows)``, of the same shape.
    """
    epochs = samples // n_windows
    result = np.empty_like(samples)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        result[chosen] = permute(samples[chosen] % n_windows, n_windows, key=_mix_int(seed, int(epoch)))
    return result


def permute(indices: Indices, n: int, key: int) -> Indices:
    """A keyed pseudo-random permutation of ``range(n)``, applied to some of its members.

    A balanced Feistel network permutes the next power of four; results of ``n`` and above are sent through again
    until they fall inside (cycle walking), which takes less than four rounds on average.
    """
    assert n > 0 and np.all((indices >= 0) & (indices < n))
    half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
    result = _feistel(indices, half_bits, key)
    while (outside := result >= n).any():
        result[outside] = _feistel(result[outside], half_bits, key)
    return result


def _feistel(indices: Indices, half_bits: int, key: int) -> Indices:
    mask = np.uint64((1 << half_bits) - 1)
    left = indices.astype(np.uint64) >> np.uint64(half_bits)
    right = indices.astype(np.uint64) & mask
    for round_number in range(_ROUNDS):
        round_key = np.uint64(_mix_int(key, round_number))
        left, right = right, left ^ (mix(right + round_key) & mask)
    return ((left << np.uint64(half_bits)) | right).astype(np.int64)


def _mix_int(key: int, counter: int) -> int:
    """A 64-bit key for one use of ``key``."""
    return mix(mix((key + (counter + 1) * GOLDEN) & MASK))
