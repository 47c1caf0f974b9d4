"""Options of the command line: what was given, which setting each means, and its value.

Dashes and underscores are the same. ``--max-tokens`` is ``--train.max_tokens``: every field of the train section
may stand without its section. ``--source A B`` is a list, a lone ``--progress`` is true, ``--optimizer NAME`` is
a class, ``--optimizer.init-args.lr 0.001`` one argument of it.
"""

import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from litmoe.config.describe import Setting, settings_of
from litmoe.config.dialect import Plain
from litmoe.config.files import Settings
from litmoe.config.schema import ClassSpec, TrainArgs, TrainConfig
from litmoe.config.values import Folder, convert, expected, members, quoted
from litmoe.errors import ConfigError
from litmoe.messages import nearest

SHORT_FORMS = {f.name: f"train.{f.name}" for f in fields(TrainArgs)} | {
    "on_oom": "faults.on_oom",
    "initial_checkpoint": "initial_checkpoint_dir",
}
"""Options of a training run without their section."""


_SHORTER = {name: short for short, name in SHORT_FORMS.items()}

DATA_DIR = Setting("data_dir", Folder, None, "Both data paths: DIR/train and DIR/val.")
"""An option of a training run that is no setting of its own."""


class Patch(Settings):
    """Keys to change in settings that are otherwise replaced as a whole."""


@dataclass(frozen=True)
class Option:
    """An option as it was given."""

    shown: str
    """As it was written, up to its value."""
    values: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The setting's name, or a short form of it."""
        return self.shown.removeprefix("--").replace("-", "_")


def given_options(args: Sequence[str]) -> list[Option]:
    """The arguments of a command line as options with their values.

    Raises:
        ConfigError: an argument that belongs to no option.
    """
    options: list[Option] = []
    takes_values = False
    for arg in args:
        if arg.startswith("--"):
            shown, equals, value = arg.partition("=")
            options.append(Option(shown, [value] if equals else []))
            takes_values = not equals
        elif takes_values:
            options[-1].values.append(arg)
        else:
            raise _unexpected(arg)
    return options


def _unexpected(arg: str) -> ConfigError:
    return ConfigError(
        f"unexpected {quoted(arg)}: options start with --, and text with spaces stands in quotes; see --help"
    )


def read_options(args: Sequence[str], *kinds: type) -> tuple[Settings, ...]:
    """The settings that options give, for each of the dataclasses whose fields they may be.

    Args:
        args: the command line after the command's name.
        kinds: an option belongs to the first of these that has it.

    Raises:
        ConfigError: an unknown option, or a value of the wrong type.
    """
    found: tuple[Settings, ...] = tuple({} for _ in kinds)
    for option in given_options(args):
        for kind, settings in zip(kinds, found, strict=True):
            if _take(option, kind, settings):
                break
        else:
            shown = option.shown if option.shown.isprintable() else quoted(option.shown)
            known = [spelled(setting.name) for kind in kinds for setting in options_of(kind)]
            raise ConfigError(f"unknown option {shown}{nearest(spelled(option.name), known, '--')}")
    return found


def _take(option: Option, kind: type, settings: Settings) -> bool:
    """Put an option into ``settings``, if it is one of ``kind``'s."""
    if kind is TrainConfig and option.name == DATA_DIR.name:
        folder: Path = convert(_value(option, DATA_DIR.hint), DATA_DIR.hint, option.shown)
        for split in ("train", "val"):
            _set(settings, f"data.init_args.{split}_data_path", (folder / split).as_posix())
        return True
    known = {setting.name: setting for setting in settings_of(kind)}
    known |= {s.formerly: s for s in known.values() if s.formerly}
    name = option.name
    if name not in known and kind is TrainConfig:
        name = SHORT_FORMS.get(name, name)
    if name in known:
        _set(settings, *_whole(option, known[name]))
        return True
    # Below a mapping, such as optimizer.init_args.lr or model_config.n_layer: one key of it.
    above = next((s for s in known.values() if name.startswith(f"{s.name}.") and _may_be(dict, s.hint)), None)
    if above is not None:
        _set(settings, name, convert(_value(option, Any), Any, option.shown), below=above.name)
    return above is not None


def _whole(option: Option, setting: Setting) -> tuple[str, Any]:
    """The name and value of a setting that an option names."""
    if setting.section is ClassSpec:
        return f"{setting.name}.class_path", convert(_value(option, str), str, option.shown)
    if setting.section is not None:
        raise ConfigError(
            f"{option.shown} is a section: give its settings one by one, such as "
            f"--{spelled(settings_of(setting.section, f'{setting.name}.')[0].name)}"
        )
    return setting.name, convert(_value(option, setting.hint), setting.hint, option.shown)


def _value(option: Option, hint: Any) -> Any:
    """The value that an option was given, not yet of its type.

    Raises:
        ConfigError: none, where one is needed, or several, where one is all that there may be.
    """
    values = [Plain(value) for value in option.values]
    if len(values) > 1 and _may_be(list, hint):
        return values
    if len(values) == 1 and typing.get_origin(hint) is list and values[0][:1] != "[":
        return values  # a list of one, even of an empty text
    if len(values) > 1 and any(typing.get_origin(member) is list for member in typing.get_args(hint)):
        return values
    if not values:
        if bool in members(hint):
            return True
        raise ConfigError(f"{option.shown}: expected one argument: {expected(hint)}")
    if len(values) > 1:
        raise _unexpected(values[1])
    return values[0]


def _may_be(kind: type, hint: Any) -> bool:
    return any(typing.get_origin(member) is kind for member in members(hint))


def _set(settings: Settings, name: str, value: Any, below: str = "") -> None:
    """Set a dotted name; what stands below the mapping ``below`` changes keys of it."""
    *sections, last = name.split(".")
    place = settings
    for depth, section in enumerate(sections, 1):
        inner = place.get(section)
        if not isinstance(inner, dict):
            inner = Patch() if ".".join(sections[:depth]) == below else {}
            place[section] = inner
        place = inner
    place[last] = value


def spelled(name: str) -> str:
    """A setting's dotted name as people type it, without the leading dashes: ``max-tokens``."""
    return _SHORTER.get(name, name).replace("_", "-")


def options_of(kind: type) -> list[Setting]:
    """What may be given of a dataclass by an option: its settings on every level, but for whole sections."""
    found = [
        s for s in settings_of(kind) if s.section in (None, ClassSpec) and not s.name.endswith(".class_path")
    ]
    if kind is TrainConfig:
        found.insert([setting.name for setting in found].index("data"), DATA_DIR)
    return found
