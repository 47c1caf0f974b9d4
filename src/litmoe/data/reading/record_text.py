"""The text of a record, whatever file the record comes from.

The text is a string in one field. A dotted name (``meta.text``) goes into nested objects, unless a field
bears the whole name. A field that holds a conversation (a list of turns, each ``{"role", "content"}`` or
``{"from", "value"}``) gives one text: ``role: content`` for every turn, with blank lines between. What is
null has no text, and is counted.
"""

from collections.abc import Iterator
from typing import Any

from litmoe.data.reading.notes import Notes
from litmoe.errors import DataError

SPEAKER_AND_WORDS = (("role", "content"), ("from", "value"))
"""The names of the two fields of a turn, in either convention."""

_CONVERSATIONS = ("messages", "conversations", "conversation")
_MOST_NAMES, _LONGEST_NAME = 8, 40  # of fields, in a message


class Label:
    """The value of one of some fields in the record whose text was read last, such as where it is from."""

    def __init__(self, *fields: str) -> None:
        """``fields``: names, the preferred one first."""
        self.fields = fields
        self.value: str | None = None
        """None: that record has none of the fields, or no text in them."""

    def see(self, record: dict[str, Any]) -> None:
        """Take the label of a record."""
        found = (record.get(name) for name in self.fields)
        self.value = next((value for value in found if isinstance(value, str) and value), None)


def text_of(record: Any, field: str, where: str, notes: Notes, label: Label | None) -> Iterator[str]:
    """The text of a record; nothing if there is none.

    Args:
        record: What the file holds in place of a record.
        field: Where the text is.
        where: The file and the record's place in it, for messages.
        notes: Counts what has no text.
        label: Sees the record.

    Raises:
        DataError: Not a record, no such field, or something else than text in it.
    """
    if record is None:
        notes.add("records that are null, left out", where)
        return
    if not isinstance(record, dict):
        raise DataError(f"{where} is not an object with a field {field!r}; make every entry an object")
    if label is not None:
        label.see(record)
    value = _find(record, field, where)
    if value is None:
        notes.add("records whose text is null, left out", where)
        return
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        value = _conversation(value, f"{where}, field {field!r}", notes)
    if not isinstance(value, str):
        raise DataError(
            f"{where}: field {field!r} is not a string but {type(value).__name__}; name another --text-field"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: character {error.start} of the text is half a surrogate pair; repair or remove it"
        ) from error
    yield value


def _find(record: dict[str, Any], field: str, where: str) -> Any:
    """The value of a field, which may be a dotted name."""
    if field in record:
        return record[field]
    value: Any = record
    for name in field.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or name not in value:
            raise no_field(where, field, list(record), "fields")
        value = value[name]
    return value


def _conversation(turns: list[dict[str, Any]], where: str, notes: Notes) -> str:
    """The text of a conversation, as the module's docstring says."""
    texts = []
    for number, turn in enumerate(turns, 1):
        names = next((names for names in SPEAKER_AND_WORDS if names[1] in turn), None)
        if names is None:
            raise DataError(
                f"{where}: turn {number} has neither 'content' nor 'value', only {_listed(list(turn))}; name "
                "another --text-field"
            )
        speaker, words = turn.get(names[0]), turn[names[1]]
        if isinstance(words, list):  # parts of text among images and the like
            spoken = [
                part["text"] for part in words if isinstance(part, dict) and isinstance(part.get("text"), str)
            ]
            notes.add("parts of conversations that are not text, left out", where, len(words) - len(spoken))
            words = "\n".join(spoken) if spoken else None
        if words is None:
            notes.add("turns of conversations without text, left out", where)
        elif not isinstance(words, str):
            raise DataError(
                f"{where}: turn {number} is not text but {type(words).__name__}; repair or remove it"
            )
        else:
            texts.append(f"{speaker}: {words}" if isinstance(speaker, str) and speaker else words)
    return "\n\n".join(texts)


def no_field(where: str, field: str, found: list[str], kind: str) -> DataError:
    """The error for a record or table without the field; ``kind`` is what it has instead: "fields", "columns"."""
    conversation = next((name for name in _CONVERSATIONS if name in found), None)
    if conversation is not None and field == "text":
        return DataError(
            f"{where} has no 'text' but a conversation; --text-field {conversation} reads its turns as one text "
            "(litmoe prepare --source, litmoe evaluate --data)"
        )
    return DataError(
        f"{where} has no {field!r}, only the {kind} {_listed(found)}; name one with --text-field (litmoe prepare "
        "--source, litmoe evaluate --data)"
    )


def _listed(names: list[str]) -> str:
    short = [" ".join(name.split())[:_LONGEST_NAME] for name in names[:_MOST_NAMES]]
    return (", ".join(short) + (", ..." if len(names) > _MOST_NAMES else "")) or "(none)"
