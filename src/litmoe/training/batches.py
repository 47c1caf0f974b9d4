"""Where a run's batches come from: litmoe's windows by position, or the loaders of any other LitGPT data module.

Both keep the same contract: a step minimises the mean over the counted targets of its global batch, however that
is cut into micro-batches or spread over devices, and validation is over ``eval.max_iters`` windows.
"""

import itertools
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from litgpt import Tokenizer
from litgpt.data import DataModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from litmoe.config import TrainConfig
from litmoe.data.text_files import TextFiles
from litmoe.data.windows import Batch, training_batches
from litmoe.distributed.collective import first_before_others, together
from litmoe.errors import DataError
from litmoe.messages import Say, silent
from litmoe.model.objective import IGNORED, n_targets


class Batches(Protocol):
    """The training and validation batches of this process, (inputs_BT, targets_BT)."""

    n_windows: int | None
    """Windows in the training text, where that is known."""
    fingerprint: str | None
    """Of the training text and its tokenizer, where that is known."""
    bytes_per_token: float | None
    """Of the validation text, for bits per byte, where that is known."""
    may_mask: bool
    """Whether windows may be shorter than others, or have targets that do not count."""

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
    first_before_others(fabric, module.prepare_data)
    together(fabric, module.setup)
    if isinstance(module, TextFiles):
        return WindowBatches(fabric, module, config)
    return LoaderBatches(fabric, module, config, seq_length)


class WindowBatches:
    """Batches of litmoe's ``TextFiles``: sample ``i`` of the run is a function of ``i`` and the seed alone."""

    may_mask = False

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
        """Micro-batches without end, from sample ``start`` of the run."""
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
        """The same validation windows every time."""
        mine = self.val_samples[self.fabric.global_rank :: self.fabric.world_size]
        for first in range(0, len(mine), micro_batch_size):
            inputs_BT, targets_BT = self.val.batch(mine[first : first + micro_batch_size])
            yield _to_device(inputs_BT, self.fabric), _to_device(targets_BT, self.fabric)


NOTHING_TO_PREDICT = (
    "data: the validation windows have no token to predict: there are none, or all of their targets are masked; "
    "add some, raise train.max_seq_length, or set eval.final_validation: false"
)


