"""The one exception that stands for a mistake a person can make and mend."""


class LitMoEError(Exception):
    """What is wrong, where, and what to do about it, in one line.

    A command prints the message without a traceback and exits with code 2. A broken
    invariant of the program itself is an ``AssertionError`` instead, and keeps its traceback.
    """
