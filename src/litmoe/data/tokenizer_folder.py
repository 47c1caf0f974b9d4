"""The tokenizer folder: what is in it, read with care, and written so that three libraries read the same.

``tokenizers`` reads tokenizer.json; LitGPT and Transformers read the two files beside it as well. Hub folders
leave out what one or the other needs, so a folder of litmoe's is always written whole, with one rule in all
three files: the end-of-text token is also the begin token, because in the token store it stands before every
document but the first. A begin token of its own would never be trained. So encoding a prompt puts end-of-text
before it in all three libraries: the model is told that a document starts.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litmoe.data.documents import END_OF_TEXT
from litmoe.errors import ConfigError, DataError
from litmoe.files import only_one_process, reason_of, whole_folder
from litmoe.messages import Say, one_line, silent

if TYPE_CHECKING:
    import litgpt
    import tokenizers

RECORD = "litmoe_tokenizer.json"
"""Says how the tokenizer was made. Also the sign that the folder is litmoe's to replace."""

FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
OWN_FILES = frozenset((*FILES, RECORD))
USE_TRAIN = "or train one on your own text with --tokenizer train, which needs no network"
"""The way out that always works, to end a message with."""


def load_tokenizer(directory: Path, say: Say = silent) -> "litgpt.Tokenizer":
    """Load a tokenizer folder as LitGPT's tokenizer.

    Args:
        directory: The folder.
        say: Told where the folder contradicts itself, see :func:`open_tokenizer`.

    Raises:
        DataError: The folder or a file in it is missing or broken, or there is no end-of-text token.
    """
    _, end_id = open_tokenizer(directory, say)
    import litgpt

    try:
        tokenizer = litgpt.Tokenizer(directory)
        if tokenizer.eos_id != end_id:
            raise ValueError(f"it finds {tokenizer.eos_id} as end token instead of {end_id}")
        return tokenizer
    except Exception as error:  # KeyError, ValueError, ... from whatever the files lack
        raise DataError(
            f"LitGPT cannot read the tokenizer in {directory} ({type(error).__name__}: {error}); make the "
            f"folder again with litmoe prepare --tokenizer {directory} --tokenizer-dir NEW_FOLDER"
        ) from error


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer for prompts and texts, by the names of LitGPT's, which takes seconds to import."""

    processor: "tokenizers.Tokenizer"
    bos_id: int | None
    """What a prompt begins with."""
    eos_id: int


def load_text_tokenizer(directory: Path, say: Say = silent) -> TextTokenizer:
    """Load a tokenizer folder with the ``tokenizers`` library alone; its begin token as LitGPT finds it.

    Raises:
        DataError: As :func:`load_tokenizer`.
    """
    processor, end_id = open_tokenizer(directory, say)
    named = _content(_read_json(directory / "tokenizer_config.json", str(directory)).get("bos_token"))
    given = _ids(_read_json(directory / "generation_config.json", str(directory)).get("bos_token_id"))
    begin_id = next(iter(given), None) if named is None else processor.token_to_id(named)
    if named is not None and begin_id is None:
        raise DataError(
            f"tokenizer_config.json of {directory} names {named!r} as bos_token, which its vocabulary does not "
            f"have: name one of its tokens there, or get the tokenizer again, {USE_TRAIN}"
        )
    return TextTokenizer(processor, begin_id, end_id)


def open_tokenizer(directory: Path, say: Say = silent) -> tuple["tokenizers.Tokenizer", int]:
    """Open a folder with the ``tokenizers`` library alone (no torch); return it and the end token's id.

    The tokenizer is set to treat special tokens in a text as the plain characters they are.

    Args:
        directory: The folder.
        say: Told if ids that the folder gives for begin or end are not those of the tokens that it names.

    Raises:
        DataError: As :func:`load_tokenizer`.
    """
    tokenizer, end = read_folder(directory, str(directory), say)
    tokenizer.encode_special_tokens = True
    return tokenizer, tokenizer.token_to_id(end)


