"""The types that settings have, and how what a person wrote becomes a value of one.

A type says what may be written, how the help shows it, and whether it is a path, which may begin with ``~``.
Beyond the built-in types there are :data:`Folder`, :data:`File`, :data:`Name` and :data:`PathOrName`.
"""

import os
import types
import typing
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from litmoe.config.dialect import Plain, from_yaml, meaning, scalar
from litmoe.errors import ConfigError

LARGEST_EXACT = 2**53
"""Above this, not every whole number is a float: ``1e23`` is not what it says."""

LONGEST_QUOTE = 80
"""Characters of a refused value that its message repeats."""


@dataclass(frozen=True)
class Shown:
    """How the help shows a type, and whether its text is a path."""

    name: str
    is_path: bool = False


Folder = Annotated[Path, Shown("DIR")]
File = Annotated[Path, Shown("FILE")]
Name = Annotated[str, Shown("NAME")]
PathOrName = Annotated[str, Shown("PATH|NAME", is_path=True)]


class MismatchError(ValueError):
    """A value that its type does not allow; the text says why where the type alone does not."""


def convert(value: Any, hint: Any, name: str) -> Any:
    """A value as its setting's type has it.

    Args:
        value: :class:`Plain` text of a YAML file or the command line, quoted text, or a value from Python.
        hint: the type, one of those that settings have.
        name: of the setting or option, for the message.

    Raises:
        ConfigError: naming the setting, what was written, and what is expected.
    """
    try:
        return _typed(value, hint)
    except (MismatchError, ConfigError) as error:
        reason = str(error)
    if is_null(value) and not reason:
        raise ConfigError(f"{name}: expected a value, got null")
    if not reason:
        reason = f"expected {expected(hint)}"
    note = " (int: a whole number such as 1000, 1_000_000 or 1e6)" if int in members(hint) else ""
    raise ConfigError(f"{name}: {reason}, got {quoted(value)}{note}")


def _typed(value: Any, hint: Any) -> Any:
    """A value of the type, or :class:`MismatchError`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _typed(value, arguments[0])
        shown = next((mark for mark in arguments[1:] if isinstance(mark, Shown)), None)
        return expanded(value) if isinstance(value, str) and shown is not None and shown.is_path else value
    if hint is Any:
        return _checked_texts(meaning(value))
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, arguments)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return str(value)
        raise MismatchError
    if origin is list:
        return _list(value, arguments[0])
    if origin is dict or hint is dict:
        return _mapping(value)
    return _READERS[hint](value)


def _one_of(value: Any, members: tuple[Any, ...]) -> Any:
    """The first of several types that the value has; null first, where it is one of them."""
    if type(None) in members and is_null(value):
        return None
    reason = ""
    for member in members:
        if member is not type(None):
            try:
                return _typed(value, member)
            except MismatchError as error:
                reason = reason or str(error)
    raise MismatchError(reason)


def _bool(value: Any) -> bool:
    value = _meaning_of_text(value)
    if isinstance(value, bool):
        return value
    raise MismatchError


def _int(value: Any) -> int:
    """Whole numbers, and floats that are whole."""
    value = _meaning_of_text(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if -(2**63) <= value < 2**63:
            return value
        raise MismatchError("expected an int of at most 64 bits")
    raise MismatchError


def _float(value: Any) -> float:
    value = _meaning_of_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = float("inf")
        if value - value == 0:
            return value
        raise MismatchError("expected a finite number")
    raise MismatchError


def _str(value: Any) -> str:
    if isinstance(value, str):
        return _checked(value)
    raise MismatchError


def _path(value: Any) -> Path:
    if is_null(value):
        raise MismatchError("expected a path (the home folder is ~/)" if value == "~" else "")
    if isinstance(value, str | Path):
        return Path(expanded(_checked(str(value))))
    raise MismatchError


_READERS: dict[Any, Any] = {bool: _bool, int: _int, float: _float, str: _str, Path: _path}


def _list(value: Any, item: Any) -> list[Any]:
    """A list; one text alone is a list of one."""
    if isinstance(value, Plain) and value[:1] == "[" and value[-1:] == "]":
        value = from_yaml(value)
    if is_null(value):
        raise MismatchError
    return [_typed(each, item) for each in (value if isinstance(value, list | tuple) else [value])]


def _mapping(value: Any) -> dict[Any, Any]:
    """Settings whose names nobody knows here; null is none of them."""
    if is_null(value):
        return {}
    value = _checked_texts(meaning(value))
    if isinstance(value, dict):
        return value
    raise MismatchError


def _meaning_of_text(value: Any) -> Any:
    return scalar(value) if isinstance(value, str) else value


def is_null(value: Any) -> bool:
    """Whether a value is null, or text that YAML reads as null."""
    return value is None or (isinstance(value, Plain) and scalar(value) is None)


def _checked_texts(value: Any) -> Any:
    """Free arguments: their texts checked, and paths among them (a text that begins with ``~``) expanded."""
    if isinstance(value, dict):
        return {key: _checked_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_checked_texts(item) for item in value]
    return os.path.expanduser(_checked(value)) if isinstance(value, str) else value  # noqa: PTH111


def _checked(text: str) -> str:
    """Text that can be written into any file."""
    if "\0" in text:
        raise MismatchError("a NUL character has no place in a setting")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise MismatchError("expected UTF-8 text") from None
    return str(text)


def expanded(text: str) -> str:
    """A path whose ``~`` or ``~user`` is the home folder. ``./~name`` is a file of that name."""
    result = os.path.expanduser(text)  # noqa: PTH111  Path would take ./~name for ~name
    if text.startswith("~") and result == text:
        raise MismatchError(
            f"there is no home folder {text.split('/')[0]} here (./{text} is a file of that name)"
        )
    return result


def members(hint: Any) -> list[Any]:
    """The types that a value may have, unions and annotations taken apart."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return members(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return [each for argument in arguments for each in members(argument)]
    return [hint]


