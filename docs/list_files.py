"""Write the list of files in ``ARCHITECTURE.md``: one line per file, the first sentence of its docstring.

    python docs/list_files.py

Rewrites the part of the page between its two marks; ``tests/test_docs.py`` fails when that is out of date.
"""

import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import house

PAGE = Path(__file__).with_name("ARCHITECTURE.md")
BEGIN, END = "<!-- files: docs/list_files.py -->\n", "<!-- end of files -->"


def listing() -> str:
    """The files of the package by room, lowest floor first, as Markdown."""
    rooms: dict[str, list[Path]] = {}
    for name, path in house.modules().items():
        rooms.setdefault(house.room_of(name), []).append(path)
    lines = []
    for room in house.ROOMS:
        if room not in rooms:
            continue
        folder = house.SOURCE / house.PACKAGE / room
        if folder.is_dir():
            lines += ["", f"### {room}/", ""]
            if first := _first_sentence(folder / "__init__.py"):
                lines += [first, ""]
        elif room == house.PACKAGE:
            lines += ["", "### The front of the package", ""]
        elif not lines:
            lines += ["", "### The ground floor", ""]
        for path in sorted(rooms[room], key=lambda path: (len(path.parts), path)):
            if path.name != "__init__.py" or path.parent != folder:
                shown = path.relative_to(folder if folder.is_dir() else house.SOURCE / house.PACKAGE)
                lines.append(f"- `{shown.as_posix()}`: {_first_sentence(path)}")
    return "\n".join([*lines, "", ""])


def _first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`")


def rewritten(page: str) -> str:
    """The page with its list as it should be."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + listing() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    print(f"wrote {PAGE}")
