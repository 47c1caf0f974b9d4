"""Configurations from YAML files, presets and command-line words: read, checked, merged, typed.

A YAML file is checked key by key before it is merged, so that a misspelt key is named with its file and the
nearest valid key. Types are jsonargparse's business, as in LitGPT.
"""

import argparse
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from litmoe.config import ClassSpec, TrainArgs, TrainConfig
from litmoe.errors import LitMoEError
from litmoe.messages import nearest, one_line

Config = TypeVar("Config")
Settings = dict[str, Any]


MAX_VALUES = 100_000
"""More values in one YAML file are aliases that repeat each other ("billion laughs"), not settings."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: ``1e-3`` is one, as in LitGPT; YAML 1.1 took it for a word."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge keys (``<<: *name``) copy what they name, and may do so again and again."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:
            raise yaml.YAMLError(f"merge keys that make more than {MAX_VALUES:,} values")


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|nan))$", re.IGNORECASE
    ),
    list("-+0123456789."),
)


def config_folder() -> Path:
    """The folder of presets: inside an installed package, or at the root of a checkout."""
    packaged = Path(__file__).parents[1] / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "configs"


def default_file(name: str) -> Path:
    """``train_config.yaml`` or ``model_config.yaml``: the user's own in this folder, else the shipped one."""
    for candidate in (Path(name), config_folder() / name, config_folder().parent / name):
        if candidate.is_file():
            return candidate
    raise LitMoEError(f"{name} is not in this folder: name one with --config, or use --preset tiny")


def preset_file(name: str) -> Path:
    """The YAML file of a named preset.

    Raises:
        LitMoEError: no such preset; names those there are.
    """
    path = config_folder() / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in config_folder().glob("*.yaml") if not p.stem.endswith("_config"))
        raise LitMoEError(f"there is no preset {name!r}: choose from {', '.join(known)}")
    return path


