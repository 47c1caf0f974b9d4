"""``~`` is the home folder in every path that a person can write, and nothing else is."""

import typing
from pathlib import Path
from typing import Any

import pytest

from litmoe.cli.main import COMMANDS
from litmoe.config import PrepareConfig, TrainConfig, as_plain
from litmoe.config.describe import Setting
from litmoe.config.load import load_train_config, parse
from litmoe.config.options import options_of, spelled
from litmoe.config.values import Shown
from litmoe.errors import ConfigError

KINDS = {kind.__name__: kind for command in COMMANDS.values() for kind in command.options}


def is_path(hint: Any) -> bool:
    """Whether a path may be written where the type is expected, found without the code under test."""
    marks = [mark for mark in typing.get_args(hint) if isinstance(mark, Shown)]
    return hint is Path or any(mark.is_path for mark in marks) or any(map(is_path, typing.get_args(hint)))


def path_options() -> list[tuple[str, Setting]]:
    return [
        (name, option) for name, kind in KINDS.items() for option in options_of(kind) if is_path(option.hint)
    ]


def test_all_paths_are_found() -> None:
    """What is a path by its name is one by its type."""
    names = {option.name for _, option in path_options()}
    assert {
        "out_dir",
        "resume",
        "model_config",
        "config",
        "source",
        "tokenizer",
        "prepare.source",
        "fit",
    } <= names
    by_name = {
        option.name
        for kind in KINDS.values()
        for option in options_of(kind)
        if option.name.endswith(("_dir", "_file", "_path", "checkpoint"))
    }
    assert by_name <= names


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize(("kind", "option"), path_options(), ids=lambda value: getattr(value, "name", value))
def test_every_path_option_takes_a_tilde(home: Path, kind: str, option: Setting) -> None:
    name = f"--{spelled(option.name)}"
    if option.name == "data_dir" and kind == "TrainConfig":
        found = parse(TrainConfig, [name, "~/x"]).data.init_args["val_data_path"]
        assert found == (home / "x" / "val").as_posix()
        return
    config = parse(KINDS[kind], [name, "~/x"])
    for part in option.name.split("."):
        config = getattr(config, part)
    found = config[0] if isinstance(config, list) else config
    assert Path(found) == home / "x"
    with pytest.raises(ConfigError, match="there is no home folder ~nobody-here"):
        parse(KINDS[kind], [name, "~nobody-here/x"])
    assert parse(KINDS[kind], [name, "./~x"]) == parse(KINDS[kind], [name, "./~x"])


def test_paths_of_yaml_and_python(home: Path) -> None:
    (home / "run.yaml").write_text(
        "model_config: ~/model.yaml\n"
        "out_dir: ~/runs\n"
        "data: {class_path: X, init_args: {train_data_path: ~/t, other: [~/u, 'a~', 3]}}\n"
        "prepare: {source: [~/text, sample], tokenizer: ~/tok}\n"
    )
    (home / "model.yaml").write_text("n_layer: 1\n")
    for config in (
        load_train_config("~/run.yaml"),
        load_train_config(overrides=["--config", "~/run.yaml"]),
        load_train_config(home / "run.yaml", model_config="~/model.yaml"),
    ):
        assert config.model_config == home / "model.yaml"
        assert config.out_dir == home / "runs"
        assert config.data.init_args == {
            "train_data_path": str(home / "t"),
            "other": [str(home / "u"), "a~", 3],
        }
        assert config.prepare.source == [str(home / "text"), "sample"]
        assert config.prepare.tokenizer == str(home / "tok")


def test_a_file_whose_name_begins_with_a_tilde(tmp_path: Path) -> None:
    """Can be named, and is still that file when the configuration has been printed and read again."""
    config = parse(TrainConfig, ["--out-dir", "./~x"])
    assert config.out_dir == Path("~x")
    assert parse(TrainConfig, [], as_plain(config)).out_dir == Path("~x")


@pytest.mark.parametrize("null", ["~", "null", ""])
def test_null_is_no_path(null: str) -> None:
    with pytest.raises(ConfigError, match="out-dir: expected a"):
        parse(TrainConfig, ["--out-dir", null])
    assert parse(TrainConfig, ["--tokenizer-dir", null]).tokenizer_dir is None


@pytest.mark.parametrize("name", ["--out-dir", "--log.run", "--data-dir", "--sample.prompts", "--model-name"])
def test_text_that_no_file_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: expected UTF-8 text, got .*caf"):
        parse(TrainConfig, [name, "caf\udce9"])
    with pytest.raises(ConfigError, match=f"^{name}: a NUL character"):
        parse(TrainConfig, [f"{name}=a\0b"])
    with pytest.raises(ConfigError, match="expected UTF-8 text"):
        parse(PrepareConfig, [], {"source": ["caf\udce9"]})
