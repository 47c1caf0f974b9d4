"""What a command is: its options, what it does with them, and how its help is laid out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from litmoe.cli.console import Console
from litmoe.config import TrainConfig
from litmoe.config.load import RunFiles, build, train_config
from litmoe.config.options import read_options

Own = TypeVar("Own")


@dataclass(frozen=True)
class Command:
    """A command of litmoe."""

    run: Callable[[Sequence[str], Console], int | None]
    """Does the job for the arguments after the command's name; returns its exit code, None: 0. The first line of
    its docstring says in the list of commands what it does."""
    options: tuple[type, ...]
    """The dataclasses whose fields are its options."""
    usage: str
    """The arguments, after the command's name."""
    essentials: tuple[str, ...] = ()
    """The options that the short help shows, without their dashes; empty: all."""
    note: str = ""
    """A paragraph to end the help with."""
    result_is_printed: bool = False
    """Whether stdout is what the command is for, so that it has failed where that is lost."""

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


def run_options(
    args: Sequence[str], own_kind: type[Own], default_preset: str | None = None
) -> tuple[Own, TrainConfig]:
    """A command's own options, and the training configuration that the others make.

    Args:
        args: the command line after the command's name.
        own_kind: the dataclass of the command's own options.
        default_preset: the preset to use where neither a preset nor a file is named; None: ``train_config.yaml``.

    Raises:
        ConfigError: an unknown option, a value of the wrong type, or a file that cannot be read.
    """
    own, files, options = read_options(args, own_kind, RunFiles, TrainConfig)
    run_files = build(RunFiles, files)
    if run_files.preset is None and run_files.config is None:
        run_files.preset = default_preset
    return build(own_kind, own), train_config(run_files, options)


def names_first(args: Sequence[str], option: str) -> list[str]:
    """The arguments with all leading ones that are no options turned into the values of ``option``."""
    count = next((at for at, arg in enumerate(args) if arg.startswith("-")), len(args))
    return [f"--{option}", *args] if count else list(args)


def named_first(args: Sequence[str], option: str) -> list[str]:
    """The arguments with a leading one that is no option turned into ``option``'s value."""
    if args and not args[0].startswith("-"):
        return [f"--{option}={args[0]}", *args[1:]]
    return list(args)