def read_yaml(path: Path) -> Settings:
    """A YAML file that holds a mapping.

    Raises:
        LitMoEError: missing, unreadable, not UTF-8, not YAML, or not a mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise LitMoEError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LitMoEError(f"{path}: cannot be read as text: {one_line(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LitMoEError(f"{path}: not valid YAML: {one_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise LitMoEError(f"{path}: expected settings as `key: value` lines")
    if _too_many_values(content):
        raise LitMoEError(f"{path}: its aliases (*name) repeat each other more than {MAX_VALUES:,} times")
    return content


def _too_many_values(content: Settings) -> bool:
    """Whether a walk over all values is long, or endless: an alias may stand in what it names."""
    count, rest = 0, [content]
    while rest and count <= MAX_VALUES:
        value: Any = rest.pop()
        count += 1
        rest += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return count > MAX_VALUES


def train_settings(path: Path) -> Settings:
    """The settings of one training YAML (ours or LitGPT's), its keys checked, short forms written out.

    Raises:
        LitMoEError: unreadable, or a key that no setting has.
    """
    settings = read_yaml(path)
    for name in ("data", "optimizer"):
        if isinstance(settings.get(name), str):
            settings[name] = {"class_path": settings[name]}
        elif name in settings and settings[name] is None:
            del settings[name]
        if isinstance(settings.get(name), dict) and "class_path" in settings[name]:
            settings[name].setdefault("init_args", {})  # the defaults belong to the default class
    for name in ("train", "eval", "log"):  # `log:` with nothing below it means the defaults
        if name in settings and settings[name] is None:
            del settings[name]
    check_keys(settings, TrainConfig, where=str(path))
    return settings


def file_options(program: str) -> argparse.ArgumentParser:
    """The options that name a configuration's files, for `load_train_config`; a command adds its own."""
    files = argparse.ArgumentParser(prog=program, add_help=False, allow_abbrev=False, exit_on_error=False)
    files.add_argument("--config", type=Path)
    files.add_argument("--preset")
    files.add_argument("--model-config", "--model_config", type=Path)
    return files


def load_train_config(
    config: Path | str | None = None,
    *,
    preset: str | None = None,
    model_config: Path | str | None = None,
    overrides: Sequence[str] = (),
    program: str = "litmoe train",
    about: str | None = None,
) -> TrainConfig:
    """A training configuration: a preset, over it a YAML file, over it a model file, over it options.

    Args:
        config: a training YAML; without it and ``preset``, ``train_config.yaml``.
        preset: the name of a shipped configuration.
        model_config: a model YAML.
        overrides: options as on the command line, such as ``["--max-tokens", "100000"]``.
        program: the command's name, for its help.
        about: the help's introduction.

    Raises:
        LitMoEError: a file that cannot be read, an unknown setting, or a value of the wrong type.
    """
    layers = [train_settings(preset_file(preset))] if preset is not None else []
    if config is not None:
        layers.append(train_settings(Path(config)))
    elif preset is None:
        layers.append(train_settings(default_file("train_config.yaml")))
    if model_config is not None:
        layers.append({"model_config": Path(model_config).as_posix(), "model_name": None})
    loaded = parse(TrainConfig, overrides, merge(layers), program, about)
    if isinstance(loaded.model_config, Path) and not loaded.model_config.is_file():
        if loaded.model_config == Path("model_config.yaml"):  # the shipped default, named from another folder
            loaded.model_config = default_file("model_config.yaml")
        else:
            raise LitMoEError(f"model_config {loaded.model_config}: no such file")
    return loaded


def merge(settings: Iterable[Settings]) -> Settings:
    """Later settings over earlier ones, section by section.

    Another ``class_path`` starts with arguments of its own, and a ``model_config`` is replaced as a whole.
    """
    merged: Settings = {}
    for layer in settings:
        for key, value in layer.items():
            old = merged.get(key)
            if isinstance(old, dict) and isinstance(value, dict) and key != "model_config":
                same_class = old.get("class_path") == value.get("class_path", old.get("class_path"))
                value = merge([old, value]) if same_class else value
            merged[key] = value
    return merged


def check_keys(settings: Mapping[str, Any], kind: type, where: str, prefix: str = "") -> None:
    """Every key must be a field of the dataclass ``kind``, on every level.

    Raises:
        LitMoEError: naming the key, its file and the nearest valid key.
    """
    known = {f.name: _dataclass_in(typing.get_type_hints(kind)[f.name]) for f in fields(kind)}
    for key, value in settings.items():
        if key not in known:
            name = one_line(f"{prefix}{key}")
            raise LitMoEError(f"{where}: unknown setting {name}{nearest(key, known, prefix)}")
        section = known[key]
        if section is not None:
            if not isinstance(value, dict):
                raise LitMoEError(f"{where}: {prefix}{key} must hold settings of its own, got {value!r}")
            check_keys(value, section, where, f"{prefix}{key}.")


def parse(
    kind: type[Config], words: Sequence[str], settings: Settings, program: str, about: str | None = None
) -> Config:
    """Command-line words over ``settings`` over the defaults of the dataclass ``kind``.

    Args:
        kind: the configuration's dataclass.
        words: options as on the command line.
        settings: nested settings, from files.
        program: the command's name, for its help.
        about: the help's introduction; None: the docstring of ``kind``.

    Raises:
        LitMoEError: an unknown option, or a value of the wrong type.
        SystemExit: 0, after printing the help that ``words`` asked for.
    """
    # jsonargparse takes a third of a second to import: only who parses pays for it.
    import jsonargparse

    class Formatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        """Keeps the introduction's lines as they are."""

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [options]",
        description=about or kind.__doc__,
        exit_on_error=False,
        formatter_class=Formatter,
    )
    parser.add_class_arguments(kind)
    try:
        # A whole section given at once would hide the sections' own keys from the checks, hence both steps.
        options_given = list(as_options(kind, words))
        settings = merge([settings, _chosen_classes(options_given)])
        _refuse_null(_leaves(settings, kind), kind)
        parser.set_defaults(_leaves(parser.parse_object(settings).as_dict(), kind))
        namespace = parser.parse_args(options_given)
        return kind(**vars(parser.instantiate_classes(namespace)))
    except argparse.ArgumentError as error:
        raise LitMoEError(_explain(str(error), kind)) from error


def as_options(kind: type, words: Sequence[str]) -> Iterable[str]:
    """The convenient spelling of options, turned into jsonargparse's.

    ``--max-tokens N`` is ``--train.max_tokens N`` (every field of the train section may stand without it);
    dashes are underscores; a lone ``--progress`` means true; ``--source A B`` is a list; ``--data-dir D`` is
    both data paths of the data module; ``--optimizer NAME`` is its class.
    """
    hints = {name: hint for name, hint, _ in options(kind)}
    short = _SHORT if kind is TrainConfig else {}
    rest = list(words)
    for word in rest:
        if "\0" in word:  # from a program; no system's command line can hold one
            raise LitMoEError(f"{word!r}: a NUL character has no place in an option")
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            yield word
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        values = [value] if equals else []
        while not equals and rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        if name == "data_dir" and kind is TrainConfig and len(values) == 1:
            for split in ("train", "val"):
                yield f"--data.init_args.{split}_data_path={Path(values[0], split).as_posix()}"
            continue
        name = short.get(name, name) if name not in hints else name
        if _dataclass_in(hints.get(name)) is ClassSpec:
            name = f"{name}.class_path"
        hint = hints.get(name)
        if hint is bool and not values:
            values = ["true"]
        if typing.get_origin(hint) is list and values and not values[0].startswith("["):
            values = [yaml.safe_dump(values, default_flow_style=True, width=10**9).strip()]
        yield from (f"--{name}={value}" for value in values[:1])
        if not values:
            yield f"--{name}"
        yield from values[1:]


