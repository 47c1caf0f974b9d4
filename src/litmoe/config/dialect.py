"""The one dialect of settings, in YAML files and on the command line: YAML 1.2 with grouped digits.

``042`` is 42, ``1e-3`` and ``1_000_000`` are numbers, ``yes``, ``on`` and ``12:30`` are words. What is written
without quotes stays text (:class:`Plain`) until the type of its setting is known, so that a file and an option
that say the same mean the same. PyYAML's own rules are those of YAML 1.1, which read 042 as 34.
"""

import re
from typing import Any

import yaml

from litmoe.errors import ConfigError
from litmoe.messages import one_line

MAX_VALUES = 100_000
"""More values in one text are aliases that repeat each other ("billion laughs"), not settings."""


class Plain(str):
    """Text as it was written without quotes; what it means depends on the type that is wanted."""

    __slots__ = ()


_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INT = re.compile(rf"[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    rf"[-+]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def scalar(text: str) -> bool | int | float | str | None:
    """What a text without quotes means where any type will do."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        try:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:  # Python reads no more than 4,300 digits
            return str(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return str(text)


_YAML = "tag:yaml.org,2002:"
_PLAIN, _MERGE = "!plain", f"{_YAML}merge"


class _Loader(yaml.SafeLoader):
    """YAML whose plain scalars stay :class:`Plain` text. No tag makes anything but text and numbers."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A key that stands twice has two values: neither is taken."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.YAMLError(f"{key.value} is set twice{_line(key)}")
                seen.add(key.value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge keys (``<<: *name``) copy what they name, and may do so again and again."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:
            raise yaml.YAMLError(f"merge keys that make more than {MAX_VALUES:,} values")


def _line(node: yaml.Node) -> str:
    return f" (line {node.start_mark.line + 1})"


def _undefined(loader: _Loader, node: yaml.Node) -> Any:
    raise yaml.YAMLError(f"the tag {node.tag.replace(_YAML, '!!')} has no meaning here{_line(node)}")


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(node.value)  # pairs of \u escapes, as JSON writes what lies beyond 65,535
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _tagged(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """``!!int 042`` and the like: by the same rules as without the tag."""
    kind = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}[node.tag.removeprefix(_YAML)]
    value = scalar(str(node.value))
    if not isinstance(value, kind):  # type: ignore[arg-type]
        raise yaml.YAMLError(f"{node.value!r} is no {node.tag.removeprefix(_YAML)}{_line(node)}")
    return value


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's rules
_Loader.add_implicit_resolver(_MERGE, re.compile("^<<$"), ["<"])
_Loader.add_implicit_resolver(_PLAIN, re.compile(""), [None])
_Loader.yaml_constructors = {
    _PLAIN: lambda loader, node: Plain(node.value),
    f"{_YAML}str": _text,
    **dict.fromkeys((f"{_YAML}{kind}" for kind in ("int", "float", "bool", "null")), _tagged),
    f"{_YAML}seq": yaml.SafeLoader.construct_yaml_seq,
    f"{_YAML}map": yaml.SafeLoader.construct_yaml_map,
    None: _undefined,
}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that this dialect, or YAML 1.1, would read as something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Line ends that YAML 1.1 would change are written as escapes."""
        style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
        return self.represent_scalar(f"{_YAML}str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)

for _kind, _pattern in (("int", _INT), ("float", _FLOAT)):
    _Dumper.add_implicit_resolver(
        f"{_YAML}{_kind}", re.compile(f"(?:{_pattern.pattern})$"), list("-+0123456789.")
    )


def from_yaml(text: str) -> Any:
    """A YAML text as mappings, lists and :class:`Plain` or quoted text.

    Raises:
        ConfigError: it is no YAML, has a tag or a repeated key, or aliases that never end.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise ConfigError(f"not valid YAML: {error.problem or error.context}{where}") from error
    except RecursionError as error:
        raise ConfigError("not valid YAML: lists or mappings nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"not valid YAML: {one_line(error)}") from error
    if _too_many_values(content):
        raise ConfigError(f"its aliases (*name) repeat each other more than {MAX_VALUES:,} times")
    return content


def to_yaml(content: Any, *, ascii_only: bool = False, on_one_line: bool = False) -> str:
    """Plain settings as YAML that reads back as the same values, here and by the rules of YAML 1.1."""
    return yaml.dump(
        content,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=not ascii_only,
        default_flow_style=on_one_line,
        width=10**9 if on_one_line else None,
    )


def meaning(value: Any) -> Any:
    """What a value means where any type will do: all :class:`Plain` text in it as :func:`scalar` reads it.

    On the command line a text that begins as a list, a mapping or a quoted text does is one.

    Raises:
        ConfigError: it begins so, and is not.
    """
    if isinstance(value, Plain):
        return meaning(from_yaml(value)) if value[:1] in ("[", "{", '"', "'") else scalar(value)
    if isinstance(value, dict):
        return {str(key): meaning(item) for key, item in value.items()}
    return [meaning(item) for item in value] if isinstance(value, list) else value


def _too_many_values(content: Any) -> bool:
    """Whether a walk over all values is long, or endless: an alias may stand in what it names."""
    count, rest = 0, [content]
    while rest and count <= MAX_VALUES:
        value = rest.pop()
        count += 1
        rest += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return count > MAX_VALUES
