"""Tokenizers made: trained on a text, fetched from the hub, or copied; always into a folder of the same shape."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from litmoe.data.documents import END_OF_TEXT
from litmoe.data.tokenizer_folder import (
    FILES,
    OWN_FILES,
    RECORD,
    USE_TRAIN,
    load_tokenizer,
    open_tokenizer,
    read_folder,
    tokenizer_fingerprint,
    tokenizer_record,
    write_folder,
)
from litmoe.errors import ConfigError, DataError
from litmoe.messages import Say, readable, silent
from litmoe.progress_bar import WatchedBar

__all__ = [
    "FILES",
    "OWN_FILES",
    "RECORD",
    "copy_tokenizer",
    "fetch_tokenizer",
    "load_tokenizer",
    "open_tokenizer",
    "tokenizer_fingerprint",
    "tokenizer_record",
    "train_tokenizer",
]

MAX_TRAINING_BYTES = 128 << 20
"""A tokenizer is trained on so much text at most. More changes the merges little; the trainer keeps every
distinct word in memory."""

MAX_DENSE_BYTES = 16 << 20
"""So much of it may be text of long words, such as Chinese, code in base64, or text without spaces: there
hardly a word comes twice, and the trainer needs some 100 bytes of memory for each of theirs."""

MAX_WORD_CHARACTERS = 64
"""Words are cut to this length in training, and no token becomes longer. The trainer's time grows with the
square of a word's length; trainers with a limit have 16 (SentencePiece), which would cut ordinary long words
too."""

_DENSE_WORD_CHARACTERS = 12  # mean word length from which a text counts as dense; English has 5, Finnish 8
_LONG_SPACE = re.compile(rf"\s{{{MAX_WORD_CHARACTERS}}}(?=\s)")
_LONG_WORD = re.compile(
    "|".join(
        rf"{kind}{{{MAX_WORD_CHARACTERS}}}(?={kind})"
        for kind in (r"[^\W\d_]", r"\d", r"(?:[^\w\s]|_)", r"\s")
    )
)
_SHORT_NAMES = {"gpt2": "openai-community/gpt2"}
_HUB_FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "config.json",
    "vocab.json",
    "merges.txt",
]


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    directory: Path,
    progress: bool = True,
    *,
    say: Say = silent,
    record: dict[str, Any] | None = None,
) -> None:
    """Train a byte-level BPE tokenizer, with GPT-2's word pattern, and write its folder.

    Args:
        texts: The text, in any pieces. At most ``MAX_TRAINING_BYTES`` are used, from the start.
        vocab_size: Tokens in all; ``<|endoftext|>`` is number 0, the 256 bytes follow.
        directory: The folder to write; an older tokenizer of litmoe's there is replaced.
        progress: Show a progress bar.
        say: Told if the text was more than is used, or too little for ``vocab_size``.
        record: What else to note about its making.

    Raises:
        ConfigError: ``vocab_size`` is too small.
        DataError: There is no text.
        LitMoEError: ``directory`` holds other files, or cannot be written.
    """
    import tokenizers as hf

    check_vocab_size(vocab_size)
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress and sys.stdout.isatty(),  # elsewhere it prints empty lines
    )
    sample = _TrainingText(texts)
    tokenizer.train_from_iterator(sample, trainer)
    if not sample.n_bytes:
        raise DataError("there is no text to train a tokenizer on; give --source with text in it")
    if sample.cut:
        say(f"tokenizer: trained on the first {readable(sample.n_bytes)} of the text")
    if (size := tokenizer.get_vocab_size()) < vocab_size:
        say(f"tokenizer: the text yields only {size:,} of the {vocab_size:,} tokens asked for")
    made = {"made_by": "train", "vocab_size": vocab_size, **(record or {})}
    write_folder(tokenizer, END_OF_TEXT, directory, made, say)


def check_vocab_size(vocab_size: int) -> None:
    """Refuse a vocabulary that has no room for every byte.

    Raises:
        ConfigError: It is too small.
    """
    if vocab_size < 257:
        raise ConfigError(
            f"a vocabulary of {vocab_size} is too small: 256 bytes and the end-of-text token make 257; "
            "give --vocab-size 257 or more"
        )


def fetch_tokenizer(name: str, directory: Path, *, say: Say = silent) -> None:
    """Download a tokenizer, and nothing but that, from the Hugging Face hub.

    Args:
        name: ``gpt2`` or a hub id such as ``mistralai/Mixtral-8x7B-v0.1``.
        directory: The folder to write.
        say: Told where the tokenizer's files contradict each other, and if another process is writing the folder.

    Raises:
        DataError: No network, no such or a gated repository, or no tokenizer in it that can be used.
        LitMoEError: ``directory`` holds other files, or cannot be written.
    """
    _write_copy(*download_tokenizer(name), directory, {"made_by": "fetch", "name": name}, say)


def download_tokenizer(name: str) -> tuple[Path, str]:
    """Download a tokenizer into the hub's cache, and see that it can be used.

    Returns:
        Its folder there, and its name for messages.

    Raises:
        DataError: As :func:`fetch_tokenizer`.
    """
    from huggingface_hub import snapshot_download

    hub_id = _SHORT_NAMES.get(name, name)
    try:
        fetched = Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES, tqdm_class=WatchedBar))
    except Exception as error:  # requests, httpx, hub and OS errors share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"cannot fetch the tokenizer {name} ({hub_id}) from the Hugging Face hub: {reason}; check the "
            f"name and the network, give a folder that holds one, {USE_TRAIN}"
        ) from error
    where = f"the hub repository {hub_id}"
    read_folder(fetched, where)
    return fetched, where


def copy_tokenizer(source_dir: Path, directory: Path, *, say: Say = silent) -> None:
    """Copy the tokenizer of a folder: any that holds tokenizer.json, or GPT-2's vocab.json and merges.txt.

    Raises:
        DataError: ``source_dir`` holds no tokenizer that can be used.
        LitMoEError: ``directory`` holds other files, or cannot be written.
    """
    made = {"made_by": "copy", "name": str(source_dir.resolve())}
    _write_copy(source_dir, str(source_dir), directory, made, say)


def _write_copy(source: Path, where: str, directory: Path, made: dict[str, Any], say: Say) -> None:
    tokenizer, end = read_folder(source, where, say)
    write_folder(tokenizer, end, directory, made, say, source)


class _TrainingText:
    """The start of a text, up to the limits; afterwards, how much it was."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.n_bytes = 0
        self.cut = False
        """Whether there was more."""

    def __iter__(self) -> Iterator[str]:
        dense_bytes = 0
        for text in self._texts:
            if self.n_bytes >= MAX_TRAINING_BYTES or dense_bytes >= MAX_DENSE_BYTES:
                self.cut = True
                return
            size = len(text.encode())
            self.n_bytes += size
            dense_bytes += size if _is_dense(text) else 0
            yield from _with_short_words(text)


def _is_dense(text: str) -> bool:
    """Whether the words of a text are so long that few of them come twice."""
    return len(text) > _DENSE_WORD_CHARACTERS * (1 + sum(map(text.count, " \n\t")))


def _with_short_words(text: str) -> Iterator[str]:
    """A text in pieces, cut where a word of GPT-2's pattern becomes too long; no other word is touched."""
    start = 0
    if _has_long_words(text):
        for match in _LONG_WORD.finditer(text):
            yield text[start : match.end()]
            start = match.end()
    yield text[start:]


def _has_long_words(text: str) -> bool:
    """Whether a text may have such words: a twentieth of the time that looking for them takes."""
    longest = max(map(len, text.split()), default=0)
    return longest > MAX_WORD_CHARACTERS or _LONG_SPACE.search(text) is not None
