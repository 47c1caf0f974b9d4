"""The processes of a run from their start to their end, and what each says and leaves with."""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from litmoe.distributed.launcher import Children, end_with_parent
from litmoe.distributed.lifeline import Lifeline
from litmoe.distributed.world import World
from litmoe.errors import LitMoEError, RankLostError, RunInterrupted


class Session:
    """While it is entered, the other processes run, and none outlives the others.

    If it ends with an error that all ranks share, rank 0 says it, once; with one of this rank alone, rank 0 says
    it in this rank's name. Every other rank ends in silence (``SystemExit``), after rank 0 has finished.
    """

    def __init__(self, world: World, wait_limit: float) -> None:
        """
        Args:
            world: which process this is.
            wait_limit: seconds to wait for another rank at most, where it is right to wait.
        """
        self.world, self._wait_limit = world, wait_limit
        self._children: Children | None = None
        self._lifeline: Lifeline | None = None
        self._at_end: Callable[[], None] | None = None

    def __enter__(self) -> "Session":
        if self.world.size == 1:
            return self
        if self.world.launcher == "litmoe":
            self._children = Children(self.world)
            self.world = self._children.world
        self._lifeline = Lifeline(self.world, self._children, self._wait_limit)
        self._lifeline.start()
        if self.world.local_rank > 0 or self._children is None:
            end_with_parent(self._lifeline.orphaned)
        return self

    def connect(self, exchange: Callable[[Any], Any]) -> None:
        """Join the ranks' lifelines; ``exchange`` is a broadcast from rank 0, and all ranks call this."""
        if self._lifeline is not None:
            self._lifeline.connect(exchange)

    def set_rescue(self, rescue: Callable[[float], None]) -> None:
        """What to do, in so many seconds, before this process is ended because another one is gone."""
        if self._lifeline is not None:
            self._lifeline.rescue = rescue

    def at_end(self, task: Callable[[], None]) -> None:
        """What to do when the run has ended well on all ranks."""
        self._at_end = task

    def leaving(self) -> None:
        """This rank is on its way out with an error: it is not hurried, unless another rank is dead."""
        if self._lifeline is not None:
            self._lifeline.leaving()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lifeline is None:
            return
        first = self.world.rank == 0
        if error is None:
            self._lifeline.leave()
            if self._at_end is not None:
                self._at_end()
            if first or (words := self._lifeline.lost_so_far()) is None:
                return
            self._leave_behind(words)  # rank 0 died after this rank was done, in its last save or text
        if not isinstance(error, LitMoEError | RunInterrupted | KeyboardInterrupt | SystemExit):
            # a broken collective, as a rule: then another rank is gone, and that is the news
            if (words := self._lifeline.lost()) is not None:
                self._lifeline.leave(words, self._lifeline.exit_code)
                self._leave_behind(words)
            if "timed out" in str(error).lower() or "timeout" in str(error).lower():
                words = (
                    f"rank {self.world.rank} waited {self._wait_limit:.0f} s for another rank, which is alive but "
                    "does not come: see what it does, or raise --faults.rank-timeout; --resume auto goes on"
                )
                self._lifeline.leave(words, 1)
                raise RankLostError(words, 1) from None
            self._lifeline.leave(f"{type(error).__name__}: {error}", 1)
            return  # a fault of the program keeps its traceback, on the rank that has it
        code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 2)
        self._lifeline.leave(str(error), code)
        if not first:
            sys.stdout.flush()
            raise SystemExit(code) from None

    def _leave_behind(self, words: str) -> NoReturn:
        """End because another rank is gone; one rank says so."""
        assert self._lifeline is not None
        code = self._lifeline.exit_code
        if self._lifeline.mark_spoken():
            raise RankLostError(words, code) from None
        raise SystemExit(code) from None
