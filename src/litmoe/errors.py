"""The one exception that stands for a mistake a person can make and mend."""


class LitMoEError(Exception):
    """What is wrong, where, and what to do about it, in one line.

    A command prints the message without a traceback and exits with code 2. A broken
    invariant of the program itself is an ``AssertionError`` instead, and keeps its traceback.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.split()))  # what is quoted in it may hold line breaks


class RunInterrupted(LitMoEError):  # noqa: N818 - nothing went wrong
    """A run that was asked to end, and has saved its state.

    ``exit_code`` is 128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
