"""The help of commands: options as people type them, the essential ones first."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from litmoe.cli.command import Command
from litmoe.config import ClassSpec, as_plain
from litmoe.config.describe import Setting, settings_of
from litmoe.config.dialect import to_yaml
from litmoe.config.options import options_of, spelled
from litmoe.config.values import choices_of, shown

WIDTH, HEIGHT = 80, 24
_WIDEST = 32
"""Columns for an option and its type; a longer one has a line to itself."""


def help_wanted(args: Sequence[str]) -> str | None:
    """``essentials`` or ``all`` where the arguments ask for help; None where they do not."""
    if "--help=all" in args:
        return "all"
    if "--help" in args:
        return "all" if "all" in args[args.index("--help") + 1 :][:1] else "essentials"
    return "essentials" if args[:1] == ["-h"] else None


def help_text(command: Command, program: str, level: str = "essentials") -> str:
    """The help of a command.

    Args:
        command: the command.
        program: how it was called, such as ``litmoe train``.
        level: ``essentials``: the options that most people need, on one screen; ``all``: every one, in full.
    """
    everything = [option for kind in command.options for option in options_of(kind)]
    usage = textwrap.wrap(f"usage: {program} {command.usage}", WIDTH, subsequent_indent=" " * 7)
    head = [*usage, "", *textwrap.wrap(command.summary, WIDTH), ""]
    in_full: list[str] = []
    for title, options in groups(command):
        in_full += [f"{title}:"] if len(command.options) > 1 else []
        in_full += [*(line for option in options for line in _in_full(option)), ""]
    note = textwrap.wrap(command.note, WIDTH)
    if level == "all" or len(head) + len(in_full) + len(note) <= HEIGHT:
        return "\n".join([*head, *in_full, *note]).rstrip() + "\n"
    by_name = {spelled(option.name): option for option in everything}
    chosen = [by_name[name] for name in command.essentials or by_name]
    width = min(_WIDEST, max(len(_brief_option(option)) for option in chosen))
    more = f"lists all {len(everything)} options" if command.essentials else "says more about each"
    brief = [_in_brief(option, width) for option in chosen]
    return "\n".join([*head, *brief, "", *note, f"`{program} --help all` {more}."]) + "\n"


def groups(command: Command) -> Iterator[tuple[str, list[Setting]]]:
    """The options of a command by what they belong to, each group with its title."""
    for kind in command.options:
        rest = options_of(kind)
        sections = [s for s in settings_of(kind) if s.section not in (None, ClassSpec)]
        of = {s.name: [option for option in rest if option.name.startswith(f"{s.name}.")] for s in sections}
        inside = {option.name for options in of.values() for option in options}
        yield _sentence(kind.__doc__ or ""), [option for option in rest if option.name not in inside]
        for section in sections:
            yield f"{section.name}: {_sentence(section.meaning)}", of[section.name]


def option_and_type(option: Setting) -> str:
    """``--max-tokens INT``; a switch that is off by itself needs no value."""
    if option.name.endswith(".init_args"):
        return f"--{spelled(option.name)}.KEY VALUE"
    kind = "NAME" if option.section is ClassSpec else shown(option.hint)
    is_switch = kind == "true|false" and option.default is False
    return f"--{spelled(option.name)}" + ("" if is_switch else f" {kind}")


def default_text(value: Any) -> str:
    """A default as it would be written in YAML, on one line; empty where there is none worth telling."""
    if value is None or value is ... or value is False or value in ("", [], {}):
        return ""
    plain = value.class_path if isinstance(value, ClassSpec) else as_plain(value)
    return to_yaml([plain], on_one_line=True).strip()[1:-1]


def _in_brief(option: Setting, width: int) -> str:
    """An option on one line, with as much of its meaning as fits."""
    left, text = f"  {_brief_option(option):<{width}}  ", _sentence(option.meaning)
    if (choices := choices_of(option.hint)) and choices[-1] not in left:
        named = f"{text}: {', '.join(choices)}"
        text = named if len(named) <= WIDTH - len(left) else ", ".join(choices)
    return left + _shortened(text, WIDTH - len(left))


def _brief_option(option: Setting) -> str:
    """An option and its type; a long list of choices stands beside it."""
    left = option_and_type(option)
    return f"--{spelled(option.name)} NAME" if len(left) > _WIDEST and choices_of(option.hint) else left


def _in_full(option: Setting) -> list[str]:
    """An option with its whole meaning and its default."""
    text = _readable(option.meaning)
    if default := default_text(option.default):
        text += f" [{default}]"
    left = f"  {option_and_type(option)}"
    indent = " " * (_WIDEST + 4)
    if len(left) > _WIDEST + 2:
        return [left, *textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)]
    return textwrap.wrap(text, WIDTH, initial_indent=f"{left:<{_WIDEST + 4}}", subsequent_indent=indent)


def _shortened(text: str, width: int) -> str:
    """As many clauses as fit."""
    for mark in ("; ", ", ", ": "):
        if len(text) > width and mark in text[:width]:
            text = text[: text[:width].rindex(mark)]
    return textwrap.shorten(text, width, placeholder=" ...")


def _sentence(text: str) -> str:
    """The first sentence."""
    return _readable(text).split(". ")[0].rstrip(".")


def _readable(text: str) -> str:
    return " ".join(text.replace("``", "").split())