def tokenizer_fingerprint(directory: Path) -> str:
    """A hash of what decides the ids of a text: tokenizer.json and the end token.

    Raises:
        DataError: As :func:`load_tokenizer`.
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


def vocabulary_size(tokenizer: "tokenizers.Tokenizer") -> int:
    """The largest id plus one: more than there are tokens where the vocabulary has gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def refuse_small_vocabulary(n_tokens: int, padded_vocab_size: int | None, where: object) -> None:
    """Refuse a model whose embedding has no row for every token.

    Raises:
        ConfigError: It has fewer rows.
    """
    if padded_vocab_size is not None and n_tokens > padded_vocab_size:
        raise ConfigError(
            f"{where}: the tokenizer has {n_tokens:,} tokens, the model's embedding only {padded_vocab_size:,} "
            f"rows: set vocab_size to {n_tokens} in the model configuration, and padded_vocab_size, if it is "
            "given there, to as much or more"
        )


def read_folder(directory: Path, where: str, say: Say = silent) -> tuple["tokenizers.Tokenizer", str]:
    """Read whatever tokenizer a folder holds; return it with its end token.

    Args:
        directory: A folder with tokenizer.json, or with GPT-2's vocab.json and merges.txt.
        where: The folder's name for messages.
        say: Told where the folder contradicts itself.

    Raises:
        DataError: There is no tokenizer that can be used.
    """
    import tokenizers as hf

    file = directory / "tokenizer.json"
    pair = directory / "vocab.json", directory / "merges.txt"
    try:
        if not directory.is_dir():
            raise DataError(
                f"there is no tokenizer folder {where}; make one with litmoe prepare, {USE_TRAIN}"
            )
        if file.is_file():
            tokenizer = hf.Tokenizer.from_file(str(file))
        elif pair[0].is_file() and pair[1].is_file():
            tokenizer = hf.Tokenizer(hf.models.BPE.from_file(str(pair[0]), str(pair[1])))
            tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = hf.decoders.ByteLevel()
        else:
            raise DataError(_what_is_missing(directory, where))
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"the tokenizer in {where} cannot be read: {reason_of(error)}; check its permissions"
        ) from error
    except Exception as error:  # the library raises bare Exception for a file it cannot parse
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the tokenizer in {where} is damaged or of an unknown kind ({reason}); get it again, {USE_TRAIN}"
        ) from error
    # Hub tokenizers may carry the limits of the model they come with: a store needs every token.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end = _end_token(directory, tokenizer, where, say)
    if not any(token.content == end for token in tokenizer.get_added_tokens_decoder().values()):
        tokenizer.add_special_tokens([hf.AddedToken(end, normalized=False, special=True)])
    return tokenizer, end


def write_folder(
    tokenizer: "tokenizers.Tokenizer",
    end: str,
    directory: Path,
    record: dict[str, Any],
    say: Say,
    source: Path | None = None,
) -> None:
    """Write a tokenizer folder, whole or not at all.

    Args:
        tokenizer: The tokenizer; its post-processor is replaced.
        end: Its end token.
        directory: The folder; an older tokenizer of litmoe's there is replaced.
        record: How it was made.
        say: Told if another process is writing the folder.
        source: The folder that it was read from, if it was.

    Raises:
        LitMoEError: ``directory`` holds other files, or cannot be written.
    """
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
    serialized = _serialized(tokenizer, source)
    with only_one_process(directory, say), whole_folder(directory, OWN_FILES, "tokenizer") as folder:
        # The library writes to the path itself and knows no errors but its own: write its string instead.
        (folder / "tokenizer.json").write_text(serialized, encoding="utf-8", newline="\n")
        for name, content in contents.items():
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _what_is_missing(directory: Path, where: str) -> str:
    """The message for a folder without a tokenizer that litmoe reads."""
    found = sorted(entry.name for entry in directory.iterdir())
    if "tokenizer.model" in found:
        return (
            f"{where} holds only tokenizer.model, SentencePiece's file, and litmoe reads tokenizer.json: get that "
            "from the same place, or let Transformers write it (pip install transformers sentencepiece protobuf): "
            f"AutoTokenizer.from_pretrained({directory.as_posix()!r}).save_pretrained(NEW_FOLDER)"
        )
    if "vocab.json" in found:
        return (
            f"{where} has vocab.json but no merges.txt beside it; get both, or a tokenizer.json, {USE_TRAIN}"
        )
    names = ", ".join(found[:4]) or "nothing"
    return f"{where} holds no tokenizer.json (but {names}); give another tokenizer, {USE_TRAIN}"


