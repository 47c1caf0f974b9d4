"""Every setting of a dataclass with its type, default and meaning, as the dataclass itself says them."""

import ast
import inspect
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Any

FORMERLY = "formerly"
"""Key of a field's metadata: the name that it had before, which is still accepted."""


@dataclass(frozen=True)
class Setting:
    """One setting, or one section of settings."""

    name: str
    """Dotted, as in YAML: ``train.max_tokens``."""
    hint: Any
    """Its type; annotations included."""
    default: Any
    """``...`` where it must be given."""
    meaning: str
    """Its docstring, as one paragraph; of a section without one, that of the section's class."""
    section: type | None = None
    """The dataclass that its value is, if it is a section."""
    formerly: str | None = None
    """Its last name once, not dotted."""


@cache
def settings_of(kind: type, prefix: str = "") -> tuple[Setting, ...]:
    """Every setting of a dataclass, on every level, in the order of its fields."""
    return tuple(_settings(kind, prefix))


def _settings(kind: type, prefix: str) -> Iterator[Setting]:
    hints = typing.get_type_hints(kind, include_extras=True)
    meanings = _docstrings(kind)
    for f in fields(kind):
        section = section_in(hints[f.name])
        meaning = meanings.get(f.name) or (inspect.getdoc(section) or "" if section else "")
        name, formerly = f"{prefix}{f.name}", f.metadata.get(FORMERLY)
        yield Setting(name, hints[f.name], _default(f), " ".join(meaning.split()), section, formerly)
        if section is not None:
            yield from settings_of(section, f"{name}.")


def section_in(hint: Any) -> type | None:
    """The type of a field where that is a dataclass, a section of settings."""
    return hint if isinstance(hint, type) and is_dataclass(hint) else None


def _default(f: "Field[Any]") -> Any:
    if f.default_factory is not MISSING:
        return f.default_factory()
    return ... if f.default is MISSING else f.default


def _docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a class."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError):  # a class without source, such as one made at run time
        return {}
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for line, below in zip(tree.body, tree.body[1:], strict=False):
        text = below.value if isinstance(below, ast.Expr) else None
        if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)):
            continue
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[line.target.id] = text.value
    return found
