"""Where a run's batches come from: our windows by position, or the loaders of any other LitGPT data module."""

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, Protocol

from lightning.fabric import Fabric
from litgpt import Tokenizer
from litgpt.data import DataModule
from torch import Tensor
from torch.utils.data import DataLoader

from litmoe.config import TrainConfig
from litmoe.data.text_files import TextFiles
from litmoe.data.windows import Batch, training_batches
from litmoe.errors import LitMoEError
from litmoe.messages import Say, silent


class Batches(Protocol):
    """The training and validation batches of this process, (inputs_BT, targets_BT)."""

    n_windows: int | None
    """Windows in the training text, where that is known."""
    fingerprint: str | None
    """Of the training text and its tokenizer, where that is known."""
    bytes_per_token: float | None
    """Of the validation text, for bits per byte, where that is known."""

    def training(self, start: int, micro_batch_size: int) -> Generator[Batch, None, None]:
        """Micro-batches without end, from sample ``start`` of the run."""

    def validation(self, micro_batch_size: int) -> Iterator[Batch]:
        """The same validation windows every time."""


def connect_batches(
    fabric: Fabric,
    module: DataModule,
    config: TrainConfig,
    tokenizer: Tokenizer | None,
    seq_length: int,
    say: Say = silent,
) -> Batches:
    """Prepare a data module for a run; ``say`` is told what is tokenized and why.

    Raises:
        LitMoEError: text or tokenizer are missing, unreadable, or too little.
    """
    micro_batch_size = config.train.micro_batch_size
    extra: dict[str, Any] = {}
    if isinstance(module, TextFiles):
        extra["tokenizer_dir"] = config.tokenizer_dir
        module.say = say
    module.connect(tokenizer=tokenizer, batch_size=micro_batch_size, max_seq_length=seq_length, **extra)
    with fabric.rank_zero_first():
        module.prepare_data()
    module.setup()
    if isinstance(module, TextFiles):
        return WindowBatches(fabric, module, config)
    return LoaderBatches(fabric, module, config, seq_length)


class WindowBatches:
    """Batches of our own ``TextFiles``: sample ``i`` of the run is a function of ``i`` and the seed alone."""

    def __init__(self, fabric: Fabric, module: TextFiles, config: TrainConfig) -> None:
        assert module.train_windows is not None and module.val_windows is not None
        self.fabric = fabric
        self.train, self.val = module.train_windows, module.val_windows
        self.seed, self.num_workers = module.seed, module.num_workers
        self.val_samples = self.val.spread(config.eval.max_iters)
        self.n_windows: int | None = len(self.train)
        self.fingerprint: str | None = self.train.store.fingerprint
        self.bytes_per_token: float | None = self.val.store.n_bytes / self.val.store.n_tokens

    def training(self, start: int, micro_batch_size: int) -> Generator[Batch, None, None]:
        batches = training_batches(
            self.train,
            seed=self.seed,
            start=start,
            batch_size=micro_batch_size,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            num_workers=self.num_workers,
        )
        with closing(batches):
            for inputs_BT, targets_BT in batches:
                yield _to_device(inputs_BT, self.fabric), _to_device(targets_BT, self.fabric)

    def validation(self, micro_batch_size: int) -> Iterator[Batch]:
        mine = self.val_samples[self.fabric.global_rank :: self.fabric.world_size]
        for first in range(0, len(mine), micro_batch_size):
            inputs_BT, targets_BT = self.val.batch(mine[first : first + micro_batch_size])
            yield _to_device(inputs_BT, self.fabric), _to_device(targets_BT, self.fabric)


class LoaderBatches:
    """Batches of another data module's loaders, which decide their order by themselves.

    A resumed run reads past what the run had already seen; the order is the same only if the module's is.
    """

    n_windows: int | None = None
    fingerprint: str | None = None
    bytes_per_token: float | None = None

    def __init__(self, fabric: Fabric, module: DataModule, config: TrainConfig, seq_length: int) -> None:
        self.fabric, self.seq_length = fabric, seq_length
        self.train, self.val = fabric.setup_dataloaders(module.train_dataloader(), module.val_dataloader())
        self.samples_per_batch = config.train.micro_batch_size * fabric.world_size
        self.max_iters = config.eval.max_iters

    def training(self, start: int, micro_batch_size: int) -> Generator[Batch, None, None]:
        skip = start // self.samples_per_batch
        for batch in itertools.islice(self._forever(self.train), skip, None):
            yield self._batch(batch)

    def validation(self, micro_batch_size: int) -> Iterator[Batch]:
        for batch in itertools.islice(self.val, self.max_iters):
            yield self._batch(batch)

    def _forever(self, loader: DataLoader[Any]) -> Iterator[Any]:
        for epoch in itertools.count():
            seen = False
            set_epoch = getattr(loader.sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
            for batch in loader:
                seen = True
                yield batch
            if not seen:
                raise LitMoEError(
                    "data: the training loader is empty: add text, or lower train.micro_batch_size"
                )

    def _batch(self, batch: Any) -> Batch:
        if isinstance(batch, dict):  # LitGPT's instruction data: masked labels, not yet shifted
            inputs_BT, labels_BT = batch["input_ids"], batch["labels"]
        else:
            inputs_BT = labels_BT = batch
        length = min(self.seq_length, inputs_BT.size(1) - 1)
        return inputs_BT[:, :length].contiguous().long(), labels_BT[:, 1 : length + 1].contiguous().long()


def _to_device(tensor: Tensor, fabric: Fabric) -> Tensor:
    if fabric.device.type == "cuda":
        return tensor.pin_memory().to(fabric.device, non_blocking=True)
    return tensor.to(fabric.device)
