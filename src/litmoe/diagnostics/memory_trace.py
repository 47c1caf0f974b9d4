"""A log of every piece of memory that operators allocate, from its birth to its release."""

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
"""Bytes by the moment in which they were allocated, and what for."""


@dataclass(eq=False)
class Piece:
    """One storage."""

    n_bytes: int
    made: str
    """The moment in which it was allocated."""
    kind: str
    """What for: the kind of the module that was running, or the one given to `hold`."""


class MemoryTrace(TorchDispatchMode):
    """While entered, a log of all memory that torch's operators allocate and release.

    It sees storages: views count once, and working memory inside an operator not at all. It works with real
    tensors and with fake ones (`torch._subclasses.FakeTensorMode`, entered first), whose storages have a size
    and no memory.
    """

    def __init__(self, kind_of: Callable[[nn.Module], str | None] = lambda _: None) -> None:
        """
        Args:
            kind_of: what a module's own memory is for; None: that of its parent.
        """
        super().__init__()
        self.kind_of = kind_of
        self.moment = ""
        """The phase that is running now; set from outside."""
        self.log: list[tuple[int, Piece, str]] = []
        """(1, piece, moment) at each allocation and (-1, piece, moment) at each release, in order."""
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
        """Count tensors that existed before, or set the kind of tensors already seen."""
        for tensor in tensors:
            self._see(tensor.untyped_storage(), kind).kind = kind

    @contextmanager
    def modules_of(self, model: nn.Module) -> Iterator[None]:
        """Attribute memory that a module of the model allocates while it runs to its kind."""
        handles: list[Any] = []
        for module in model.modules():
            kind = self.kind_of(module)
            if kind is not None:
                handles.append(module.register_forward_pre_hook(self._entering(kind)))
                # always: a recomputed block ends by an exception as soon as it has made what was wanted
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
    """Bytes by owner at the peak of each moment."""
    alive: Parts = Counter()
    total = 0
    found: dict[str, tuple[int, Parts]] = {}
    for sign, piece, moment in log:
        alive[piece.made, piece.kind] += sign * piece.n_bytes
        total += sign * piece.n_bytes
        if total > found.get(moment, (-1, alive))[0]:
            found[moment] = total, alive.copy()
    return {moment: +parts for moment, (_, parts) in found.items()}
