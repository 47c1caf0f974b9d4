"""The pages: links and anchors lead somewhere, what is named exists, and what is generated is current."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from support.house import ROOT

from litmoe.cli.main import COMMANDS
from litmoe.config.load import presets
from litmoe.config.options import read_options

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
GENERATED = DOCS / "reference"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def load(script: str) -> ModuleType:
    """A script below ``docs`` as a module."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, DOCS / script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_code(text: str) -> str:
    """A page without its fenced blocks and its inline code, where brackets are not links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and GitLab make them."""
    found: dict[str, int] = {}
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    result = set()
    for heading in re.findall(r"^#{1,6} (.+)$", text, flags=re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        result.add(slug if slug not in found else f"{slug}-{found[slug]}")
        found[slug] = found.get(slug, 0) + 1
    return result


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = without_code(page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href|srcset)="([^"]+)"', text)
    dead = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = target.is_relative_to(ROOT)
        if not inside or not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


@pages
def test_code_fences_name_their_language(page: Path) -> None:
    fences = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    assert all(fences[::2]), "a fence without a language; ```text for what a program prints"
    assert not any(fences[1::2])


@pages
def test_tests_and_scripts_that_are_named_exist(page: Path) -> None:
    """``tests/x.py::test_y``, ``benchmarks/z.py`` and files of the package."""
    text = page.read_text(encoding="utf-8")
    missing = []
    for name in set(re.findall(r"\b((?:tests|benchmarks|docs|src)/[\w./-]+\.(?:py|sh|yaml|svg|md))\b", text)):
        if not (ROOT / name).is_file():
            missing.append(name)
    file = None
    for path, test in re.findall(r"(tests/[\w/]+\.py)?::(test_\w+)", text):
        file = ROOT / path if path else file
        if file is None or not file.is_file() or test not in _functions(file):
            missing.append(f"{file}::{test}")
    assert not missing


def _functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


SCRIPTS = {
    "prepare_data.py": "prepare",
    "run_train.py": "train",
    "generate.py": "generate",
    "evaluate.py": "evaluate",
    "wandb_dataset.py": "wandb-dataset",
}


def commands_of(page: Path) -> list[tuple[str, list[str]]]:
    """The litmoe commands in a page's blocks of code: name and arguments."""
    found = []
    for language, block in re.findall(
        r"^ *```(\w+)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S
    ):
        lines = block.replace("\\\n", " ").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in lines if language in ("bash", "powershell", "console") else []:
            args = [arg for arg in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", arg)]
            while args and args[0] in ("uv", "run", "python", "-m"):
                del args[0]
            if args and args[0] in SCRIPTS:
                found.append((SCRIPTS[args[0]], args[1:]))
            elif len(args) > 1 and args[0] == "litmoe" and args[1] != "--help":
                found.append((args[1], args[2:]))
    return found


@pages
def test_commands_have_the_options_that_they_show(page: Path) -> None:
    """Names and types of options, and names of presets; what an argument names need not be there."""
    for name, args in commands_of(page):
        command = COMMANDS[name]
        while args and not args[0].startswith("-"):
            del args[0]  # a checkpoint, a source, runs
        if "--help" not in args:
            read_options(args, *command.options)
        if "--preset" in args:
            assert args[args.index("--preset") + 1] in presets()


def test_commands_are_found() -> None:
    assert len(commands_of(DOCS / "guides" / "commands.md")) > 15


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    missing = [
        path
        for page in DOCS.rglob("*.md")
        if (path := page.relative_to(DOCS).as_posix()) != "index.md" and f"({path}" not in index
    ]
    assert not missing


def test_the_picture_of_the_rooms_is_current() -> None:
    rooms = load("pictures/draw_rooms.py")
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.drawing(), "python docs/pictures/draw_rooms.py"


def test_the_list_of_files_is_current() -> None:
    files = load("list_files.py")
    page = files.PAGE.read_text(encoding="utf-8")
    assert page == files.rewritten(page), "run python docs/list_files.py"


def test_every_file_of_the_package_is_listed() -> None:
    """With a sentence that says what it is."""
    listed = (DOCS / "ARCHITECTURE.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "litmoe"
    for path in package.rglob("*.py"):
        if path.name != "__init__.py":
            name = path.relative_to(package)
            shown = Path(*name.parts[1:]) if len(name.parts) > 1 else name
            assert re.search(rf"^- `{re.escape(shown.as_posix())}`: \S", listed, flags=re.M), path


def test_the_picture_of_a_run_is_current() -> None:
    run = load("pictures/draw_run.py")
    assert run.PICTURE.read_text(encoding="utf-8") == run.drawing(run.read(run.TABLE))
