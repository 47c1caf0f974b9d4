"""``prepare``: the same request is reused, another refused, a user's files never touched."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.preparing import DOCUMENTS, Prepare, snapshot, write

from litmoe.data.documents import END_OF_TEXT
from litmoe.data.tokenizer import train_tokenizer


@pytest.fixture
def run(tmp_path: Path) -> Prepare:
    return Prepare(tmp_path)


def test_every_document_lands_on_one_side(run: Prepare) -> None:
    prepared = run()
    train, val = run.documents("train"), run.documents("val")
    assert sorted(train + val) == sorted(DOCUMENTS) and train and val
    assert not set(train) & set(val)
    assert (prepared.train.documents, prepared.val.documents) == (len(train), len(val))
    assert prepared.train.text_bytes == sum(len(document.encode()) for document in train)
    assert prepared.vocab_size == 300
    shard = (run.data / "train/shard-00000.txt").read_text(encoding="utf-8")
    assert [text.strip() for text in shard.split(END_OF_TEXT) if text.strip()] == train
    assert run.said_something_like("tokens per byte") and run.said_something_like("MB/s")
    assert all("\n" not in line for line in run.said)
    assert not (run.data / ".preparing").exists()


def test_sides_do_not_depend_on_order_or_files(run: Prepare, tmp_path: Path) -> None:
    run()
    val = set(run.documents("val"))
    write(tmp_path / "other/b.txt", DOCUMENTS[:50][::-1])
    (tmp_path / "other/a.jsonl").write_text("\n".join(json.dumps({"text": d}) for d in DOCUMENTS[50:]))
    run(source=[str(tmp_path / "other")], force=True)
    assert set(run.documents("val")) == val


def test_same_request_is_reused(run: Prepare) -> None:
    first = run()
    before = snapshot(run.data)
    second = run()
    assert snapshot(run.data) == before
    assert replace(second, seconds=first.seconds) == first
    assert run.said_something_like("already prepared") and run.said_something_like("tokenizer: already")
    third = run(source=[], tokenizer=None)  # whoever names nothing gets what is there
    assert replace(third, seconds=first.seconds) == first and snapshot(run.data) == before


def test_other_request_is_refused_then_forced(run: Prepare) -> None:
    run()
    run.refused("max_documents was None, now 50; use --force", max_documents=50)
    run.refused("another tokenizer .*use --force", vocab_size=290)
    prepared = run(max_documents=50, vocab_size=290, force=True)
    assert prepared.train.documents + prepared.val.documents == 50 and prepared.vocab_size == 290
    assert run.said_something_like("train store rebuilt")
    assert set(run.documents("train") + run.documents("val")) == set(DOCUMENTS[:50])


def test_changed_source_is_noticed(run: Prepare) -> None:
    run()
    write(Path(run.config.source[0]), [*DOCUMENTS, "one more"])
    run.refused("source.txt changed since")
    assert "one more" not in run.documents("train") + run.documents("val")
    run(force=True)
    assert "one more" in run.documents("train") + run.documents("val")


def test_missing_shard_is_written_again(run: Prepare) -> None:
    first = run()
    (run.data / "train/shard-00000.txt").unlink()
    second = run()
    assert run.said_something_like("shard-00000.txt is missing")
    assert second.train.fingerprint == first.train.fingerprint


def test_users_text_is_used_where_it_is_and_never_moved(run: Prepare) -> None:
    write(run.data / "train/mine.txt", DOCUMENTS)
    before = (run.data / "train/mine.txt").read_bytes()
    run(source=[])
    assert sorted(run.documents("train") + run.documents("val")) == sorted(DOCUMENTS)
    assert not set(run.documents("train")) & set(run.documents("val"))
    assert list(run.data.rglob("*.txt")) == [run.data / "train/mine.txt"]
    for force in (False, True):
        run.refused("mine.txt was not written by prepare", force=force)
    run.refused("--max-documents works on text read with --source", source=[], max_documents=9)
    write(run.data / "val/mine.txt", ["held out"])
    run(source=[])
    assert run.documents("train") == DOCUMENTS and run.documents("val") == ["held out"]
    assert (run.data / "train/mine.txt").read_bytes() == before


def test_edited_shard_and_added_file_are_the_users(run: Prepare) -> None:
    run()
    write(run.data / "val/extra.txt", ["mine"])
    run.refused("extra.txt was not written by prepare", max_documents=9, force=True)
    (run.data / "val/extra.txt").unlink()
    with (run.data / "train/shard-00000.txt").open("a", encoding="utf-8") as file:
        file.write("an edit")
    run.refused("shard-00000.txt changed since prepare wrote it", max_documents=9, force=True)
    run(source=[], tokenizer=None)
    assert run.documents("train")[-1] == "an edit"


def test_published_split_is_kept_whole_and_not_trained_on(run: Prepare, tmp_path: Path) -> None:
    write(tmp_path / "own/train.txt", DOCUMENTS)
    write(tmp_path / "own/val.txt", [DOCUMENTS[3], "only here", DOCUMENTS[5]])
    prepared = run(source=[str(tmp_path / "own")])
    assert run.documents("val") == [DOCUMENTS[3], "only here", DOCUMENTS[5]]
    assert run.documents("train") == [d for i, d in enumerate(DOCUMENTS) if i not in (3, 5)]
    assert prepared.val.documents == 3
    assert run.said_something_like("dropped 2 training documents")
    assert json.loads((run.data / "corpus.json").read_text())["dropped_from_train"] == 2


def test_sample_is_the_default_and_says_what_it_is(run: Prepare) -> None:
    prepared = run(source=[], tokenizer=None, max_documents=200)
    assert prepared.train.documents + prepared.val.documents == 200
    assert run.said_something_like("synthetic")
    before = snapshot(run.data.parent)
    run(source=[], tokenizer=None, max_documents=200)
    assert snapshot(run.data.parent) == before
    run.refused("seed was 0, now 1", source=[], tokenizer=None, max_documents=200, seed=1)


def test_two_documents_are_enough_and_one_is_not(run: Prepare, tmp_path: Path) -> None:
    write(tmp_path / "one.txt", ["alone"])
    run.refused("only one document.*--document-boundaries blank-line", source=[str(tmp_path / "one.txt")])
    write(tmp_path / "empty.txt", ["  "])
    run.refused("holds no document", source=[str(tmp_path / "empty.txt")])
    write(tmp_path / "two.txt", ["first\n\nsecond"])
    prepared = run(source=[str(tmp_path / "two.txt")], split="blank-line")
    assert (prepared.train.documents, prepared.val.documents) == (1, 1)


def test_wrong_settings(run: Prepare, tmp_path: Path) -> None:
    run.data.mkdir()
    run.refused("--val-fraction is 1.0", val_fraction=1.0)
    run.refused("--max-documents is 1", max_documents=1)
    run.refused("there is no file or folder", source=[str(tmp_path / "nowhere")])
    run.refused("lies in the source", source=[str(tmp_path)])
    write(run.data / "train/x.txt", DOCUMENTS)
    run.refused("lies in the data folder", source=[str(run.data / "train")])


def test_foreign_folders_are_left_alone(run: Prepare) -> None:
    (run.data / "train/train").mkdir(parents=True)
    (run.data / "train/train/index.json").write_text("{}")
    run.refused("not a token store of litmoe")
    (run.data / "train/train/index.json").unlink()
    run.config.tokenizer_dir.mkdir()
    (run.config.tokenizer_dir / "lit_model.pth").touch()
    run.refused("not a tokenizer of litmoe")


def test_hand_made_tokenizer_is_used_but_not_replaced(run: Prepare) -> None:
    train_tokenizer(DOCUMENTS, 270, run.config.tokenizer_dir, progress=False)
    (run.config.tokenizer_dir / "litmoe_tokenizer.json").unlink()
    run.refused("a tokenizer that litmoe did not make", force=True)
    assert run(tokenizer=None).vocab_size == 270
    assert run(tokenizer=str(run.config.tokenizer_dir)).vocab_size == 270


def test_bad_text_in_the_middle_leaves_the_old_data(run: Prepare, tmp_path: Path) -> None:
    run()
    (tmp_path / "z.jsonl").write_text('{"text": "good"}\n{"nothing": 1}')
    run.refused("line 2 has no 'text'", source=[*run.config.source, str(tmp_path / "z.jsonl")], force=True)
    assert not (run.data / ".preparing").exists()


KILLED = """
import os, sys
from pathlib import Path
from litmoe.config import PrepareConfig
from litmoe.data import prepare, prepared_text
source, data, tokenizer, moment = sys.argv[1:]
def die(*args, **kwargs):
    os._exit(9)
