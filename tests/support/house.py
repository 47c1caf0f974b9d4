"""How the rooms of the package stand on each other, read from the import statements of its files.

Used by ``tests/test_house.py``, which holds the rules, and by ``docs/pictures/draw_rooms.py``, which draws them.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PACKAGE = "litmoe"

ROOMS = (
    "version",
    "errors",
    "messages",
    "progress_bar",
    "files",
    "splitmix",
    "config",
    "stories",
    "distributed",
    "data",
    "model",
    "optim",
    "checkpoint",
    "wandb",
    "inference",
    "interop",
    "training",
    "report",
    "diagnostics",
    "cli",
    PACKAGE,
)
"""Every room, lowest floor first: a room imports only from those before it. The last is the front of the package,
``__init__.py`` and ``__main__.py``."""


@dataclass(frozen=True)
class Import:
    """One name that one module takes from another module of the package."""

    source: str
    """Dotted name of the importing module, such as ``litmoe.training.loop``."""
    target: str
    line: int
    for_types: bool
    """Under ``if TYPE_CHECKING``: read by the type checker, never executed."""

    @property
    def rooms(self) -> tuple[str, str]:
        """The importing room and the imported one."""
        return room_of(self.source), room_of(self.target)


def modules() -> dict[str, Path]:
    """Dotted name of every module of the package -> its file."""
    return {_name(path): path for path in sorted((SOURCE / PACKAGE).rglob("*.py"))}


def room_of(module: str) -> str:
    """The room that a module belongs to: the part of its name after ``litmoe.``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else PACKAGE


def imports() -> Iterator[Import]:
    """All imports within the package, those inside functions included."""
    known = modules()
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing_only = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for target in _targets(node, known):
                    yield Import(name, target, node.lineno, id(node) in typing_only)


def room_graph() -> dict[str, set[str]]:
    """Room -> the rooms that it imports from, when the program runs."""
    graph: dict[str, set[str]] = {room_of(name): set() for name in modules()}
    for found in imports():
        source, target = found.rooms
        if source != target and not found.for_types:
            graph[source].add(target)
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other (strongly connected components of two or more), by Tarjan."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1 or node in graph.get(node, ()):
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def _name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(node: ast.Import | ast.ImportFrom, known: dict[str, Path]) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name in known}
    assert node.level == 0, "imports name the whole path"
    if node.module is None or node.module not in known:
        return set()
    # `from package import module` imports the module; `from module import name` the module that has the name
    inner = {f"{node.module}.{alias.name}" for alias in node.names}
    return (inner & known.keys()) | ({node.module} if inner - known.keys() else set())
