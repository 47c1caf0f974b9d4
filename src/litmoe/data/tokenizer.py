"""The tokenizer folder: trained here, fetched from the hub, or copied; then always of the same shape.

Three libraries read the folder: ``tokenizers`` (tokenizer.json), LitGPT and Transformers (the two others as
well). Hub folders leave out what one or the other needs, so the folder is always written anew, with one rule
in all three files: the end-of-text token is also the begin token, because in the token store it stands
before every document but the first. A begin token of its own would never be trained. Encoding a prompt
therefore puts end-of-text before it in all three libraries: the model is told that a document starts.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litmoe.data.documents import END_OF_TEXT
from litmoe.errors import LitMoEError
from litmoe.files import only_one_process, whole_folder

if TYPE_CHECKING:
    import litgpt
    import tokenizers

MAX_TRAINING_BYTES = 128 << 20
"""A tokenizer is trained on so much text at most. More changes the merges little; the trainer keeps every
distinct word in memory."""

RECORD = "litmoe_tokenizer.json"
"""Says how the tokenizer was made. Also the sign that the folder is litmoe's to replace."""

FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
OWN_FILES = frozenset((*FILES, RECORD))
_SHORT_NAMES = {"gpt2": "openai-community/gpt2"}
_HUB_FILES = [*FILES, "special_tokens_map.json", "config.json", "vocab.json", "merges.txt"]
_USE_TRAIN = "or train one on your own text with --tokenizer train, which needs no network"


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    directory: Path,
    progress: bool = True,
    *,
    say: Callable[[str], None] = print,
    record: dict[str, Any] | None = None,
) -> None:
    """Train a byte-level BPE tokenizer, with GPT-2's word pattern, and write its folder.

    Args:
        texts: The text, in any pieces. At most ``MAX_TRAINING_BYTES`` are used, from the start.
        vocab_size: Tokens in all; ``<|endoftext|>`` is number 0, the 256 bytes follow.
        directory: The folder to write; an older tokenizer of litmoe's there is replaced.
        progress: Show a progress bar.
        say: Gets one line when the text was more than is used, or too little for ``vocab_size``.
        record: What else to note about its making.

    Raises:
        LitMoEError: ``vocab_size`` is too small, there is no text, or ``directory`` holds other files.
    """
    import tokenizers as hf

    check_vocab_size(vocab_size)
    used = 0

    def capped() -> Iterator[str]:
        nonlocal used
        for text in texts:
            used += len(text.encode())
            yield text
            if used >= MAX_TRAINING_BYTES:
                say(f"tokenizer: trained on the first {used / 1e6:.0f} MB of the text")
                return

    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress and sys.stdout.isatty(),  # elsewhere it prints empty lines
    )
    tokenizer.train_from_iterator(capped(), trainer)
    if not used:
        raise LitMoEError("there is no text to train a tokenizer on; give --source with text in it")
    if (size := tokenizer.get_vocab_size()) < vocab_size:
        say(f"tokenizer: the text yields only {size:,} of the {vocab_size:,} tokens asked for")
    made = {"made_by": "train", "vocab_size": vocab_size, **(record or {})}
    _write(tokenizer, END_OF_TEXT, directory, made, say)


def check_vocab_size(vocab_size: int) -> None:
    """Refuse a vocabulary that has no room for every byte.

    Raises:
        LitMoEError: It is too small.
    """
    if vocab_size < 257:
        raise LitMoEError(
            f"a vocabulary of {vocab_size} is too small: 256 bytes and the end-of-text token make 257; "
            "give --vocab-size 257 or more"
        )


def fetch_tokenizer(name: str, directory: Path, *, say: Callable[[str], None] = print) -> None:
    """Download a tokenizer, and nothing but that, from the Hugging Face hub.

    Args:
        name: ``gpt2`` or a hub id such as ``mistralai/Mixtral-8x7B-v0.1``.
        directory: The folder to write.
        say: Gets one line if another process is writing the folder.

    Raises:
        LitMoEError: No network, no such or a gated repository, or no tokenizer in it that can be used.
    """
    tokenizer, end = _read_source(*download_tokenizer(name))
    _write(tokenizer, end, directory, {"made_by": "fetch", "name": name}, say)


def download_tokenizer(name: str) -> tuple[Path, str]:
    """Download a tokenizer into the hub's cache, and see that it can be used.

    Returns:
        Its folder there, and its name for messages.

    Raises:
        LitMoEError: As :func:`fetch_tokenizer`.
    """
    from huggingface_hub import snapshot_download

    hub_id = _SHORT_NAMES.get(name, name)
    try:
        fetched = Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
    except Exception as error:  # requests, httpx, hub and OS errors share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise LitMoEError(
            f"cannot fetch the tokenizer {name} ({hub_id}) from the Hugging Face hub: {reason}; check the "
            f"name and the network, give a folder that holds one, {_USE_TRAIN}"
        ) from error
    where = f"the hub repository {hub_id}"
    _read_source(fetched, where)
    return fetched, where


def copy_tokenizer(source_dir: Path, directory: Path, *, say: Callable[[str], None] = print) -> None:
    """Copy the tokenizer of a folder: any that holds tokenizer.json, or GPT-2's vocab.json and merges.txt.

    Raises:
        LitMoEError: ``source_dir`` holds no usable tokenizer, or ``directory`` holds other files.
    """
    tokenizer, end = _read_source(source_dir, str(source_dir))
    _write(tokenizer, end, directory, {"made_by": "copy", "name": str(source_dir.resolve())}, say)


