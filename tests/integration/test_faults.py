"""Faults from outside while a run trains: each ends in one line, and nothing is lost."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.killing import metrics

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.errors import LitMoEError
from litmoe.training import loop as trainer
from litmoe.training.loop import train

MakeConfig = Callable[..., TrainConfig]


def refusal(config: TrainConfig) -> str:
    """The one line that a run ends in."""
    with pytest.raises(LitMoEError) as error:
        train(config)
    message = str(error.value)
    assert "\n" not in message
    return message


def same_end(a: Path, b: Path) -> bool:
    first, second = (checkpoint.load_model(out_dir / "final") for out_dir in (a, b))
    return all(torch.equal(first[name], second[name]) for name in first) and metrics(a) == metrics(b)


@pytest.fixture
def own_corpus(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the corpus that a test may spoil."""
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))


def over(corpus: Path) -> list[str]:
    """The options that train on another copy of the corpus."""
    return [f"--data-dir={corpus}", f"--tokenizer_dir={corpus / 'tokenizer'}"]


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Let something happen while a run is in its step number n: between two reads of its data."""

    def arrange(step: int, happens: Callable[[], object]) -> None:
        real, steps = trainer.learning_rate, []

        def learning_rate(number: int, *rest: object) -> float:
            if number + 1 == step and number not in steps:
                steps.append(number)
                happens()
            return real(number, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(trainer, "learning_rate", learning_rate)

    return arrange


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a small file system of its own, where that is permitted; skips elsewhere."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if sys.platform != "linux" or shutil.which("mount") is None:
            pytest.skip("small file systems are made with Linux's mount")
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("mounting a file system is not permitted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def test_a_file_where_the_output_folder_should_be(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "file" in refusal(make_config(out_dir=str(out_dir)))
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_folder_on_a_read_only_disk(make_config: MakeConfig, disk: Callable[[str], Path]) -> None:
    folder = disk("ro,size=1m")
    assert str(folder) in refusal(make_config(out_dir=str(folder / "out")))


def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_with_room(
    make_config: MakeConfig, tmp_path: Path, disk: Callable[[str], Path]
) -> None:
    """A checkpoint of this model takes about one megabyte: the disk holds the first ones, then fills up."""
    folder = disk("size=6m")
    settings = {"train": {"max_steps": 12, "save_interval": 1}}
    train(make_config(out_dir=str(tmp_path / "whole"), **settings))
    message = refusal(make_config(out_dir=str(folder / "out"), **settings))
    assert str(folder) in message
    saved = checkpoint.newest(folder / "out", say=pytest.fail)
    assert saved is not None
    step = checkpoint.verify(saved)["step"]
    assert step >= 2
    logged = [int(row["step"]) for row in metrics(folder / "out")]
    assert logged == list(range(1, len(logged) + 1)) and step <= len(logged) <= step + 2
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    train(make_config("--resume=auto", out_dir=str(folder / "out"), **settings))
    assert same_end(folder / "out", tmp_path / "whole")


@pytest.mark.skipif(os.name == "nt", reason="Windows does not remove a folder whose files are mapped")
def test_a_data_folder_that_disappears(
    make_config: MakeConfig,
    own_corpus: Path,
    tmp_path: Path,
    at_step: Callable[[int, Callable[[], object]], None],
) -> None:
    """The memory map goes on; a resumed run says what is missing, and goes on once it is there again."""
    settings = {"train": {"max_steps": 8, "save_interval": 2}}
    train(make_config(*over(own_corpus), out_dir=str(tmp_path / "whole"), **settings))
    away = tmp_path / "away"
    at_step(3, lambda: (own_corpus / "train").rename(away))
    train(make_config(*over(own_corpus), out_dir=str(tmp_path / "out"), **settings))
    assert same_end(tmp_path / "out", tmp_path / "whole")
    longer = {"train": {"max_steps": 10, "save_interval": 2}}
    again = make_config("--resume=auto", *over(own_corpus), out_dir=str(tmp_path / "out"), **longer)
    assert str(own_corpus / "train") in refusal(again)
    away.rename(own_corpus / "train")
    assert train(again).steps == 10


@pytest.mark.skipif(os.name == "nt", reason="Windows does not cut a file that is mapped")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_token_store_cut_short_while_it_is_read(
    make_config: MakeConfig,
    own_corpus: Path,
    tmp_path: Path,
    at_step: Callable[[int, Callable[[], object]], None],
    workers: int,
) -> None:
    """Reading on would kill the process; the run ends in one line instead, and goes on from its checkpoint."""
    settings = {
        "train": {"max_steps": 30, "save_interval": 2},
        "eval": {"interval": 50, "final_validation": False},
    }
    words = [*over(own_corpus), f"--data.init_args.num_workers={workers}"]
    train(make_config(*words, out_dir=str(tmp_path / "whole"), **settings))
    tokens = own_corpus / "train" / "train" / "tokens.bin"
    at_step(5, lambda: os.truncate(tokens, 1000))
    assert str(tokens) in refusal(make_config(*words, out_dir=str(tmp_path / "out"), **settings))
    train(make_config("--resume=auto", *words, out_dir=str(tmp_path / "out"), **settings))
    assert same_end(tmp_path / "out", tmp_path / "whole")


def test_a_token_store_cut_short_is_made_anew(
    make_config: MakeConfig, own_corpus: Path, tmp_path: Path
) -> None:
    """Found when a run starts; the text is still there, so that the same tokens are made again."""
    settings = {"train": {"max_steps": 8, "save_interval": 2}}
    train(make_config(*over(own_corpus), out_dir=str(tmp_path / "whole"), **settings))
    out = tmp_path / "out"
    checkpoint.copy(tmp_path / "whole" / "step-00000004", out / "step-00000004")
    lines = (tmp_path / "whole" / "metrics.csv").read_text().splitlines(keepends=True)
    (out / "metrics.csv").write_text("".join(lines[:6]))
    os.truncate(own_corpus / "train" / "train" / "tokens.bin", 1000)
    train(make_config("--resume=auto", *over(own_corpus), out_dir=str(out), **settings))
    assert same_end(out, tmp_path / "whole")


@pytest.mark.parametrize("years", [-30, 30])
def test_a_clock_that_jumps(make_config: MakeConfig, tmp_path: Path, years: int) -> None:
    """A resumed run goes by steps, whatever the dates of files and in manifests say."""
    import json

    settings = {"train": {"max_steps": 6, "save_interval": 2}}
    train(make_config(out_dir=str(tmp_path / "whole"), **settings))
    out = Path(shutil.copytree(tmp_path / "whole", tmp_path / "out"))
    shutil.rmtree(out / "final")
    shutil.rmtree(out / "step-00000006")
    older, date = out / "step-00000002", time.time() + years * 365 * 86400
    newer = out / "step-00000004"
    spoiled = older if years > 0 else newer  # the older one from the future, or the newer one from the past
    manifest = json.loads((spoiled / "manifest.json").read_text(encoding="utf-8"))
    (spoiled / "manifest.json").write_text(json.dumps({**manifest, "created": date}))
    for path in (spoiled, *spoiled.iterdir()):
        os.utime(path, (date, date))
    assert checkpoint.newest(out, say=pytest.fail) == newer
    train(make_config("--resume=auto", out_dir=str(out), **settings))
    assert same_end(out, tmp_path / "whole")
