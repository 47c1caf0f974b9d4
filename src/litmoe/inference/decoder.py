"""What text generation asks of a model: read prompts, then one more token for every sequence.

Shape suffixes: B sequences, T tokens of a prompt, V vocabulary.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Decoder(ABC):
    """A model with a cache of keys and values for B sequences."""

    device: torch.device
    context: int
    """Tokens that it can look at."""
    vocabulary: int
    """Tokens that it can choose from, padding included."""

    @abstractmethod
    def open(self, batch_size: int, longest: int) -> None:
        """Make room for ``batch_size`` sequences of at most ``longest`` tokens."""

    @abstractmethod
    def read(self, prompt_T: Tensor) -> Tensor:
        """Read a prompt into row 0 of the cache; returns the logits of what follows, (V,)."""

    @abstractmethod
    def copy(self, row: int, length: int) -> None:
        """Copy the first ``length`` tokens of row 0 of the cache to another row."""

    @abstractmethod
    def step(self, tokens_B: Tensor, position: int | Tensor) -> Tensor:
        """Logits of what follows, (B, V).

        Args:
            tokens_B: the last token of each sequence.
            position: where it stands: the same for all (an int), or one for each (B,).
        """

    @abstractmethod
    def close(self) -> None:
        """Free the cache, and put back what was changed. May be called without :meth:`open`."""
