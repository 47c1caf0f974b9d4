"""The text that routing is looked at on: windows of tokens, and for each token where it stands and whose it is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from litgpt import Tokenizer

from litmoe.data.reading.formats import read_documents
from litmoe.data.reading.listing import has_text, list_text, no_text
from litmoe.data.reading.record_text import Label
from litmoe.data.token_store import TokenStore
from litmoe.errors import DataError
from litmoe.inference.loading import LoadedModel
from litmoe.inference.prompts import encode_prompt

SOURCE_FIELDS = ("domain", "source")
"""Fields of a record that say where it is from; the first that is there counts."""

_CHARACTERS_PER_TOKEN = 16  # no text has so many on average: a document is read no further than this
_LONGEST_LABEL = 40


@dataclass(frozen=True)
class Document:
    """Part of a document: its first tokens, or some from its middle."""

    ids: np.ndarray
    """Token ids, int64."""
    before: int
    """The token before the first: the begin-of-text token, or the last one before."""
    source: str | None = None
    positions: np.ndarray | None = None
    """Position of each token in its document; None: from 0 on."""
    numbers: np.ndarray | None = None
    """Which document each token is of, where they are several; None: one."""


@dataclass(frozen=True)
class Text:
    """Windows for a model, and their tokens one after another. N: tokens of all windows."""

    where: str
    windows: list[np.ndarray]
    """Token ids, each window with the token before it: a window of n tokens has n + 1 ids."""
    ids_N: np.ndarray
    document_N: np.ndarray
    position_N: np.ndarray
    """Position in the document."""
    source_N: np.ndarray
    """Index into ``sources``."""
    sources: list[str]
    """Empty where the text does not say."""

    @property
    def documents(self) -> int:
        """How many documents the tokens are from."""
        return len(np.unique(self.document_N))


def text_of(where: str, documents: Iterable[Document], length: int) -> Text:
    """Cut documents into windows of at most ``length`` ids, the token before each among them.

    Raises:
        DataError: there is no token at all.
    """
    windows, ids, numbers, positions, labels = [], [], [], [], []
    for number, document in enumerate(documents):
        before = document.before
        for first in range(0, len(document.ids), length - 1):
            part = document.ids[first : first + length - 1]
            windows.append(np.concatenate([[before], part]))
            before = int(part[-1])
        ids.append(document.ids)
        numbers.append(np.full(len(document.ids), number) if document.numbers is None else document.numbers)
        positions.append(np.arange(len(document.ids)) if document.positions is None else document.positions)
        labels.append([document.source] * len(document.ids))
    if not windows:
        raise DataError(f"{where}: no text to look at")
    sources = sorted({label for part in labels for label in part if label is not None})
    index = {label: at for at, label in enumerate(sources)}
    return Text(
        where,
        windows,
        np.concatenate(ids),
        np.concatenate(numbers),
        np.concatenate(positions),
        np.array([index.get(label, -1) if label is not None else -1 for part in labels for label in part]),
        sources,
    )


def prompt_documents(tokenizer: Tokenizer, prompt: str) -> Iterator[Document]:
    """A text that is given as it is: one document."""
    document = _encoded(tokenizer, prompt, None)
    if document is not None:
        yield document


def file_documents(tokenizer: Tokenizer, path: Path, most_tokens: int, length: int) -> Iterator[Document]:
    """Documents from a file or from all files of a folder, as evenly from each as ``most_tokens`` allow.

    Of a long document only the first four windows are taken, so that a few do not fill the sample. In a prepared
    data folder it is the validation text that counts.

    Raises:
        DataError: no text there, or none that can be read.
    """
    if path.is_dir() and has_text(path / "val"):
        path = path / "val"
    files = list_text(path).files
    if not files:
        raise DataError(no_text(path))
    share = max(length, most_tokens // len(files))
    for file in files:
        label, taken, first = Label(*SOURCE_FIELDS), 0, True
        for piece in read_documents(file, label=label):
            if first and piece.text:
                text = piece.text[: 4 * length * _CHARACTERS_PER_TOKEN]
                source = label.value[:_LONGEST_LABEL] if label.value else None
                document = _encoded(
                    tokenizer, text, source, most=min(max(length - 1, share // 8), share - taken)
                )
                if document is not None:
                    yield document
                    taken += len(document.ids)
            first = piece.ends_document
            if taken >= share:
                break


def store_documents(loaded: LoadedModel, most_tokens: int, length: int) -> tuple[str, list[Document]]:
    """Windows of the run's own validation text, evenly spread over it, and where it lies.

    Raises:
        DataError: the checkpoint does not say what it was validated on, or that is not here.
    """
    section = loaded.settings.get("data")
    init_args = section.get("init_args", {}) if isinstance(section, dict) else {}
    path = init_args.get("val_data_path") or init_args.get("train_data_path")
    if not path:
        raise DataError(f"{loaded.folder} does not say what it was validated on: name a text with --text")
    store_dir = Path(path) / "val"
    if not store_dir.is_dir():
        raise DataError(f"{store_dir}: the validation text of the run is not here: name a text with --text")
    store = TokenStore.open(store_dir)
    count = max(1, min(most_tokens, store.n_tokens) // (length - 1))
    starts = np.unique(np.linspace(0, max(0, store.n_tokens - length + 1), count).astype(np.int64))
    return str(path), [_stretch(store, start, length - 1) for start in starts.tolist()]


def _stretch(store: TokenStore, start: int, count: int) -> Document:
    """Tokens of a store, which may cross the ends of documents."""
    ids = np.asarray(store.tokens[start : start + count]).astype(np.int64)
    at = start + np.arange(len(ids))
    numbers = np.searchsorted(store.document_offsets, at, side="right") - 1
    return Document(
        ids,
        before=store.eos_id if start == 0 else int(store.tokens[start - 1]),
        positions=at - np.asarray(store.document_offsets)[numbers],
        numbers=numbers,
    )


def _encoded(tokenizer: Tokenizer, text: str, source: str | None, most: int | None = None) -> Document | None:
    ids = encode_prompt(tokenizer, text).numpy().astype(np.int64) if text else np.empty(0, np.int64)
    if tokenizer.bos_id is not None and len(ids) and ids[0] == tokenizer.bos_id:
        before, ids = int(ids[0]), ids[1:]
    else:
        before = int(tokenizer.eos_id if tokenizer.eos_id is not None else 0)
    ids = ids[:most]
    return Document(ids, before, source) if len(ids) else None