_SHORT = {f.name: f"train.{f.name}" for f in fields(TrainArgs)} | {
    "on_oom": "faults.on_oom",
    "initial_checkpoint": "initial_checkpoint_dir",
}


def options(kind: type, prefix: str = "") -> Iterable[tuple[str, Any, Any]]:
    """Every option of a dataclass on every level as (dotted name, type, the dataclass that it is, if any)."""
    hints = typing.get_type_hints(kind)
    for f in fields(kind):
        section = _dataclass_in(hints[f.name])
        yield f"{prefix}{f.name}", hints[f.name], section
        if section is not None:
            yield from options(section, f"{prefix}{f.name}.")


def _dataclass_in(hint: Any) -> type | None:
    """The type of a field where that is a dataclass, a section of settings."""
    return hint if isinstance(hint, type) and is_dataclass(hint) else None


def _leaves(settings: Mapping[str, Any], kind: type, prefix: str = "") -> Settings:
    """Nested settings as dotted names of single options."""
    sections = {name: section for name, _, section in options(kind)}
    flat: Settings = {}
    for key, value in settings.items():
        section = sections.get(key)
        if section is not None and isinstance(value, dict):
            flat |= _leaves(value, section, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _refuse_null(flat: Settings, kind: type) -> None:
    """Null only where the type or the default allows it: jsonargparse takes it anywhere from a file."""
    for name, hint, default in ((name, hint, _default(kind, name)) for name, hint, _ in options(kind)):
        if (
            flat.get(name, default) is None
            and default is not None
            and type(None) not in typing.get_args(hint)
        ):
            raise LitMoEError(f"{name}: expected a value, got null")


def _default(kind: type, dotted: str) -> Any:
    """What a setting is when nobody sets it; ``...`` where that is made anew each time, or must be given."""
    name, _, rest = dotted.partition(".")
    found = next(f for f in fields(kind) if f.name == name)
    section = _dataclass_in(typing.get_type_hints(kind)[name])
    if rest and section is not None:
        return _default(section, rest)
    return ... if found.default is MISSING else found.default


def _chosen_classes(options_given: Sequence[str]) -> Settings:
    """The classes chosen by options: another class than the files' starts with arguments of its own."""
    chosen: Settings = {}
    for option in options_given:
        name, _, class_path = option.removeprefix("--").partition("=")
        if name.endswith(".class_path"):
            chosen[name.removesuffix(".class_path")] = {"class_path": class_path, "init_args": {}}
    return chosen


def _explain(message: str, kind: type) -> str:
    """jsonargparse's message in one line, with the nearest option where one was misspelt."""
    line = one_line(message).removeprefix("Validation failed: ").replace('Parser key "', 'setting "')
    # jsonargparse lists every member of a union on lines of its own: here they become "int or null".
    expected = [
        name.replace("NoneType", "null") for name in re.findall(r"Expected a <class '([\w.]+)'>", line)
    ]
    value = re.search(r"(?:Given value:|Got value:) (.*)$", line)
    if line.startswith('setting "') and expected and value:
        setting = line.split('"')[1]
        return f"{setting}: expected {' or '.join(sorted(expected))}, got {value[1]!r}"
    if line.endswith("Cannot take a Union of no types."):  # null for a choice of words
        setting = line.split('"')[1]
        return f"{setting}: expected a value, got null"
    if line.startswith("Unrecognized arguments: "):
        words = line.removeprefix("Unrecognized arguments: ").split()
        name = words[0].removeprefix("--").partition("=")[0]
        known = [option for option, _, _ in options(kind)]
        return (
            f"unknown option --{name}{nearest(name, known, '--')}"
            if words[0].startswith("-")
            else (f"unexpected {words[0]!r}: options start with --; see --help")
        )
    return line