if moment == "writing":
    real = prepared_text.write_splits
    prepared_text.write_splits = lambda *args: (real(*args), die())
elif moment == "written":
    prepared_text._move_in = die
elif moment == "moving":
    real, calls = Path.replace, []
    def replace(self, target):
        if self.suffix == ".txt":
            calls.append(self)
            if len(calls) == 2:
                die()
        return real(self, target)
    Path.replace = replace
elif moment == "tokenizer":
    prepare.train_tokenizer = die
config = PrepareConfig(source=[source], data_dir=Path(data), tokenizer="train", vocab_size=300,
                       tokenizer_dir=Path(tokenizer), progress=False, force=True)
prepare.prepare(config)
"""


@pytest.mark.parametrize(
    ("moment", "over_old"),
    [("writing", True), ("written", True), ("moving", True), ("moving", False), ("tokenizer", False)],
)
def test_killed_run_is_finished_by_the_next(
    run: Prepare, tmp_path: Path, moment: str, over_old: bool
) -> None:
    expected = run(data_dir=tmp_path / "expected", tokenizer_dir=tmp_path / "expected-tokenizer")
    if over_old:
        run(max_documents=40)
    paths = [run.config.source[0], str(run.data), str(run.config.tokenizer_dir)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *paths, moment], capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    prepared = run(force=True)
    assert prepared.train.fingerprint == expected.train.fingerprint
    assert prepared.val.fingerprint == expected.val.fingerprint
    assert not (run.data / ".preparing").exists()
    names = {path.relative_to(run.data).as_posix() for path in run.data.rglob("*.txt")}
    assert names == {"train/shard-00000.txt", "val/shard-00000.txt"}


def test_shards_are_cut_between_documents(run: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litmoe.data.text_shards.SHARD_BYTES", 1000)
    run()
    train = run.documents("train")
    files = sorted((run.data / "train").glob("*.txt"))
    assert len(files) > 3 and all(path.stat().st_size < 1200 for path in files)
    assert sorted(train + run.documents("val")) == sorted(DOCUMENTS)
    monkeypatch.undo()
    run(force=True, val_fraction=0.1)  # fewer files: the old ones must go
    assert len(list((run.data / "train").glob("*.txt"))) == 1
