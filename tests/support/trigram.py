"""An interpolated trigram model: what counting tokens alone achieves."""

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]


def trigram_loss(train: Tokens, val: Tokens, vocab_size: int) -> float:
    """Mean loss in nats per token of ``val`` under a trigram model of ``train``.

    Jelinek-Mercer interpolation of trigram, bigram, unigram and uniform estimates. Contexts are grouped by how
    often they occur; each group has its own weights, fitted by expectation maximisation on the last tenth of
    ``train``.
    """
    cut = len(train) * 9 // 10
    fitted = _weights(*_estimates(train[:cut], train[cut:], vocab_size))
    estimates, classes = _estimates(train, val, vocab_size)
    return float(-np.log((fitted[classes] * estimates).sum(axis=1)).mean())


def _estimates(train: Tokens, text: Tokens, V: int) -> tuple[NDArray[np.float64], Tokens]:
    """Four probabilities for every token of ``text``, (T, 4), and the group of its context, (T,)."""
    padded = np.concatenate([[0, 0], text])
    first, second, third = padded[:-2], padded[1:-1], padded[2:]

    def count(keys: Tokens, of: Tokens) -> Tokens:
        known, counts = np.unique(keys, return_counts=True)
        at = np.searchsorted(known, of).clip(max=len(known) - 1)
        return np.where(known[at] == of, counts[at], 0)

    bigrams, trigrams = train[:-1] * V + train[1:], (train[:-2] * V + train[1:-1]) * V + train[2:]
    seen_pair = count(bigrams, first * V + second)
    seen_one = count(train, second)
    estimates = np.stack(
        [
            count(trigrams, (first * V + second) * V + third) / np.maximum(seen_pair, 1),
            count(bigrams, second * V + third) / np.maximum(seen_one, 1),
            count(train, third) / len(train),
            np.full(len(text), 1 / V),
        ],
        axis=1,
    )
    return estimates, np.minimum(np.log2(seen_pair + 1).astype(np.int64), 9)


def _weights(estimates: NDArray[np.float64], classes: Tokens) -> NDArray[np.float64]:
    weights = np.full((10, 4), 0.25)
    for _ in range(30):
        shares = weights[classes] * estimates
        shares /= shares.sum(axis=1, keepdims=True)
        for k in range(10):
            if (classes == k).any():
                weights[k] = shares[classes == k].mean(axis=0)
    return weights
