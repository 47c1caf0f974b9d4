"""``litmoe prepare``: text, tokenizer and token stores, ready to train on."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from litmoe.config import PrepareConfig
from litmoe.data.corpus import Source, try_sources
from litmoe.data.corpus_record import RECORD, SPLITS, text_fingerprint
from litmoe.data.prepared_text import (
    check_text,
    finish_interrupted,
    is_interrupted,
    is_sample,
    replace_text,
    with_source,
)
from litmoe.data.reading.formats import read_documents
from litmoe.data.reading.listing import has_text
from litmoe.data.store_record import OWN_FILES
from litmoe.data.token_store import TokenStore, ensure_stores, text_files
from litmoe.data.tokenizer import (
    OWN_FILES as TOKENIZER_FILES,
)
from litmoe.data.tokenizer import (
    check_vocab_size,
    copy_tokenizer,
    download_tokenizer,
    fetch_tokenizer,
    open_tokenizer,
    tokenizer_fingerprint,
    tokenizer_record,
    train_tokenizer,
)
from litmoe.errors import ConfigError, DataError
from litmoe.files import only_one_process, refuse_foreign
from litmoe.messages import Say, silent


@dataclass(frozen=True)
class PreparedSplit:
    """The training or the validation part of the prepared data."""

    text_dir: Path
    """The folder whose text it was made from."""
    store_dir: Path
    documents: int
    tokens: int
    text_bytes: int
    fingerprint: str


@dataclass(frozen=True)
class PreparedData:
    """What ``prepare`` leaves."""

    data_dir: Path
    tokenizer_dir: Path
    train: PreparedSplit
    val: PreparedSplit
    vocab_size: int
    tokenizer_fingerprint: str
    seconds: float


def prepare(config: PrepareConfig, say: Say = silent) -> PreparedData:
    """Bring text, tokenizer and token stores to the state that ``config`` asks for; reuse what fits.

    Args:
        config: What is wanted.
        say: Told what is done, read, left out and reused, a line each.

    Raises:
        ConfigError: A setting is wrong.
        DataError: A source or tokenizer cannot be had, or a folder holds something else than what is asked for.
            Then nothing is changed.
    """
    started = time.monotonic()
    _check(config)
    data_dir = config.data_dir
    train_dir, val_dir = data_dir / "train", data_dir / "val"
    # What can be refused is refused before anything is made, the lock and its folder included.
    if not is_interrupted(data_dir):
        decided = _decide(config, silent)
        try_sources(decided.sources)
        _try_tokenizer(decided.making)
    with only_one_process(data_dir / RECORD, say):
        finish_interrupted(data_dir, say)
        config, sources, making = _decide(config, say)
        if sources:
            replace_text(config, sources, say)
        if making:
            _make_tokenizer(config, making, say)
        train, val = ensure_stores(
            train_dir,
            val_dir,
            config.tokenizer_dir,
            say=say,
            progress=config.progress,
            val_fraction=config.val_fraction,
        )
    val_text = val_dir if has_text(val_dir) else train_dir
    prepared = PreparedData(
        data_dir,
        config.tokenizer_dir,
        _summary(train, train_dir),
        _summary(val, val_text),
        train.vocab_size,
        tokenizer_fingerprint(config.tokenizer_dir),
        time.monotonic() - started,
    )
    _report(prepared, bool(sources or making), say)
    return prepared


class _Decided(NamedTuple):
    """What there is to do."""

    config: PrepareConfig
    """With the source filled in."""
    sources: list[Source]
    """What text to read; nothing if the text that is there will do."""
    making: dict[str, Any] | None
    """How to make the tokenizer, as its record will say; None if the one that is there will do."""


def _decide(config: PrepareConfig, say: Say) -> _Decided:
    """Compare what is there with what is asked for, and change nothing."""
    config = with_source(config)
    for split in SPLITS:
        refuse_foreign(config.data_dir / split / split, OWN_FILES, "token store")
    sources, text_changes = check_text(config, say)
    return _Decided(config, sources, _choose_tokenizer(config, text_changes, say))


def _check(config: PrepareConfig) -> None:
    """Refuse settings that are wrong whatever lies on the disk."""
    if not 0 < config.val_fraction < 1:
        raise ConfigError(f"--val-fraction is {config.val_fraction}; give a number above 0 and below 1")
    most = config.max_documents
    if isinstance(most, list) and len(most) != len(config.source):
        raise ConfigError(
            f"--max-documents has {len(most)} numbers for {len(config.source)} sources; give one for all "
            "together, or one for each --source (null: all of it)"
        )
    numbers = most if isinstance(most, list) else [most]
    fewest = 2 if len(numbers) == 1 else 1
    for number in numbers:
        if number is not None and number < fewest:
            why = ": one to train on, one to validate" if fewest == 2 else ", or leave out that source"
            raise ConfigError(f"--max-documents is {number}; give {fewest} or more{why}")
    _refuse_source_in_data(config)


def _refuse_source_in_data(config: PrepareConfig) -> None:
    """Neither may the data folder lie in a source nor a source in the text of the data folder."""
    data_dir = config.data_dir.resolve()
    for name in config.source:
        if Path(name).is_dir() and Path(name).resolve() in (data_dir, *data_dir.parents):
            raise ConfigError(
                f"the data folder {config.data_dir} lies in the source {name}, so prepare would read what it "
                "writes; give a --data-dir elsewhere"
            )
        for split in ("train", "val"):
            folder = (config.data_dir / split).resolve()
            if folder in (Path(name).resolve(), *Path(name).resolve().parents):
                raise ConfigError(
                    f"the source {name} lies in the data folder; leave out --source to use that text where it "
                    "is, or give another --data-dir"
                )


def _choose_tokenizer(config: PrepareConfig, text_changes: bool, say: Say) -> dict[str, Any] | None:
    """Decide how to make the tokenizer, as its record will say; None if the one that is there will do."""
    directory = config.tokenizer_dir
    there = (directory / "tokenizer.json").exists()
    wanted = config.tokenizer
    if wanted is None or (there and Path(wanted).resolve() == directory.resolve()):
        if there:
            size = open_tokenizer(directory)[0].get_vocab_size()
            say(f"tokenizer: using the one in {directory} ({size:,} tokens)")
            return None
        wanted = "train" if is_sample(config) else "gpt2"
    refuse_foreign(directory, TOKENIZER_FILES, "tokenizer")

    if wanted == "train":
        check_vocab_size(config.vocab_size)
        making: dict[str, Any] = {"made_by": "train", "vocab_size": config.vocab_size}
    elif Path(wanted).is_dir():
        open_tokenizer(Path(wanted))
        making = {"made_by": "copy", "name": str(Path(wanted).resolve())}
    else:
        making = {"made_by": "fetch", "name": wanted}
    if there and _is_there(config, making, text_changes):
        say(f"tokenizer: already in {directory}")
        return None
    return making


def _try_tokenizer(making: dict[str, Any] | None) -> None:
    """Find out whether a tokenizer can be fetched, before any text is written."""
    if making and making["made_by"] == "fetch":
        download_tokenizer(making["name"])


def _is_there(config: PrepareConfig, making: dict[str, Any], text_changes: bool) -> bool:
    """Whether the tokenizer that is there is the one that is asked for, and not one to replace.

    Raises:
        DataError: It is another one, and may not be replaced.
    """
    directory = config.tokenizer_dir
    record = tokenizer_record(directory)
    if record is None:
        raise DataError(
            f"{directory} holds a tokenizer that litmoe did not make; leave out --tokenizer to use it, or give "
            "another --tokenizer-dir"
        )
    same = all(record.get(key) == value for key, value in making.items())
    if same and making["made_by"] == "train":
        same = not text_changes and record.get("text") == text_fingerprint(config.data_dir)
    if same:
        open_tokenizer(directory)
    elif not config.force:
        raise DataError(
            f"{directory} holds another tokenizer ({_how_made(record)}); leave out --tokenizer to use it, give "
            "another --tokenizer-dir, or use --force to replace it"
        )
    return same


def _how_made(record: dict[str, Any]) -> str:
    if record.get("made_by") == "train":
        return f"trained on other text or to another size, {record.get('vocab_size')} tokens"
    return str(record.get("name"))


def _make_tokenizer(config: PrepareConfig, making: dict[str, Any], say: Say) -> None:
    directory = config.tokenizer_dir
    if making["made_by"] == "train":
        files = text_files(config.data_dir / "train")
        say(f"tokenizer: training {config.vocab_size:,} tokens on {config.data_dir / 'train'}")
        record = {"text": text_fingerprint(config.data_dir)}
        train_tokenizer(_texts(files), config.vocab_size, directory, config.progress, say=say, record=record)
    elif making["made_by"] == "copy":
        copy_tokenizer(Path(making["name"]), directory, say=say)
        say(f"tokenizer: copied from {making['name']} to {directory}")
    else:
        say(f"tokenizer: fetching {making['name']}")
        fetch_tokenizer(making["name"], directory, say=say)


def _texts(files: list[Path]) -> Iterator[str]:
    for path in files:
        for piece in read_documents(path):
            yield piece.text


def _summary(store: TokenStore, text_dir: Path) -> PreparedSplit:
    return PreparedSplit(
        text_dir, store.directory, store.n_documents, store.n_tokens, store.n_bytes, store.fingerprint
    )


def _report(prepared: PreparedData, made: bool, say: Say) -> None:
    for name, split in (("train", prepared.train), ("val", prepared.val)):
        say(
            f"{name}: {split.documents:,} documents, {split.tokens:,} tokens, {split.text_bytes / 1e6:.2f} MB, "
            f"{split.tokens / split.text_bytes:.3f} tokens per byte, in {split.store_dir}"
        )
    megabytes = (prepared.train.text_bytes + prepared.val.text_bytes) / 1e6
    speed = f" ({megabytes / prepared.seconds:.1f} MB/s)" if made else ""
    say(
        f"prepared in {prepared.seconds:.1f} s{speed}, tokenizer of"
        f" {prepared.vocab_size:,} tokens in {prepared.tokenizer_dir}"
    )
