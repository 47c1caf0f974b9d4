"""``samples.jsonl``: the texts that a model writes while it trains, one JSON object a line."""

import json
from collections.abc import Sequence
from pathlib import Path

from litmoe.files import unwritable

SAMPLES_FILE = "samples.jsonl"


def append_samples(folder: Path, step: int, total_tokens: int, texts: Sequence[str]) -> None:
    """Add the texts of a step, each with the prompt that it begins with.

    A run that goes back to an earlier step writes its texts again; whoever reads takes the last of a step.

    Raises:
        LitMoEError: the file cannot be written.
    """
    path = folder / SAMPLES_FILE
    records = ({"step": step, "total_tokens": total_tokens, "text": text} for text in texts)
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    try:
        with path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise unwritable(path, error) from error


def clear_samples(folder: Path) -> None:
    """Forget the texts of an earlier run in the same folder.

    Raises:
        LitMoEError: the file cannot be removed.
    """
    path = folder / SAMPLES_FILE
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
