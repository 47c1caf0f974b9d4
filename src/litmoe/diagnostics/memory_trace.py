"""Every piece of memory that operators hand out, followed from its birth to its end."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Parts = Counter[tuple[str, str]]
"""Bytes by the moment in which they were made, and what for."""


@dataclass(eq=False)
class Piece:
    """One storage."""

    n_bytes: int
    made: str
    """The moment in which it was made."""
    kind: str
    """What for: the kind of module that was running, or what `hold` was told."""


class MemoryTrace(TorchDispatchMode):
    """While it is entered, a log of all memory that torch's operators make and give back.

    It sees storages: views count once, and what an operator uses only within itself not at all. It works with
    real tensors and with fake ones (`torch._subclasses.FakeTensorMode`, entered first), which have storages of a
    size, and no memory.
    """

    def __init__(self, kind_of: Callable[[nn.Module], str | None] = lambda _: None) -> None:
        """
        Args:
            kind_of: what a module's own memory is for; None: the same as its parent's.
        """
        super().__init__()
        self.kind_of = kind_of
        self.moment = ""
        """What is going on now; to be set from outside."""
        self.log: list[tuple[int, Piece, str]] = []
        """(1, piece, moment) when it is made, (-1, piece, moment) when it is given back, in order."""
        self._alive: dict[int, tuple[weakref.ref[torch.UntypedStorage], Piece]] = {}
        self._kinds = [""]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage(), self._kinds[-1])
        return result

    def hold(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Count tensors that were there before; say of others, which have been seen, what they are for."""
        for tensor in tensors:
            self._see(tensor.untyped_storage(), kind).kind = kind

    @contextmanager
    def modules_of(self, model: nn.Module) -> Iterator[None]:
        """What a module of the model makes while it runs is of its kind."""
        handles: list[Any] = []
        for module in model.modules():
            kind = self.kind_of(module)
            if kind is not None:
                handles.append(module.register_forward_pre_hook(self._entering(kind)))
                # always: a recomputed block is left by an exception as soon as it has made what was wanted
                handles.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, kind: str) -> Callable[..., None]:
        return lambda *_: self._kinds.append(kind)

    def _leave(self) -> None:
        self._kinds.pop()

    def _see(self, storage: torch.UntypedStorage, kind: str) -> Piece:
        key = id(storage)  # torch keeps one Python object per storage, for as long as that lives
        if key not in self._alive:
            piece = Piece(storage.nbytes(), self.moment, kind)
            self._alive[key] = weakref.ref(storage, lambda _: self._gone(key)), piece
            self.log.append((1, piece, self.moment))
        return self._alive[key][1]

    def _gone(self, key: int) -> None:
        _, piece = self._alive.pop(key)
        self.log.append((-1, piece, self.moment))


def peaks(log: Sequence[tuple[int, Piece, str]]) -> dict[str, Parts]:
    """For every moment, whose the bytes were when most of them were alive in it."""
    alive: Parts = Counter()
    total = 0
    found: dict[str, tuple[int, Parts]] = {}
    for sign, piece, moment in log:
        alive[piece.made, piece.kind] += sign * piece.n_bytes
        total += sign * piece.n_bytes
        if total > found.get(moment, (-1, alive))[0]:
            found[moment] = total, alive.copy()
    return {moment: +parts for moment, (_, parts) in found.items()}
