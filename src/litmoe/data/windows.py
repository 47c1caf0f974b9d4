"""Windows of text as batches: training windows in the run's order, validation windows in their own.

Assembling a batch is a copy of a few kilobytes out of a memory map, so threads do it: they start at once on every
system, share the map, and need no guard around the user's script, as spawned worker processes would.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from litmoe.data.sampler import Indices, windows_of
from litmoe.data.token_store import TokenStore

Batch = tuple[Tensor, Tensor]
"""(inputs_BT, targets_BT), int64: the target of a token is the token after it."""

_AHEAD_PER_WORKER = 4  # batches that each thread may be ahead: some 100 KB


@dataclass(frozen=True)
class Windows:
    """A token store cut into windows of ``length`` tokens; each reads one token more, its last target."""

    store: TokenStore
    length: int

    def __len__(self) -> int:
        return (self.store.n_tokens - 1) // self.length

    def batch(self, windows: Indices) -> Batch:
        """The given windows as (inputs_BT, targets_BT).

        Raises:
            DataError: The tokens' file has been cut short, or holds ids that are no tokens.
        """
        ids_BT = np.stack(
            [self.store.read(w * self.length, (w + 1) * self.length + 1) for w in windows.tolist()]
        )
        both = torch.from_numpy(ids_BT.astype(np.int64))
        return both[:, :-1], both[:, 1:]

    def spread(self, count: int) -> Indices:
        """At most ``count`` windows, evenly spread over the text, the same ones every time."""
        count = min(count, len(self))
        return np.arange(count, dtype=np.int64) * len(self) // count


def training_batches(
    windows: Windows, *, seed: int, start: int, batch_size: int, rank: int, world_size: int, num_workers: int
) -> Generator[Batch, None, None]:
    """This rank's micro-batches from sample ``start`` on, without end.

    All ranks together read the samples in order: micro-batch ``j`` of rank ``r`` holds the ``batch_size`` samples
    from ``start + (j * world_size + r) * batch_size``. Closing the iterator stops its threads.
    """

    def read(number: int) -> Batch:
        first = start + (number * world_size + rank) * batch_size
        samples = np.arange(first, first + batch_size, dtype=np.int64)
        return windows.batch(windows_of(samples, len(windows), seed))

    number = 0
    if num_workers == 0:
        while True:
            yield read(number)
            number += 1
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="litmoe-data")
    try:
        ahead = deque(pool.submit(read, n) for n in range(num_workers * _AHEAD_PER_WORKER))
        number = len(ahead)
        while True:
            yield ahead.popleft().result()
            ahead.append(pool.submit(read, number))
            number += 1
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
