"""Configurations from presets, YAML files and options, later ones over earlier ones.

Each layer is checked by itself, so that a misspelt name or a value of the wrong type is named with its file or
option.
"""

import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from litmoe.config.describe import FORMERLY, section_in
from litmoe.config.files import Settings, read_written, read_yaml
from litmoe.config.options import Patch, read_options
from litmoe.config.schema import ClassSpec, TrainConfig
from litmoe.config.values import File, Name, convert, is_null, quoted
from litmoe.errors import ConfigError
from litmoe.messages import nearest, one_line

Config = TypeVar("Config")


@dataclass
class RunFiles:
    """The files that a training configuration is made from."""

    preset: Name | None = None
    """A configuration that comes with litmoe, by name."""
    config: File | None = None
    """A training YAML, over the preset. Without both: ``train_config.yaml``."""


def config_folder() -> Path:
    """The folder of presets: inside an installed package, or at the root of a checkout."""
    packaged = Path(__file__).parents[1] / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "configs"


def default_file(name: str) -> Path:
    """``train_config.yaml`` or ``model_config.yaml``: the user's own in this folder, else the shipped one."""
    for candidate in (Path(name), config_folder() / name, config_folder().parent / name):
        if candidate.is_file():
            return candidate
    raise ConfigError(f"{name} is not in this folder: name one with --config, or use --preset tiny")


def presets() -> list[str]:
    """The names of the configurations that come with litmoe."""
    return sorted(p.stem for p in config_folder().glob("*.yaml") if not p.stem.endswith("_config"))


def preset_file(name: str) -> Path:
    """The YAML file of a named preset.

    Raises:
        ConfigError: no such preset; names those there are.
    """
    if name not in presets():
        raise ConfigError(f"there is no preset {quoted(name)}: choose from {', '.join(presets())}")
    return config_folder() / f"{name}.yaml"


