"""One HTML file that holds all it needs: the drawing library, the figures, and the words around them.

It opens from a disk without a network. A content security policy lets the browser run nothing but the scripts of
this file, by their hashes, and load nothing at all; texts from outside are escaped when the page is written, and
set as text, never as HTML, when a script shows them.
"""

import base64
import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from litmoe.errors import LitMoEError, MissingExtraError
from litmoe.files import write_text
from litmoe.report.words import duration, figure, short

MOST_BYTES = 2_000_000
"""A page that is to be mailed."""

_ASSETS = Path(__file__).parent / "assets"
_BOKEH_SCRIPTS = ("bokeh.min.js", "bokeh-api.min.js")


@dataclass(frozen=True)
class Script:
    """A script of the page, and what the policy knows it by."""

    text: str

    @property
    def source(self) -> str:
        """The policy's expression for exactly this script."""
        digest = base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()
        return f"'sha256-{digest}'"


def render(
    template: str, scripts: Sequence[str], figures: str, styles: Sequence[str] = ("page.css",), **values: Any
) -> str:
    """A page of a template in ``assets``, with BokehJS, scripts of ``assets``, and its figures.

    Args:
        template: the template's file name.
        scripts: file names; they run in this order, after BokehJS.
        figures: JSON, which scripts find in the element ``figures``.
        styles: file names.
        values: what the template shows.

    Raises:
        MissingExtraError: BokehJS is not installed.
    """
    loaded = [*bokeh_scripts(), *(Script(_asset(name)) for name in scripts)]
    page: str = (
        _templates()
        .get_template(template)
        .render(
            **values,
            style="".join(_asset(name) for name in styles),
            scripts=loaded,
            policy=_policy(loaded),
            figures=figures.replace("<", "\\u003c"),  # no text in it can end the element
        )
    )
    return page


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        LitMoEError: the disk refuses.
    """
    write_text(path, page, advice="choose another place with --out")


@cache
def bokeh_scripts() -> tuple[Script, ...]:
    """BokehJS as the installed package has it, with its licence in its first lines.

    Raises:
        MissingExtraError: the package is not there.
    """
    found = importlib.util.find_spec("bokeh")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("a page needs BokehJS, which is not installed: pip install bokeh")
    folder = Path(next(iter(found.submodule_search_locations))) / "server" / "static" / "js"
    try:
        texts = [(folder / name).read_text(encoding="utf-8") for name in _BOKEH_SCRIPTS]
    except OSError as error:
        raise MissingExtraError(
            f"{folder}: no BokehJS there ({error.strerror}): pip install -U bokeh"
        ) from error
    return tuple(Script(text) for text in texts)


def _policy(scripts: Sequence[Script]) -> str:
    allowed = " ".join(script.source for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["trusted"] = Markup  # our own style and scripts, and JSON without a "<"
    environment.filters["short"] = short
    environment.filters["figure"] = figure
    environment.filters["duration"] = duration
    return environment


@cache
def _asset(name: str) -> str:
    try:
        return (_ASSETS / name).read_text(encoding="utf-8")
    except OSError as error:
        raise LitMoEError(f"{_ASSETS / name}: missing; install litmoe again") from error
