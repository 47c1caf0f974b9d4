"""``prepare`` on a small source, with the lines that it says and the documents that it leaves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers as hf

from litmoe.config import PrepareConfig
from litmoe.data.documents import END_OF_TEXT
from litmoe.data.prepare import PreparedData, prepare
from litmoe.data.token_store import TokenStore
from litmoe.errors import LitMoEError

DOCUMENTS = [
    f"Story {i}. Once upon a time, {i * 7 % 23} little foxes ran.\n\nThey slept." for i in range(120)
]


def write(path: Path, documents: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"\n{END_OF_TEXT}\n".join(documents), encoding="utf-8", newline="\n")


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below, with its time and content; apart from locks, and from when a store was checked."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.name != "store.json"
    }


class Prepare:
    """``prepare`` with its lines."""

    def __init__(self, tmp_path: Path) -> None:
        self.data, self.said = tmp_path / "data", list[str]()
        write(tmp_path / "source.txt", DOCUMENTS)
        self.config = PrepareConfig(
            source=[str(tmp_path / "source.txt")],
            data_dir=self.data,
            tokenizer="train",
            vocab_size=300,
            tokenizer_dir=tmp_path / "tokenizer",
            progress=False,
        )

    def __call__(self, **changes: object) -> PreparedData:
        self.said = []
        return prepare(replace(self.config, **changes), self.said.append)  # type: ignore[arg-type]

    def said_something_like(self, words: str) -> bool:
        return any(words in line for line in self.said)

    def refused(self, message: str, **changes: object) -> None:
        """Refused in one line, with nothing changed."""
        before = snapshot(self.data.parent)
        with pytest.raises(LitMoEError, match=message) as error:
            self(**changes)
        assert "\n" not in str(error.value)
        assert snapshot(self.data.parent) == before

    def documents(self, split: str) -> list[str]:
        """The documents of a store, by the `tokenizers` library alone."""
        store = TokenStore.open(self.data / split / split)
        tokenizer = hf.Tokenizer.from_file(str(self.config.tokenizer_dir / "tokenizer.json"))
        ends = np.asarray(store.document_offsets[1:])
        return [
            tokenizer.decode(store.tokens[start : end - 1].tolist(), skip_special_tokens=False)
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]
