"""``litmoe report`` and ``litmoe runs``: what runs did, as a page and in the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from litmoe.cli.command import Command, names_first
from litmoe.cli.console import Console
from litmoe.config.load import parse
from litmoe.config.values import File, Folder
from litmoe.errors import ConfigError


@dataclass
class ReportOptions:
    """Which runs, and where the page goes."""

    runs: list[Folder] = field(default_factory=list)
    """The runs' output folders; several lie over each other on one page."""
    out: File | None = None
    """The page; null: ``report.html`` in the folder of the first run."""
    json: File | None = None
    """Also write the figures to this file."""


@dataclass
class RunsOptions:
    """Where to look for runs, or which of them to compare."""

    runs: list[Folder] = field(default_factory=list)
    """A folder that runs are in (``checkpoints`` by itself), or two runs and more to compare."""


def report_command(args: Sequence[str], console: Console) -> None:
    """Write what a run did as one page to look at; several runs over each other."""
    options = parse(ReportOptions, names_first(args, "runs"))
    if not options.runs:
        raise ConfigError("name the folder of a run, such as checkpoints/tiny; litmoe runs lists them")
    from litmoe.report.run_page import write_report

    page = write_report(options.runs, options.out, options.json)
    console.say(f"wrote {page}")


def runs_command(args: Sequence[str], console: Console) -> None:
    """List the runs below a folder, or compare runs."""
    options = parse(RunsOptions, names_first(args, "runs"))
    from pathlib import Path

    from litmoe.report.listing import comparison_text, list_runs, listing_text

    if len(options.runs) > 1:
        console.say(comparison_text(options.runs))
    else:
        folder = options.runs[0] if options.runs else Path("checkpoints")
        console.say(listing_text(list_runs(folder, console.warn)))


REPORT = Command(report_command, (ReportOptions,), "RUN [RUN ...] [--out FILE] [--json FILE]")
RUNS = Command(runs_command, (RunsOptions,), "[DIR] | RUN RUN [RUN ...]", result_is_printed=True)
