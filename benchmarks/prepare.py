"""Megabytes of text tokenized per second, against LitGPT's ``TextFiles`` on the same files.

    python benchmarks/prepare.py [--repeats 1] [--text FOLDER]

One large file, and the same documents in one file each. The text is the built-in sample (5.4 MB, 8,552
documents) or the .txt files of a folder; the tokenizer has 4,096 tokens and is trained on it. The call that
makes the training store is timed, without imports: litmoe's ``ensure_store``, LitGPT's
``TextFiles.prepare_data``. litmoe's tokens must equal those of the ``tokenizers`` library, which is timed alone
as well (the same documents in batches). LitGPT treats the ends of documents differently: its number of tokens
must agree within 2 %.
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
    """MB per second for one large file and many small ones: litmoe, LitGPT, and the library alone."""
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
            assert medians["ours"]["ids"] == medians["library"]["ids"], "the tokens differ from the library's"
            assert math.isclose(medians["ours"]["tokens"], medians["litgpt"]["tokens"], rel_tol=0.02)
            speeds = {side: megabytes / result["seconds"] for side, result in medians.items()}
            figure = f"prepare, {shape} of {megabytes:.1f} MB"
            found += [
                Row(figure, speeds["ours"], speeds["litgpt"], unit="MB/s", more_is_better=True),
                Row(figure, speeds["ours"], speeds["library"], "library alone", "MB/s", more_is_better=True),
            ]
    return found


def measure(side: str, folder: Path, shape: str) -> dict[str, Any]:
    """Seconds of one preparation, its number of tokens, and a hash of the ids where they are compared."""
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
    # LitData empties its cache folders, by default in the system's temporary folder.
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(scratch / "cache")
    os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = str(scratch / "data")
    import litdata  # noqa: F401  prepare_data would import it within the measured time
    from litgpt import Tokenizer
    from litgpt.data import TextFiles

    (text / "val").mkdir()  # LitGPT takes an existing folder as prepared: only the training text is measured
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
    """Write the text in both forms, and train a tokenizer; the megabytes of the text."""
    settings = PrepareConfig(
        source=["sample"] if source is None else [str(source)],
        data_dir=folder / "prepared",
        tokenizer="train",
        tokenizer_dir=folder / "tokenizer",
        progress=False,
    )
    prepare(settings, say=lambda _: None)
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
    args = parser.parse_args()
    if args.variant:
        side, folder, shape = args.variant
        report(measure(side, Path(folder), shape))
    else:
        print(table(rows(args.repeats, args.text)))


if __name__ == "__main__":  # LitData starts processes that import this file
    main()
