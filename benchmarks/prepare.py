"""Megabytes of text per second made into tokens, against LitGPT's ``TextFiles`` on the same files.

    python benchmarks/prepare.py [--repeats 1] [--text FOLDER]

One large file, and the same documents as a file each. The text is the built-in sample (5.4 MB, 8,552 documents) or
the .txt files of a folder, the tokenizer one of 4,096 tokens trained on it. Measured is the call that makes the
training store, without imports; ours is ``ensure_store``, LitGPT's ``TextFiles.prepare_data``. Our tokens must be
those of the ``tokenizers`` library, whose own speed (the same documents in batches, nothing else) is the limit;
LitGPT's must be as many within 2 %, for it treats the ends of documents differently.
"""

import argparse
import hashlib
import json
import math
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from measuring import Row, interleaved, report, table, variant

from litmoe.config import PrepareConfig
from litmoe.data.documents import END_OF_TEXT
from litmoe.data.prepare import prepare
from litmoe.data.token_store import ensure_store

TIMEOUT = 600


def rows(repeats: int = 1, text: Path | None = None) -> list[Row]:
    """MB per second for one large and many small files, ours, LitGPT's and the library's alone."""
    found = []
    with tempfile.TemporaryDirectory(prefix="litmoe-prepare-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        megabytes = _write_texts(folder, text)
        for shape in ("one file", "many files"):
            sides = {
                side: partial(variant, __file__, side, str(folder), shape, timeout=TIMEOUT)
                for side in ("ours", "litgpt", "library")
            }
            medians = interleaved(sides, repeats)
            assert medians["ours"]["ids"] == medians["library"]["ids"], "other tokens than the library's"
            assert math.isclose(medians["ours"]["tokens"], medians["litgpt"]["tokens"], rel_tol=0.02)
            speeds = {side: megabytes / result["seconds"] for side, result in medians.items()}
            figure = f"prepare, {shape} of {megabytes:.1f} MB"
            found += [
                Row(figure, speeds["ours"], speeds["litgpt"], unit="MB/s", more_is_better=True),
                Row(figure, speeds["ours"], speeds["library"], "library alone", "MB/s", more_is_better=True),
            ]
    return found


def measure(side: str, folder: Path, shape: str) -> dict[str, Any]:
    """Seconds of one preparation, the peak memory it added, and what is in it."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder, ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        text = scratch / "text"
        text.mkdir()
        for path in (folder / shape).iterdir():
            (text / path.name).hardlink_to(path)
        measure_side = {
            "ours": partial(_ours, text, folder / "tokenizer", scratch / "store"),
            "litgpt": partial(_litgpt, text, folder / "tokenizer", scratch),
            "library": partial(_library, text, folder / "tokenizer"),
        }[side]
        seconds, tokens, ids = measure_side()
        return {"seconds": seconds, "tokens": tokens, "ids": ids}


def _ours(text: Path, tokenizer_dir: Path, store_dir: Path) -> tuple[float, int, str | None]:
    before = time.perf_counter()
    store = ensure_store(text, tokenizer_dir, store_dir, say=lambda _: None, progress=False)
    seconds = time.perf_counter() - before
    return seconds, store.n_tokens, _digest(np.asarray(store.tokens[store.tokens != store.eos_id]))


def _litgpt(text: Path, tokenizer_dir: Path, scratch: Path) -> tuple[float, int, str | None]:
    # LitData empties its cache folders, which lie in the system's temporary folder if nobody says otherwise.
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(scratch / "cache")
    os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = str(scratch / "data")
    import litdata  # noqa: F401  an import that prepare_data would do
    from litgpt import Tokenizer
    from litgpt.data import TextFiles

    (text / "val").mkdir()  # a folder that is there counts as prepared: only training text is measured
    module = TextFiles(train_data_path=text, val_data_path=text, num_workers=1)
    module.connect(tokenizer=Tokenizer(tokenizer_dir), batch_size=1, max_seq_length=256)
    start = time.perf_counter()
    module.prepare_data()
    seconds = time.perf_counter() - start
    chunks = json.loads((text / "train" / "index.json").read_text(encoding="utf-8"))["chunks"]
    return seconds, sum(chunk["dim"] for chunk in chunks), None


def _library(text: Path, tokenizer_dir: Path) -> tuple[float, int, str | None]:
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    documents = [
        document.strip()
        for path in sorted(text.glob("*.txt"))
        for document in path.read_text(encoding="utf-8").split(END_OF_TEXT)
        if document.strip()
    ]
    ids: list[int] = []
    seconds = 0.0
    for first in range(0, len(documents), 2000):
        start = time.perf_counter()
        encodings = tokenizer.encode_batch_fast(documents[first : first + 2000], add_special_tokens=False)
        seconds += time.perf_counter() - start
        for encoding in encodings:
            ids += encoding.ids
    return seconds, len(ids) + len(documents), _digest(np.asarray(ids))


def _digest(ids: np.ndarray) -> str:
    return hashlib.sha256(ids.astype("<u4").tobytes()).hexdigest()


def _write_texts(folder: Path, source: Path | None) -> float:
    """The text in both shapes, and a tokenizer; returns its megabytes."""
    words = PrepareConfig(
        source=["sample"] if source is None else [str(source)],
        data_dir=folder / "prepared",
        tokenizer="train",
        tokenizer_dir=folder / "tokenizer",
        progress=False,
    )
    prepare(words, say=lambda _: None)
    text = "".join(p.read_text(encoding="utf-8") for p in sorted((folder / "prepared/train").glob("*.txt")))
    for shape in ("one file", "many files"):
        (folder / shape).mkdir()
    (folder / "one file" / "all.txt").write_text(text, encoding="utf-8", newline="\n")
    for number, document in enumerate(text.split(END_OF_TEXT)):
        if document.strip():
            path = folder / "many files" / f"{number:06d}.txt"
            path.write_text(document.strip(), encoding="utf-8", newline="\n")
    return len(text.encode()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", nargs="*", help="side, folder and shape, to measure in this process")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--text", type=Path)
    words = parser.parse_args()
    if words.variant:
        side, folder, shape = words.variant
        report(measure(side, Path(folder), shape))
    else:
        print(table(rows(words.repeats, words.text)))


if __name__ == "__main__":  # LitData starts processes, which import this file
    main()
