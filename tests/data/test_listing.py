"""What is in a folder is read or named: nothing falls out in silence, on either way in."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litmoe.config import PrepareConfig
from litmoe.data.corpus import open_sources
from litmoe.data.reading.listing import has_text, list_text
from litmoe.errors import DataError


def put(folder: Path, *names: str, content: str = "some text") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError as error:  # Windows asks for a privilege
        pytest.skip(f"no symbolic links here: {error}")


def names(folder: Path) -> list[str]:
    listing = list_text(folder)
    return [listing.name(path) for path in listing.files]


def test_files_of_every_form_at_any_depth_in_any_case(tmp_path: Path) -> None:
    put(tmp_path, "b.txt", "a/z.TXT", "a/more/B.Jsonl.GZ", "c.parquet", "d.ZIP", "e.json.zst", "f.txt.xz")
    assert names(tmp_path) == [
        "a/more/B.Jsonl.GZ", "a/z.TXT", "b.txt", "c.parquet", "d.ZIP", "e.json.zst", "f.txt.xz"
    ]  # fmt: skip
    assert list_text(tmp_path).lines() == []
    assert has_text(tmp_path) and not has_text(tmp_path / "nowhere")


def test_what_is_left_out_is_named_with_its_bytes(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", ".hidden.txt", ".git/x/y", "notes.md", "b.csv", "c.tar.gz", "tokenizer.json")
    link(tmp_path / "gone.txt", tmp_path / "nowhere")
    assert sorted(list_text(tmp_path).lines()) == [
        f"{tmp_path}: left out 1 link that leads nowhere (gone.txt)",
        f"{tmp_path}: left out 2 hidden files (.git/x/y, .hidden.txt), 18 bytes",
        f"{tmp_path}: left out 4 files of other kinds (b.csv, c.tar.gz, notes.md, ...), 36 bytes",
    ]


def test_a_pipe_is_named_and_not_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    put(tmp_path, "a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    assert list_text(tmp_path).lines() == [f"{tmp_path}: left out 1 device or pipe (pipe.txt)"]
    with pytest.raises(DataError, match="is a pipe or device; write its text to a file"):
        open_sources(PrepareConfig(source=[str(tmp_path / "pipe.txt")]))


def test_links_are_followed_each_folder_once(tmp_path: Path) -> None:
    put(tmp_path, "text/z/real.txt", "elsewhere/far.txt", "elsewhere/deep/x.txt")
    text = tmp_path / "text"
    link(text / "a-link", text / "z")  # a real folder keeps its name
    link(text / "b-up", tmp_path)  # a loop
    link(text / "c-self", text)
    link(text / "d-far", tmp_path / "elsewhere")
    link(text / "e-again", tmp_path / "elsewhere" / "deep")
    link(text / "f.txt", tmp_path / "elsewhere" / "far.txt")
    link(tmp_path / "elsewhere" / "back", text)
    assert names(text) == ["d-far/deep/x.txt", "d-far/far.txt", "f.txt", "z/real.txt"]
    assert list_text(text).lines() == [
        f"{text}: left out 5 links to folders read already (a-link, b-up, c-self, ...)"
    ]


def test_litmoe_s_own_files_are_neither_read_nor_named(tmp_path: Path) -> None:
    put(tmp_path, "train/shard-00000.txt", "val/shard-00000.txt")
    put(
        tmp_path,
        "train/train/tokens.bin",
        "train/train/documents.bin",
        "train/train/store.json",
        content="{}",
    )
    put(
        tmp_path,
        "val/val/documents.bin",
        "val/val/store.json",
        "tokenizer/litmoe_tokenizer.json",
        content="{}",
    )
    put(
        tmp_path,
        "tokenizer/tokenizer.json",
        ".corpus.json.lock",
        "train/.train.lock",
        "train/.train.building/x",
    )
    put(tmp_path, "corpus.json", content='{"written_by": "litmoe prepare"}')
    assert names(tmp_path) == ["train/shard-00000.txt", "val/shard-00000.txt"]
    assert list_text(tmp_path).lines() == []
    put(tmp_path, "corpus.json", content='[{"text": "mine"}]')
    assert "corpus.json" in names(tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions bind neither Windows nor root")
def test_what_may_not_be_read_stops(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", "folder/b.txt")
    (tmp_path / "folder").chmod(0)
    try:
        with pytest.raises(DataError, match=r"cannot list .*folder: Permission denied"):
            list_text(tmp_path)
    finally:
        (tmp_path / "folder").chmod(0o700)
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(DataError, match=r"cannot read .*a.txt: permission denied"):
        list_text(tmp_path)


def test_a_file_that_somebody_names_is_taken_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, "notes.md", "a.csv")
    assert names(tmp_path / "notes.md") == ["notes.md"]
    [source] = open_sources(PrepareConfig(source=[str(tmp_path / "notes.md")]))
    assert [piece.text for piece in source.parts[0].read()] == ["some text"]
    with pytest.raises(DataError, match=r"cannot read .*a.csv: litmoe reads .txt"):
        open_sources(PrepareConfig(source=[str(tmp_path / "a.csv")]))
    with pytest.raises(DataError, match="there is no file or folder"):
        list_text(tmp_path / "nowhere")


part = st.sampled_from(["a", "b.txt", "c.jsonl", ".d", "E.TXT.GZ", "f.md", "g.zip"])


@settings(deadline=None, max_examples=40)
@given(st.sets(st.lists(part, min_size=1, max_size=3).map(tuple), min_size=1, max_size=8))
def test_every_file_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    for path in sorted(paths):
        try:
            put(folder, "/".join(path))
        except OSError:  # one of its folders is a file, or it is a folder
            continue
    there = {path for path in folder.rglob("*") if path.is_file()}
    listing = list_text(folder)
    left_out = {path for entries in listing.left_out.values() for path, _ in entries}
    assert set(listing.files) | left_out == there and not set(listing.files) & left_out
    assert sum(size for entries in listing.left_out.values() for _, size in entries) == 9 * len(left_out)
    assert listing.files == sorted(listing.files, key=lambda path: path.relative_to(folder).parts)