def load_train_config(
    config: Path | str | None = None,
    *,
    preset: str | None = None,
    model_config: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> TrainConfig:
    """A training configuration: a preset, over it a YAML file, over it a model file, over it options.

    Args:
        config: a training YAML; without it and ``preset``, ``train_config.yaml``.
        preset: the name of a shipped configuration.
        model_config: a model YAML.
        overrides: options as on the command line, such as ``["--max-tokens", "100000"]``.

    Raises:
        ConfigError: a file that cannot be read, an unknown setting, or a value of the wrong type.
    """
    given, options = read_options(overrides, RunFiles, TrainConfig)
    files = build(RunFiles, given)
    if config is not None:
        files.config = convert(config, File, "config")
    if model_config is not None:
        options.setdefault("model_config", convert(model_config, File, "model_config"))
    return train_config(RunFiles(preset or files.preset, files.config), options)


def train_config(files: RunFiles, options: Settings) -> TrainConfig:
    """A training configuration from its files and the settings that options gave.

    Raises:
        ConfigError: a file that cannot be read, an unknown setting, or a value of the wrong type.
    """
    layers = [train_settings(preset_file(files.preset))] if files.preset is not None else []
    if files.config is not None:
        layers.append(train_settings(files.config))
    elif files.preset is None:
        layers.append(train_settings(default_file("train_config.yaml")))
    settings = merge(layers)
    model = options.get("model_config")
    if isinstance(model, Patch):
        if isinstance(settings.get("model_config"), Path):
            settings["model_config"] = read_yaml(_model_file(settings["model_config"]))
    elif model is not None:
        options.setdefault("model_name", None)
    config = build(TrainConfig, merge([settings, options]))
    if isinstance(config.model_config, Path):
        config.model_config = _model_file(config.model_config)
    return config


def _model_file(path: Path) -> Path:
    """A model's YAML file; the shipped default may be named from another folder."""
    if path == Path("model_config.yaml"):
        return default_file("model_config.yaml")
    if not path.is_file():
        raise ConfigError(f"model_config {path}: no such file")
    return path


def train_settings(path: Path) -> Settings:
    """The settings of one training YAML (litmoe's or LitGPT's), checked, short forms written out.

    Raises:
        ConfigError: unreadable, a key that no setting has, or a value of the wrong type.
    """
    return checked_settings(read_written(path), TrainConfig, f"{path}: ")


def parse(kind: type[Config], args: Sequence[str] = (), settings: Mapping[str, Any] | None = None) -> Config:
    """Options over ``settings`` over the defaults of the dataclass ``kind``.

    Args:
        kind: the configuration's dataclass.
        args: options as on the command line.
        settings: nested settings from Python.

    Raises:
        ConfigError: an unknown setting, or a value of the wrong type.
    """
    (options,) = read_options(args, kind)
    return build(kind, merge([checked_settings(settings or {}, kind), options]))


def checked_settings(settings: Mapping[str, Any], kind: type, where: str = "", prefix: str = "") -> Settings:
    """Settings whose every key is a field of the dataclass ``kind``, on every level, with values of its types.

    A section that is null has its defaults; a class may be named without ``class_path``.

    Args:
        settings: as they were written.
        kind: the dataclass.
        where: what they were read from, to begin a message with.
        prefix: of the names of these settings.

    Raises:
        ConfigError: naming the key, where it stands, and the nearest valid key or the type that is expected.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    now = {f.metadata[FORMERLY]: f.name for f in fields(kind) if FORMERLY in f.metadata}
    checked: Settings = {}
    for written, value in settings.items():
        key = str(written).replace("-", "_")
        key = now.get(key, key)
        if key not in hints:
            name = one_line(f"{prefix}{written}")
            raise ConfigError(f"{where}unknown setting {name}{nearest(str(written), hints, prefix)}")
        section = section_in(hints[key])
        if key in checked:
            raise ConfigError(f"{where}{prefix}{key} is set twice")
        if section is None:
            checked[key] = convert(value, hints[key], f"{where}{prefix}{key}")
            continue
        if is_null(value):
            continue
        if section is ClassSpec and isinstance(value, str):
            value = {"class_path": value}
        if not isinstance(value, dict):
            raise ConfigError(f"{where}{prefix}{key} must hold settings of its own, got {quoted(value)}")
        checked[key] = checked_settings(value, section, where, f"{prefix}{key}.")
    return checked


def merge(layers: Iterable[Mapping[str, Any]]) -> Settings:
    """Later settings over earlier ones, section by section.

    Another ``class_path`` starts with arguments of its own, and a ``model_config`` is replaced as a whole, unless
    single keys of it are given.
    """
    merged: Settings = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            whole = key == "model_config" and not isinstance(value, Patch)
            if isinstance(old, dict) and isinstance(value, dict) and not whole:
                same_class = old.get("class_path") == value.get("class_path", old.get("class_path"))
                value = merge([old, value]) if same_class else value
            merged[key] = value
    return merged


def build(kind: type[Config], settings: Mapping[str, Any]) -> Config:
    """The dataclass ``kind`` from checked settings; what they do not have has its default.

    Arguments of a default class (``optimizer``, ``data``) are kept only as long as nobody names a class.
    """
    hints = typing.get_type_hints(kind)
    values: Settings = {}
    for key, value in settings.items():
        section = section_in(hints[key])
        if section is ClassSpec and "class_path" not in value:
            spec: ClassSpec = getattr(kind(), key)
            value = ClassSpec(spec.class_path, {**spec.init_args, **value.get("init_args", {})})
        elif section is not None:
            value = build(section, value)
        values[key] = value
    return kind(**values)


def as_typed(config: Config) -> Config:
    """A copy of a configuration that was made or changed in Python, by the rules of files and options.

    A whole float becomes the whole number that a setting wants, text a path, ``~`` the home folder.

    Raises:
        ConfigError: a value of the wrong type.
    """
    return build(type(config), checked_settings(_nested(config), type(config)))


def _nested(value: Any) -> Any:
    """A configuration as nested settings, for :func:`checked_settings`."""
    if is_dataclass(value):
        return {f.name: _nested(getattr(value, f.name)) for f in fields(value)}
    return value
