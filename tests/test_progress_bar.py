import io
import os
import sys

import pytest

from litmoe.progress_bar import progress_bar


class Terminal(io.StringIO):
    """A terminal that, once it has gone, refuses every write as a closed one does."""

    gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError(5, os.strerror(5))
        return super().write(text)


@pytest.mark.parametrize(
    ("stream", "show", "expected"),
    [(Terminal(), True, True), (Terminal(), False, False), (io.StringIO(), True, False)],
)
def test_a_bar_is_drawn_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, show: bool, expected: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress_bar(range(3), show=show, desc="read")) == [0, 1, 2]
    assert ("read" in stream.getvalue()) is expected


def test_a_terminal_that_has_gone_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    bar = progress_bar(total=5, mininterval=0, miniters=1)
    bar.update(1)
    stream.gone = True
    bar.update(1)
    bar.set_postfix_str("loss 1")
    bar.close()
    assert bar.n == 2


def test_no_stderr_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress_bar(range(3))) == [0, 1, 2]
