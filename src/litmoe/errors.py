"""What can go wrong by a person's hand, and the end of a run that was asked to end."""


class LitMoEError(Exception):
    """What is wrong, where, and what to do about it, in one line.

    A command prints the message without a traceback and exits with code 2. A broken
    invariant of the program itself is an ``AssertionError`` instead, and keeps its traceback.
    The subclasses let a caller tell kinds apart; each is also the built-in exception of its kind.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.split()))  # quoted text may contain line breaks


class ConfigError(LitMoEError, ValueError):
    """A setting or option that is unknown, impossible, or without effect."""


class DataError(LitMoEError, ValueError):
    """Text, tokenizer or token store that cannot be used."""


class CheckpointError(LitMoEError, ValueError):
    """A checkpoint that is missing, damaged, or of another model or run."""


class MissingExtraError(LitMoEError, ImportError):
    """A package that only an extra of litmoe installs; the message names the extra."""


class DiskFullError(LitMoEError, OSError):
    """The disk has no room for what is to be written."""


class RankLostError(LitMoEError, ConnectionError):
    """Another process of the run has failed or gone, and this one cannot go on without it.

    ``exit_code`` is 2 where that process explained itself, else 1.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RunInterrupted(Exception):  # noqa: N818 - nothing went wrong
    """A run that was asked to end, and has saved its state.

    ``exit_code`` is 128 plus the signal's number: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
