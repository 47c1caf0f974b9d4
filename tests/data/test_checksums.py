import hashlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from litmoe.data import checksums
from litmoe.data.checksums import ChunkHashes, block_hashes, damaged_chunk, some_blocks


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 40 << 20), max_size=4))
def test_checksums_do_not_depend_on_how_the_bytes_arrive(cuts: list[int]) -> None:
    data = bytes(1000) * (40 << 10) + b"the end"
    hashes = ChunkHashes()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        hashes.update(data[start:end])
    size = 16 << 20
    expected = [hashlib.sha256(data[at : at + size]).hexdigest()[:16] for at in range(0, len(data), size)]
    assert hashes.digests() == expected and len(expected) == 3


def test_no_bytes_have_no_checksums() -> None:
    assert ChunkHashes().digests() == []
    full = ChunkHashes()
    full.update(bytes(checksums.CHUNK_BYTES))
    assert len(full.digests()) == 1


def test_a_damaged_chunk_is_found_and_a_look_is_bounded(tmp_path: Path) -> None:
    path, hashes = tmp_path / "x", ChunkHashes()
    data = bytearray(70 << 20)
    hashes.update(data)
    data[-1] = 1
    path.write_bytes(data)
    assert damaged_chunk(path, hashes.digests(), everything=True) == 4
    looks = [damaged_chunk(path, hashes.digests(), everything=False) for _ in range(10)]
    assert 4 in looks  # four of five chunks at every look


@given(size=st.integers(0, 40_000))
def test_blocks_cover_small_files_and_the_ends_of_large_ones(tmp_path_factory: object, size: int) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "blocks"  # type: ignore[attr-defined]
    path.write_bytes(bytes(size))
    before = block_hashes(path)
    for place in {0, size // 2 if size <= 4096 * 8 else 0, size - 1}:
        if 0 <= place < size:
            data = bytearray(size)
            data[place] = 1
            path.write_bytes(data)
            assert block_hashes(path) != before


def test_some_blocks_are_few_however_many_files() -> None:
    for n_files in (0, 1, 3, 64, 100_000):
        chosen = some_blocks(n_files)
        assert sum(map(len, chosen.values())) <= 64
        assert len(chosen) == min(n_files, 64) and all(chosen.values())