class LoaderBatches:
    """Batches of another data module's loaders.

    A window is one row of what a loader yields: of a tensor of token ids, or of a dict with ``input_ids`` and
    ``labels`` (LitGPT's instruction data: masked and padded, not yet shifted). Rows are put together again in
    micro-batches of the run's size, whatever the loader's batches are, and padded to the longest.

    A loader with a sampler is followed in its order, which is then the same on any number of devices, and a
    resumed run goes on where it was. Any other reads past the windows that the run had already seen, and decides
    by itself what each device gets.

    Raises:
        DataError: there is no validation window with a target, and validation is wanted.
    """

    n_windows: int | None = None
    fingerprint: str | None = None
    bytes_per_token: float | None = None
    may_mask = True

    def __init__(self, fabric: Fabric, module: DataModule, config: TrainConfig, seq_length: int) -> None:
        self.fabric, self.seq_length = fabric, seq_length
        self.ignored = getattr(module, "ignore_index", IGNORED)
        self.train = module.train_dataloader()
        self.has_order = _has_order(self.train)
        if not self.has_order:
            self.train = fabric.setup_dataloaders(self.train, move_to_device=False)
        elif fabric.world_size > 1 and self.train.generator is None:
            # all devices must draw the same order
            self.train.generator = self.train.sampler.generator = torch.Generator().manual_seed(config.seed)
        generator = getattr(self.train, "generator", None)
        self.shuffle_state = None if generator is None else generator.get_state()
        # Kept, because a loader may shuffle again at every pass. Training's random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            self.val_rows = self._validation_rows(module.val_dataloader(), config.eval.max_iters)
        wanted = config.eval.final_validation or config.eval.initial_validation
        if wanted and fabric.world_size == 1 and not any(n_targets(t) for _, t in self.val_rows):
            raise DataError(NOTHING_TO_PREDICT)

    def training(self, start: int, micro_batch_size: int) -> Generator[Batch, None, None]:
        """Micro-batches without end, from sample ``start`` of the run."""
        if self.shuffle_state is not None:
            self.train.generator.set_state(self.shuffle_state)
        if self.has_order:
            rows = self._in_order(start)
        else:
            rows = itertools.islice(self._read_through(), start // self.fabric.world_size, None)
        while True:
            yield self._batch(list(itertools.islice(rows, micro_batch_size)))

    def validation(self, micro_batch_size: int) -> Iterator[Batch]:
        """The same validation windows every time."""
        for first in range(0, len(self.val_rows), micro_batch_size):
            yield self._batch(self.val_rows[first : first + micro_batch_size])

    def _validation_rows(self, loader: DataLoader[Any], max_iters: int) -> list[Batch]:
        """This process's share of the first ``max_iters`` windows of the validation loader, as read once."""
        rank, world_size = self.fabric.global_rank, self.fabric.world_size
        rows = self._rows(loader)
        if isinstance(loader.dataset, IterableDataset):  # which shares its windows out by itself
            return list(itertools.islice(rows, len(range(rank, max_iters, world_size))))
        return list(itertools.islice(rows, rank, max_iters, world_size))

    def _in_order(self, start: int) -> Iterator[Batch]:
        """This device's windows from a sample on: each goes to the next device in turn."""
        loader, rank, world_size = self.train, self.fabric.global_rank, self.fabric.world_size
        passed = 0  # samples of whole passes
        while True:
            # A plain loop over the loader draws this before its order, so the order is that of such a loop.
            seed = int(torch.empty((), dtype=torch.int64).random_(generator=loader.generator))
            order = [index for batch in loader.batch_sampler for index in batch]
            if not order:
                raise DataError(_NO_TRAINING_DATA)
            first = max(0, start - passed)
            mine = [order[i] for i in range(first, len(order)) if (passed + i) % world_size == rank]
            passed += len(order)
            if mine:
                yield from self._rows(
                    DataLoader(
                        loader.dataset,
                        batch_size=loader.batch_size,
                        sampler=mine,
                        num_workers=loader.num_workers,
                        collate_fn=loader.collate_fn,
                        worker_init_fn=loader.worker_init_fn,
                        generator=torch.Generator().manual_seed(seed),
                    )
                )

    def _read_through(self) -> Iterator[Batch]:
        """All windows that the loader gives this device, pass after pass."""
        while True:
            row = None
            for row in self._rows(self.train):
                yield row
            if row is None:
                raise DataError(_NO_TRAINING_DATA)

    def _rows(self, loader: Iterable[Any]) -> Iterator[Batch]:
        """Windows one by one, (inputs_T, targets_T), without the padding at their ends."""
        for batch in loader:
            if isinstance(batch, dict):
                ids_BT, labels_BT = batch["input_ids"], batch["labels"]
            else:
                ids_BT = labels_BT = batch
            for ids_T, labels_T in zip(ids_BT.long().cpu(), labels_BT.long().cpu(), strict=True):
                inputs_T, targets_T = ids_T[:-1][: self.seq_length], labels_T[1:][: self.seq_length]
                masked_T = (targets_T < 0) | (targets_T == self.ignored)
                counted = (~masked_T).nonzero()
                length = int(counted[-1]) + 1 if len(counted) else 1
                yield inputs_T[:length].clone(), targets_T.masked_fill(masked_T, IGNORED)[:length]

    def _batch(self, rows: list[Batch]) -> Batch:
        inputs_BT = pad_sequence([inputs_T for inputs_T, _ in rows], batch_first=True)
        targets_BT = pad_sequence(
            [targets_T for _, targets_T in rows], batch_first=True, padding_value=IGNORED
        )
        return _to_device(inputs_BT, self.fabric), _to_device(targets_BT, self.fabric)


_NO_TRAINING_DATA = "data: the training loader is empty: add text, or lower train.micro_batch_size"


def _has_order(loader: DataLoader[Any]) -> bool:
    """Whether a loader takes rows of its data by a sampler's order, and nothing else."""
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader.batch_sampler) is BatchSampler
        and type(loader.sampler) in (RandomSampler, SequentialSampler)
    )


def _to_device(tensor: Tensor, fabric: Fabric) -> Tensor:
    if fabric.device.type == "cuda":
        return tensor.pin_memory().to(fabric.device, non_blocking=True)
    return tensor.to(fabric.device)
