"""The data module: folders of text behind LitGPT's interface, backed by token stores."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litgpt import Tokenizer
from litgpt.data import DataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from litmoe.data.sampler import windows_of
from litmoe.data.token_store import TokenStore, ensure_stores
from litmoe.data.windows import Windows
from litmoe.errors import ConfigError, DataError
from litmoe.messages import Say, silent


@dataclass
class TextFiles(DataModule):
    """Text files tokenized once into memory-mapped stores; any window length is cut from the same store.

    Takes the arguments of ``litgpt.data.TextFiles`` and works in LitGPT's own trainer too. Unlike that class it
    ends every document with the end-of-text token, notices changed text and a changed tokenizer, shuffles over
    the whole text, and keeps the last windows.
    """

    train_data_path: Path
    """Folder with text to train on, at any depth; in .txt files documents end at ``<|endoftext|>``, else with the
    file."""
    val_data_path: Path | None = None
    """The same for validation. None, or without text: some of the training documents, chosen by their hash."""
    seed: int = 42
    """Seed of the order of the windows."""
    num_workers: int = 4
    """Threads that read ahead; 0: none."""
    tokenizer_dir: Path | None = None
    """The tokenizer's folder. litmoe's trainer fills it in; LitGPT's trainer cannot."""

    say: Say = field(
        default_factory=lambda: silent, init=False, repr=False
    )  # a default would become a method
    """Told what is tokenized and why; litmoe's trainer sets it."""
    tokenizer: Tokenizer | None = field(default=None, init=False, repr=False)
    batch_size: int = field(default=1, init=False, repr=False)
    max_seq_length: int = field(default=-1, init=False, repr=False)
    train_windows: Windows | None = field(default=None, init=False, repr=False)
    val_windows: Windows | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__init__()
        for name in ("seed", "num_workers"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ConfigError(f"data.init_args.{name}: expected a whole number from 0, got {value!r}")
        for name in ("train_data_path", "val_data_path"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str | Path):
                raise ConfigError(f"data.init_args.{name}: expected a folder, got {value!r}")
        self.train_data_path = Path(self.train_data_path)
        self.val_data_path = Path(self.val_data_path) if self.val_data_path is not None else None

    def connect(
        self,
        tokenizer: Tokenizer | None = None,
        batch_size: int = 1,
        max_seq_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Take what the trainer knows; ``tokenizer_dir`` too, where it is litmoe's."""
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_seq_length = max_seq_length or -1
        self.tokenizer_dir = kwargs.get("tokenizer_dir") or self.tokenizer_dir

    def prepare_data(self) -> None:
        """Tokenize what is not yet tokenized, or no longer valid.

        Raises:
            DataError: No text, unreadable text, or no tokenizer.
        """
        self._stores()

    def setup(self, stage: str = "") -> None:
        """Open the stores.

        Raises:
            DataError: A split has less text than one window.
        """
        train, val = self._stores()
        self.train_windows = self._windows(train, "training")
        self.val_windows = self._windows(val, "validation")

    def train_dataloader(self) -> DataLoader[Tensor]:
        """For LitGPT's trainer: batches of (B, T + 1) token ids, int64, in the order of the first epoch."""
        assert self.train_windows is not None, "call connect(), prepare_data() and setup() first"
        order = windows_of(np.arange(len(self.train_windows)), len(self.train_windows), self.seed)
        return DataLoader(_WindowDataset(self.train_windows, order), batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """For LitGPT's trainer: the validation windows in their order."""
        assert self.val_windows is not None, "call connect(), prepare_data() and setup() first"
        order = np.arange(len(self.val_windows))
        return DataLoader(_WindowDataset(self.val_windows, order), batch_size=self.batch_size)

    def _stores(self) -> tuple[TokenStore, TokenStore]:
        if self.tokenizer_dir is None:
            raise ConfigError("TextFiles needs the tokenizer's folder: set data.init_args.tokenizer_dir")
        val_data_path = self.val_data_path or self.train_data_path
        return ensure_stores(
            self.train_data_path, val_data_path, Path(self.tokenizer_dir), say=self.say, progress=True
        )

    def _windows(self, store: TokenStore, split: str) -> Windows:
        windows = Windows(store, self.max_seq_length)
        if len(windows) == 0:
            raise DataError(
                f"{store.directory}: {store.n_tokens:,} tokens of {split} text are less than one window of "
                f"{self.max_seq_length} and its last target: add text, or lower --max-seq-length"
            )
        return windows


class _WindowDataset(Dataset[Tensor]):
    """Windows in a given order, each as (T + 1,) token ids."""

    def __init__(self, windows: Windows, order: np.ndarray) -> None:
        self.windows, self.order = windows, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Tensor:
        inputs_BT, targets_BT = self.windows.batch(self.order[index : index + 1])
        return torch.cat([inputs_BT[0], targets_BT[0, -1:]])