def _end_token(directory: Path, tokenizer: "tokenizers.Tokenizer", where: str, say: Say) -> str:
    """The end token which the files beside tokenizer.json name, else ``<|endoftext|>`` if it is known.

    Raises:
        DataError: A token or id is named that the vocabulary does not have, or none can be found.
    """
    settings = {
        name: _read_json(directory / name, where)
        for name in (
            "tokenizer_config.json",
            "special_tokens_map.json",
            "generation_config.json",
            "config.json",
        )
    }
    end = None
    for name, content in settings.items():
        for token in (_content(content.get("eos_token")), *_ids(content.get("eos_token_id"))):
            if token is None or end is not None:
                continue
            known = tokenizer.token_to_id(token) if isinstance(token, str) else tokenizer.id_to_token(token)
            if known is None:
                key = "eos_token" if isinstance(token, str) else "eos_token_id"
                raise DataError(
                    f"{name} of {where} names {token!r} as {key}, which its vocabulary does not have: name one of "
                    f"its tokens there, or get the tokenizer again, {USE_TRAIN}"
                )
            end = token if isinstance(token, str) else str(known)
    if end is None and tokenizer.token_to_id(END_OF_TEXT) is not None:
        end = END_OF_TEXT
    if end is None:
        raise DataError(
            f"the tokenizer in {where} has no end-of-text token: name one of its tokens as eos_token in "
            f"tokenizer_config.json, {USE_TRAIN}"
        )
    begin = next((_content(content.get("bos_token")) for content in settings.values()), None)
    for kind, used in (("eos", end), ("bos", begin)):
        _say_contradiction(settings, kind, used, tokenizer, where, say)
    return end


def _say_contradiction(
    settings: dict[str, dict[str, Any]],
    kind: str,
    used: str | None,
    tokenizer: "tokenizers.Tokenizer",
    where: str,
    say: Say,
) -> None:
    """Say if a file gives another id for the begin or end token than that of the token used."""
    used_id = None if used is None else tokenizer.token_to_id(used)
    for name, content in settings.items():
        given = _ids(content.get(f"{kind}_token_id"))
        if used_id is not None and given and used_id not in given:
            say(
                f"tokenizer: {name} of {where} has {kind}_token_id {given[0]}, but the token named, {used!r}, has "
                f"id {used_id}, which is used"
            )
            return


def _content(token: Any) -> str | None:
    """A token as the files name it: its text, or an object with it; empty means none."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def _ids(given: Any) -> list[int]:
    """Ids as the files give them: one, several, or none (null, or -1)."""
    ids = given if isinstance(given, list) else [given]
    return [value for value in ids if type(value) is int and value >= 0]


def _read_json(path: Path, where: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path.name} of {where} is not readable JSON ({one_line(error)}); get it again"
        ) from error
    return content if isinstance(content, dict) else {}


def _serialized(tokenizer: "tokenizers.Tokenizer", source: Path | None) -> str:
    """The content of tokenizer.json.

    Of a vocabulary with gaps the library prints every id that is missing, megabytes of them, when it writes it:
    then the vocabulary is taken from the file that it was read from.
    """
    ids = tokenizer.get_vocab(with_added_tokens=False).values()
    if source is None or not ids or max(ids) + 1 == len(ids):
        return tokenizer.to_str(pretty=True)
    import tokenizers as hf

    bare = hf.Tokenizer(hf.models.BPE())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(tokenizer, part) is not None:
            setattr(bare, part, getattr(tokenizer, part))
    content = json.loads(bare.to_str())
    keys = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    content["added_tokens"] = [
        {"id": number} | {key: getattr(token, key) for key in keys}
        for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
    ]
    content["model"] = _model_of(source)
    return json.dumps(content, indent=2, ensure_ascii=False)


def _model_of(source: Path) -> dict[str, Any]:
    """The ``model`` of the tokenizer.json in a folder, or that of GPT-2's pair of files."""
    if (source / "tokenizer.json").is_file():
        model: dict[str, Any] = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        return model
    lines = (source / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    vocab = json.loads((source / "vocab.json").read_text(encoding="utf-8"))
    return {"type": "BPE", "vocab": vocab, "merges": merges}
