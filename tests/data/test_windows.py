from contextlib import closing
from itertools import islice
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from litmoe.data.token_store import TokenStore, ensure_store
from litmoe.data.windows import Windows, training_batches
from litmoe.errors import DataError


@pytest.fixture(scope="module")
def windows(corpus: Path) -> Windows:
    return Windows(TokenStore.open(corpus / "train" / "train"), length=32)


def test_targets_are_the_next_tokens_and_windows_cover_the_text(windows: Windows) -> None:
    inputs, targets = windows.batch(np.arange(len(windows)))
    tokens = torch.from_numpy(np.array(windows.store.tokens).astype(np.int64))
    covered = len(windows) * windows.length
    assert torch.equal(inputs.flatten(), tokens[:covered])
    assert torch.equal(targets.flatten(), tokens[1 : covered + 1])
    assert windows.store.n_tokens - 1 - covered < windows.length


def test_any_length_is_cut_from_the_same_store(windows: Windows) -> None:
    longer = Windows(windows.store, 64)
    assert torch.equal(longer.batch(np.array([1]))[0].view(2, 32), windows.batch(np.array([2, 3]))[0])


def read(
    windows: Windows, micro: int, workers: int, world: int, samples: int, start: int = 0
) -> torch.Tensor:
    """The first ``samples`` samples that ``world`` devices read together, in the order of the run."""
    streams = [
        training_batches(
            windows, seed=5, start=start, batch_size=micro, rank=rank, world_size=world, num_workers=workers
        )
        for rank in range(world)
    ]
    rows = []
    with closing(streams[0]):
        for _ in range(samples // (micro * world)):
            rows += [next(stream)[0] for stream in streams]
    for stream in streams:
        stream.close()
    return torch.cat(rows)


@pytest.mark.parametrize(
    ("micro", "workers", "world"), [(8, 0, 1), (1, 2, 1), (2, 1, 2), (1, 0, 4), (4, 3, 2)]
)
def test_the_order_does_not_depend_on_micro_batch_workers_or_devices(
    windows: Windows, micro: int, workers: int, world: int
) -> None:
    samples = len(windows) // 8 * 8 + 16  # across the end of an epoch
    assert torch.equal(read(windows, micro, workers, world, samples), read(windows, 1, 0, 1, samples))


def test_a_run_continues_where_it_stopped(windows: Windows) -> None:
    assert torch.equal(read(windows, 2, 1, 1, 8, start=24), read(windows, 8, 0, 1, 32)[24:])


def test_validation_windows_are_spread_evenly_and_fixed(windows: Windows) -> None:
    chosen = windows.spread(7)
    assert len(set(chosen.tolist())) == 7 and chosen.tolist() == windows.spread(7).tolist()
    assert np.ptp(np.diff(chosen)) <= 1
    assert windows.spread(10**9).tolist() == list(range(len(windows)))


def test_an_id_that_is_no_token_is_one_line_and_the_store_is_made_again(corpus: Path, tmp_path: Path) -> None:
    """Damage that comes after the store was opened reaches training as a message, never as an index error."""
    copytree(corpus / "train", tmp_path / "train")
    store_dir = tmp_path / "train" / "train"
    windows = Windows(TokenStore.open(store_dir), length=32)
    with (store_dir / "tokens.bin").open("r+b") as file:
        file.seek(2 * 40)
        file.write(b"\xff\xff")
    assert windows.batch(np.array([0]))[0].shape == (1, 32)
    with pytest.raises(
        DataError, match=r"tokens.bin is damaged: it holds id 65,535, and the vocabulary has 512"
    ):
        windows.batch(np.array([0, 1]))
    said: list[str] = []
    store = ensure_store(tmp_path / "train", corpus / "tokenizer", store_dir, say=said.append)
    assert "rebuilt: tokens.bin is damaged" in said[0]
    assert np.array_equal(store.tokens, TokenStore.open(corpus / "train" / "train").tokens)


def test_closing_stops_the_threads(windows: Windows) -> None:
    import threading

    batches = training_batches(windows, seed=0, start=0, batch_size=1, rank=0, world_size=1, num_workers=3)
    list(islice(batches, 5))
    assert any(thread.name.startswith("litmoe-data") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("litmoe-data") for thread in threading.enumerate())
