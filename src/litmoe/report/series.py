"""A table of any length as at most so many points, in one pass and in bounded memory."""

from collections.abc import Sequence

import numpy as np

from litmoe.training.recording.metrics_file import Columns


class Series:
    """Columns of numbers, reduced while they are read.

    A point is ``width`` consecutive rows: their mean, minimum and maximum per column, over the cells that have a
    number. The width starts at 1, where nothing is lost, and doubles whenever the points would be more than
    ``most``; a long table ends with between ``most / 2`` and ``most`` of them. Memory: four float64 per point
    and column. P: points, C: columns, N: rows.
    """

    def __init__(self, names: Sequence[str], most: int) -> None:
        """
        Args:
            names: the columns to keep.
            most: points at most; even, and at least 2.
        """
        assert most >= 2 and most % 2 == 0
        self.names = list(names)
        self.most = most
        self.width = 1
        self.rows = 0
        """Rows added so far."""
        shape = (most, len(self.names))
        self._sum_PC = np.zeros(shape)
        self._count_PC = np.zeros(shape)
        self._min_PC = np.full(shape, np.inf)
        self._max_PC = np.full(shape, -np.inf)

    def add(self, block: Columns) -> None:
        """Add rows. Columns that the block lacks count as not measured; so do values that are not finite."""
        n_rows = len(next(iter(block.values())))
        empty_N = np.full(n_rows, np.nan)
        values_NC = np.stack([block.get(name, empty_N) for name in self.names], axis=1)
        done = 0
        while done < n_rows:
            if self.rows == self.most * self.width:
                self._halve()
            now = min(n_rows - done, self.most * self.width - self.rows)
            self._add(values_NC[done : done + now])
            done += now

    def mean(self, name: str) -> np.ndarray:
        """The mean of a column per point, NaN where nothing was measured, (P,)."""
        at = self.names.index(name)
        count_P = self._count_PC[: self.points, at]
        return np.where(count_P > 0, self._sum_PC[: self.points, at] / np.maximum(count_P, 1), np.nan)

    def range(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest value of a column per point, NaN where nothing was measured, each (P,)."""
        at = self.names.index(name)
        measured_P = self._count_PC[: self.points, at] > 0
        low_P, high_P = self._min_PC[: self.points, at], self._max_PC[: self.points, at]
        return np.where(measured_P, low_P, np.nan), np.where(measured_P, high_P, np.nan)

    @property
    def points(self) -> int:
        """How many points there are."""
        return -(-self.rows // self.width)

    def _add(self, values_NC: np.ndarray) -> None:
        """Add rows that fit the points there are."""
        point_N = (self.rows + np.arange(len(values_NC))) // self.width
        starts = np.flatnonzero(np.diff(point_N, prepend=-1))
        at = slice(point_N[0], point_N[-1] + 1)
        finite_NC = np.isfinite(values_NC)
        self._sum_PC[at] += np.add.reduceat(np.where(finite_NC, values_NC, 0.0), starts)
        self._count_PC[at] += np.add.reduceat(finite_NC.astype(float), starts)
        low = np.minimum.reduceat(np.where(finite_NC, values_NC, np.inf), starts)
        high = np.maximum.reduceat(np.where(finite_NC, values_NC, -np.inf), starts)
        self._min_PC[at] = np.minimum(self._min_PC[at], low)
        self._max_PC[at] = np.maximum(self._max_PC[at], high)
        self.rows += len(values_NC)

    def _halve(self) -> None:
        """Make one point of every two."""
        half = self.most // 2
        for table_PC, merge, empty in (
            (self._sum_PC, np.add, 0.0),
            (self._count_PC, np.add, 0.0),
            (self._min_PC, np.minimum, np.inf),
            (self._max_PC, np.maximum, -np.inf),
        ):
            table_PC[:half] = merge(table_PC[0::2], table_PC[1::2])
            table_PC[half:] = empty
        self.width *= 2
