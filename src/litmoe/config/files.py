"""YAML files of settings: read whole, or refused with the file's name."""

from pathlib import Path
from typing import Any

from litmoe.config.dialect import from_yaml, meaning
from litmoe.errors import ConfigError
from litmoe.messages import one_line

Settings = dict[str, Any]
"""Settings by name, section by section."""


def read_yaml(path: Path) -> Settings:
    """A YAML file that holds a mapping, every value in it as it reads where any type will do.

    Raises:
        ConfigError: missing, unreadable, not UTF-8, not YAML, or not a mapping.
    """
    return dict(meaning(read_written(path)))


def read_written(path: Path) -> Settings:
    """A YAML file that holds a mapping, its text still as it was written (:class:`~.dialect.Plain`).

    Raises:
        ConfigError: as :func:`read_yaml`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL character in the name
        raise ConfigError(f"{path}: cannot be read as text: {one_line(error)}") from error
    try:
        content = from_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: expected settings as `key: value` lines")
    return content