def load_tokenizer(directory: Path) -> "litgpt.Tokenizer":
    """Load a tokenizer folder as LitGPT's tokenizer.

    Raises:
        LitMoEError: The folder or a file in it is missing or broken, or there is no end-of-text token.
    """
    _, end_id = open_tokenizer(directory)
    import litgpt

    try:
        tokenizer = litgpt.Tokenizer(directory)
        if tokenizer.eos_id != end_id:
            raise ValueError(f"it finds {tokenizer.eos_id} as end token instead of {end_id}")
        return tokenizer
    except Exception as error:  # KeyError, ValueError, ... from whatever the files lack
        raise LitMoEError(
            f"LitGPT cannot read the tokenizer in {directory} ({type(error).__name__}: {error}); make the "
            f"folder anew with litmoe prepare --tokenizer {directory} --tokenizer-dir NEW_FOLDER"
        ) from error


def open_tokenizer(directory: Path) -> tuple["tokenizers.Tokenizer", int]:
    """Open a folder with the ``tokenizers`` library alone (no torch); return it and the end token's id.

    The tokenizer is set to treat special tokens in a text as the plain characters they are.

    Raises:
        LitMoEError: As :func:`load_tokenizer`.
    """
    tokenizer, end = _read_source(directory, str(directory))
    tokenizer.encode_special_tokens = True
    return tokenizer, tokenizer.token_to_id(end)


def tokenizer_fingerprint(directory: Path) -> str:
    """A hash of what decides the ids of a text: tokenizer.json and the end token.

    Raises:
        LitMoEError: As :func:`load_tokenizer`.
    """
    _, end_id = open_tokenizer(directory)
    content = (directory / "tokenizer.json").read_bytes()
    return hashlib.sha256(content + f"\nend {end_id}".encode()).hexdigest()


def tokenizer_record(directory: Path) -> dict[str, Any] | None:
    """How litmoe made this tokenizer, or None if it did not."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _read_source(directory: Path, where: str) -> tuple["tokenizers.Tokenizer", str]:
    """Read whatever tokenizer a folder holds; return it with its end token."""
    import tokenizers as hf

    if not directory.is_dir():
        raise LitMoEError(f"there is no tokenizer folder {where}; make one with litmoe prepare, {_USE_TRAIN}")
    file = directory / "tokenizer.json"
    pair = directory / "vocab.json", directory / "merges.txt"
    try:
        if file.is_file():
            tokenizer = hf.Tokenizer.from_file(str(file))
        elif pair[0].is_file() and pair[1].is_file():
            tokenizer = hf.Tokenizer(hf.models.BPE.from_file(str(pair[0]), str(pair[1])))
            tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = hf.decoders.ByteLevel()
        else:
            found = ", ".join(sorted(entry.name for entry in directory.iterdir())[:4]) or "nothing"
            raise LitMoEError(
                f"{where} holds no tokenizer.json (but {found}); give another tokenizer, {_USE_TRAIN}"
            )
    except LitMoEError:
        raise
    except Exception as error:  # the library raises bare Exception for a file it cannot parse
        reason = str(error).splitlines()[0]
        raise LitMoEError(
            f"the tokenizer in {where} is damaged or of an unknown kind ({reason}); get it again, {_USE_TRAIN}"
        ) from error
    # Hub tokenizers may carry the limits of the model they come with: a store needs every token.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end = _end_token(directory, tokenizer, where)
    if not any(token.content == end for token in tokenizer.get_added_tokens_decoder().values()):
        tokenizer.add_special_tokens([hf.AddedToken(end, normalized=False, special=True)])
    return tokenizer, end


def _end_token(directory: Path, tokenizer: "tokenizers.Tokenizer", where: str) -> str:
    """The end token which the files beside tokenizer.json name, else ``<|endoftext|>`` if it is known."""
    named: list[Any] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _read_json(directory / name, where).get("eos_token")
        named.append(token.get("content") if isinstance(token, dict) else token)
    for name in ("generation_config.json", "config.json"):
        ids = _read_json(directory / name, where).get("eos_token_id")
        first = ids[0] if isinstance(ids, list) and ids else ids
        named.append(tokenizer.id_to_token(first) if isinstance(first, int) and first >= 0 else None)
    named.append(END_OF_TEXT)
    for token in named:
        if isinstance(token, str) and tokenizer.token_to_id(token) is not None:
            return token
    raise LitMoEError(
        f"the tokenizer in {where} has no end-of-text token: name one of its tokens as eos_token in "
        f"tokenizer_config.json, {_USE_TRAIN}"
    )


def _read_json(path: Path, where: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LitMoEError(f"{path.name} of {where} is not readable JSON ({error}); get it again") from error
    return content if isinstance(content, dict) else {}


def _write(
    tokenizer: "tokenizers.Tokenizer",
    end: str,
    directory: Path,
    record: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Write the folder, whole or not at all."""
    import tokenizers as hf

    end_id = tokenizer.token_to_id(end)
    # A post-processor makes `tokenizers` and Transformers put the begin token first; `add_bos_token` says the
    # same to LitGPT, and to Transformers 5, which then builds the same post-processor.
    tokenizer.post_processor = hf.processors.TemplateProcessing(
        single=[end, "$A"], pair=[end, "$A", "$B"], special_tokens=[(end, end_id)]
    )
    config = {
        # The generic class takes everything from tokenizer.json; named classes add rules of their own.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    contents = {
        "tokenizer_config.json": config,
        "generation_config.json": {"bos_token_id": end_id, "eos_token_id": end_id},
        RECORD: record,
    }
    with only_one_process(directory, say), whole_folder(directory, OWN_FILES, "tokenizer") as folder:
        # The library writes to the path itself and knows no errors but its own: write its string instead.
        (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8", newline="\n")
        for name, content in contents.items():
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