def expected(hint: Any) -> str:
    """A type in words, for a message: ``int or null``, ``none, switch or bias``."""
    words: list[str] = []
    for member in members(hint):
        origin = typing.get_origin(member)
        if origin is Literal:
            words += [str(choice) for choice in typing.get_args(member)]
        elif origin is list:
            words.append("a list")
        elif origin is dict or member is dict or is_dataclass(member):
            words.append("settings of its own")
        else:
            words += _WORDS[member]
    words.sort(key=lambda word: word == "null")
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


_WORDS: dict[Any, list[str]] = {
    bool: ["true", "false"],
    int: ["int"],
    float: ["a number"],
    str: ["text"],
    Path: ["a path"],
    type(None): ["null"],
    Any: ["a value"],
}


def shown(hint: Any) -> str:
    """A type as the help shows it: ``INT``, ``auto|DIR``, ``none|switch|bias``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return next(mark.name for mark in arguments[1:] if isinstance(mark, Shown))
    if origin in (typing.Union, types.UnionType):
        members = [m for m in arguments if m is not type(None)]
        text = [
            m for m in members if m is not bool and typing.get_origin(m) is not dict
        ]  # these need no word
        return "|".join(shown(member) for member in (text or members))
    if origin is Literal:
        return "|".join(str(choice) for choice in arguments)
    if origin is list:
        return f"{shown(arguments[0])} ..."
    if origin is dict or hint is dict:
        return "{KEY: VALUE}"
    return {bool: "true|false", int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", Any: "VALUE"}[hint]


def choices_of(hint: Any) -> list[str]:
    """The words that a type has to choose from; none where anything else may be written."""
    kinds = [member for member in members(hint) if member is not type(None)]
    if not all(typing.get_origin(kind) is Literal for kind in kinds):
        return []
    return [str(choice) for kind in kinds for choice in typing.get_args(kind)]


def quoted(value: Any) -> str:
    """A value as it was written, in quotes where it is text, cut to a length that a line holds."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(str(value) if isinstance(value, Path) else value)
    except ValueError:  # an integer of more digits than Python writes
        return f"a number of more than {LONGEST_QUOTE} digits"
    return text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 4]} ..."
