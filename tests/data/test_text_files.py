"""The data module by itself, and how one folder of text is divided into training and validation text."""

import json
from pathlib import Path

import pytest
from support.preparing import DOCUMENTS, Prepare, write

from litmoe.data.text_files import TextFiles
from litmoe.data.token_store import ensure_store
from litmoe.data.tokenizer import train_tokenizer


@pytest.fixture
def run(tmp_path: Path) -> Prepare:
    return Prepare(tmp_path)


def opened(folder: Path) -> TextFiles:
    """As LitGPT's trainer opens it, without a path for validation text."""
    module = TextFiles(folder / "train", tokenizer_dir=folder / "tokenizer")
    module.connect(max_seq_length=8)
    module.prepare_data()
    module.setup()
    return module


def test_without_validation_text_some_documents_are_held_out(tmp_path: Path) -> None:
    """Also without litmoe's trainer, which would tell the module where to say what it builds."""
    write(tmp_path / "train/a.txt", DOCUMENTS)
    train_tokenizer(DOCUMENTS, 300, tmp_path / "tokenizer", progress=False)
    module = opened(tmp_path)
    assert module.train_windows is not None and module.val_windows is not None
    sizes = [windows.store.n_documents for windows in (module.train_windows, module.val_windows)]
    assert sum(sizes) == len(DOCUMENTS) and 0 < sizes[1] < sizes[0]


def test_stores_of_an_older_version_stay_as_they_are(tmp_path: Path) -> None:
    """Version 0.1.0 validated on all of the training text there: such a run goes on with the same windows."""
    write(tmp_path / "train/a.txt", DOCUMENTS)
    train_tokenizer(DOCUMENTS, 300, tmp_path / "tokenizer", progress=False)
    for split in ("train", "val"):
        ensure_store(tmp_path / "train", tmp_path / "tokenizer", tmp_path / "train" / split)
    before = (tmp_path / "train/train/tokens.bin").read_bytes()
    module = opened(tmp_path)
    assert module.train_windows is not None and module.val_windows is not None
    assert module.train_windows.store.n_documents == module.val_windows.store.n_documents == len(DOCUMENTS)
    assert (tmp_path / "train/train/tokens.bin").read_bytes() == before


def test_a_long_document_of_ones_own_is_trained_on(run: Prepare, tmp_path: Path) -> None:
    """As with --source, whatever its hash says; and the same when the stores are opened again."""
    exchanged = 0
    for number in range(6):
        long, short = f"Book {number}. " + "So it goes. " * 300, f"Note {number}."
        run.data, run.config.tokenizer_dir = tmp_path / f"data{number}", tmp_path / f"tokenizer{number}"
        write(run.data / "train/mine.txt", [long, short])
        first = run(source=[], data_dir=run.data)
        assert (run.documents("train"), run.documents("val")) == ([long.strip()], [short])
        exchanged += run.said_something_like("to validate on: exchanged")
        part = json.loads((run.data / "train/train/store.json").read_text(encoding="utf-8"))["made_from"][
            "part"
        ]
        assert set(part) == {"side", "val_fraction"} | ({"exchanged"} if part.get("exchanged") else set())
        again = run(source=[], data_dir=run.data, tokenizer=None)
        assert (again.train.fingerprint, again.val.fingerprint) == (
            first.train.fingerprint,
            first.val.fingerprint,
        )
        assert not run.said_something_like("store")
    assert 0 < exchanged < 6
