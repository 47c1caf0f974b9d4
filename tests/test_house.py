"""The order of the house: imports go down only, files stay short, and what is public says what it is."""

import importlib
import inspect
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from support import house

MOST_LINES = 400

CONTENT = ("litmoe.stories.animals.", "litmoe.stories.children.")
"""The plots of the built-in stories: their names and sentences say what each is."""


def test_imports_go_down_only() -> None:
    """Lazy imports inside functions count; so do those for the type checker only."""
    order = {room: floor for floor, room in enumerate(house.ROOMS)}
    upward = [
        f"{found.source}:{found.line} imports {found.target}"
        for found in house.imports()
        if found.rooms[0] != found.rooms[1] and order[found.rooms[1]] >= order[found.rooms[0]]
    ]
    assert not upward, "a room imports only from those before it in support.house.ROOMS:\n" + "\n".join(
        upward
    )


def test_every_room_has_its_floor() -> None:
    assert {house.room_of(name) for name in house.modules()} <= set(house.ROOMS)


def test_no_circles_between_modules() -> None:
    """Within a room too. A name that only the type checker reads may come from the module that uses this one."""
    graph: dict[str, set[str]] = {name: set() for name in house.modules()}
    for found in house.imports():
        if not found.for_types:
            graph[found.source].add(found.target)
    assert house.circles(graph) == []


def test_circles_are_found() -> None:
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}) == [["b", "c"], ["d"]]
    assert house.circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_files_are_short() -> None:
    """A file above 400 lines has more than one idea; the texts of the built-in stories are content."""
    long = {}
    for name, path in house.modules().items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if house.room_of(name) != "stories" and lines > MOST_LINES:
            long[name] = lines
    assert not long


@pytest.mark.parametrize("room", sorted({house.room_of(name) for name in house.modules()}))
def test_what_is_public_has_a_docstring(room: str) -> None:
    """Modules, functions, classes and methods without a leading underscore; an override may inherit its own."""
    bare = []
    for name, path in house.modules().items():
        if house.room_of(name) == room and path.name != "__main__.py":
            bare += [n for n in _bare(importlib.import_module(name)) if not n.startswith(CONTENT)]
    assert not bare, "without a docstring:\n" + "\n".join(bare)


def _bare(module: ModuleType) -> list[str]:
    """What of a module is public and has no docstring."""
    bare = [] if module.__doc__ or _is_empty(module) else [module.__name__]
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, type):
            bare += [] if _own(value) else [f"{module.__name__}.{name}"]
            bare += _bare_methods(value)
        elif isinstance(inspect.unwrap(value) if callable(value) else value, FunctionType):
            bare += [] if inspect.getdoc(value) else [f"{module.__name__}.{name}"]
    return bare


def _own(kind: type) -> bool:
    """Whether a class has a docstring of its own; not the one that ``dataclass`` makes of its fields."""
    text = kind.__dict__.get("__doc__")
    return bool(text) and not text.startswith(f"{kind.__name__}(")


def _bare_methods(kind: type) -> list[str]:
    """Methods and properties without a docstring, also in no class that this one inherits from."""
    bare = []
    for name, value in vars(kind).items():
        if name.startswith("_") or not _is_method(value) or inspect.getdoc(getattr(kind, name)):
            continue
        bare.append(f"{kind.__module__}.{kind.__qualname__}.{name}")
    return bare


def _is_method(value: Any) -> bool:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    # what a decorator such as dataclass generates has no line in a file of ours
    function = value.fget if isinstance(value, property) else value
    return isinstance(function, FunctionType) and Path(function.__code__.co_filename).is_relative_to(
        house.SOURCE
    )


def _is_empty(module: ModuleType) -> bool:
    assert module.__file__ is not None
    return not Path(module.__file__).read_text(encoding="utf-8").strip()
