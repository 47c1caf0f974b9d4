"""What readers met that a person should know, counted: one line per kind, however often it occurs."""

from dataclasses import dataclass, field

from litmoe.messages import readable


@dataclass
class Notes:
    """Counts, by what is to be said; and where each was met first."""

    _counts: dict[str, int] = field(default_factory=dict)
    _bytes: dict[str, int] = field(default_factory=dict)
    _first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, where: object, count: int = 1, n_bytes: int = 0) -> None:
        """Count something, and its size. ``what`` is one of a few phrases, such as "null records, left out"."""
        if count:
            self._counts[what] = self._counts.get(what, 0) + count
            self._bytes[what] = self._bytes.get(what, 0) + n_bytes
            self._first.setdefault(what, str(where))

    def lines(self) -> list[str]:
        """A line for each kind."""
        return [
            f"{what}: {count:,}{f', {readable(self._bytes[what])}' if self._bytes[what] else ''} (first: "
            f"{self._first[what]})"
            for what, count in self._counts.items()
        ]
