"""SplitMix64 (Steele, Lea and Flood, 2014): neighbouring numbers become unrelated ones."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
"""The odd number nearest to 2**64 over the golden ratio, by which SplitMix64 counts."""
MASK = 2**64 - 1

Integers = TypeVar("Integers", int, NDArray[np.uint64])


def mix(x: Integers) -> Integers:
    """The finaliser of SplitMix64 on numbers from 0 to 2**64 - 1, element by element: a permutation of them."""
    z: Any = x
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    mixed: Integers = z ^ (z >> 31)
    return mixed
