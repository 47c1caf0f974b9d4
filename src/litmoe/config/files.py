"""YAML files of settings: read whole, or refused with the file's name."""

import codecs
from pathlib import Path
from typing import Any

from litmoe.config.dialect import from_yaml, meaning
from litmoe.errors import ConfigError

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
        content = from_yaml(_read_text(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: expected settings as `key: value` lines")
    return content


def _read_text(path: Path) -> str:
    """UTF-8, or UTF-16 with its mark, as Windows PowerShell writes what is redirected into a file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("no such file") from None
    except OSError as error:
        raise ConfigError(f"cannot be read as text: {error.strerror}") from error
    encoding = "utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"cannot be read as text: line {line} is not UTF-8") from error
