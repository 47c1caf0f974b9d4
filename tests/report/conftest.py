"""One browser for all tests of pages in a file."""

from collections.abc import Iterator

import pytest
from support.browser import Browser, headless_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser; skips where there is none."""
    with headless_browser() as found:
        yield found
