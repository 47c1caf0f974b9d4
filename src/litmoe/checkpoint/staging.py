"""A checkpoint's contents copied to host memory, so that training goes on while they are written."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from litmoe.checkpoint.layout import Contents
from litmoe.messages import readable
from litmoe.optim.state_size import tensors_in


class HostMemory:
    """Copies of tensors in host memory, in buffers that the next copy uses again.

    Memory that several tensors share (the experts of a layer, tied embeddings) is copied once and shared by the
    copies, so that the file of a copy is the file of the original. On CUDA the buffers are page-locked: such a
    copy runs at the bus's speed, and while it does the next one is queued.
    """

    def __init__(self, pin: bool) -> None:
        self.pin = pin
        self._buffers: list[Tensor] = []
        self._pinned: set[int] = set()

    @property
    def n_bytes(self) -> int:
        """Host memory that the buffers take now."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def copy(self, contents: Contents) -> Contents:
        """Copy a checkpoint's contents; what becomes of the original afterwards does not matter.

        Raises:
            MemoryError: the host has too little memory for the copy.
        """
        both = [contents.model, contents.trainer]
        storages = {
            storage.data_ptr(): storage
            for storage in (tensor.untyped_storage() for tensor in tensors_in(both))
        }
        copies: dict[int, torch.UntypedStorage] = {}
        for number, (pointer, storage) in enumerate(storages.items()):
            buffer = self._buffer(number, storage.nbytes())
            source = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            buffer.copy_(source, non_blocking=self.pin)
            copies[pointer] = buffer.untyped_storage()
        if self.pin:
            torch.cuda.current_stream().synchronize()
        model, trainer = (_with_storages(tree, copies) for tree in both)
        return replace(contents, model=model, trainer=trainer)

    def release(self) -> None:
        """Give the memory back."""
        for buffer in self._buffers:
            self._unpin(buffer)
        self._buffers = []

    def _buffer(self, number: int, n_bytes: int) -> Tensor:
        """The buffer of the ``number``-th storage: last time's if its size is the same, else a new one."""
        if number < len(self._buffers) and self._buffers[number].nbytes == n_bytes:
            return self._buffers[number]
        for buffer in self._buffers[number:]:  # later sizes have changed too: free first, then allocate
            self._unpin(buffer)
        del self._buffers[number:]
        try:
            self._buffers.append(torch.empty(n_bytes, dtype=torch.uint8))
        except (RuntimeError, MemoryError) as error:
            size = readable(self.n_bytes + n_bytes)
            raise MemoryError(f"no host memory for a copy of the checkpoint beyond {size}") from error
        self._pin(self._buffers[-1])
        return self._buffers[-1]

    def _pin(self, buffer: Tensor) -> None:
        """Page-lock a buffer where it is: torch's own pinned memory comes in powers of two, up to twice as much.

        Small buffers share pages, which can be locked only once, and gain nothing. A system that locks no more
        (`ulimit -l`) leaves the buffer as it is: slower, with the same result.
        """
        if self.pin and buffer.nbytes >= 1 << 20:
            on_all_devices = 1
            failed = torch.cuda.cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, on_all_devices)
            if not int(failed):
                self._pinned.add(buffer.data_ptr())

    def _unpin(self, buffer: Tensor) -> None:
        if buffer.data_ptr() in self._pinned:
            self._pinned.remove(buffer.data_ptr())
            torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr())


def _with_storages(tree: Any, storages: Mapping[int, torch.UntypedStorage]) -> Any:
    """The same nest of dicts, lists and tuples, its tensors on other memory; the dicts keep their kind."""
    if isinstance(tree, Tensor):
        storage = storages[tree.untyped_storage().data_ptr()]
        moved = torch.empty(0, dtype=tree.dtype)
        return moved.set_(storage, tree.storage_offset(), tree.size(), tree.stride())
    if isinstance(tree, dict):
        copied = copy.copy(tree)  # a state dict is an OrderedDict with the versions of its modules
        copied.update((key, _with_storages(value, storages)) for key, value in tree.items())
        return copied
    if isinstance(tree, list | tuple):
        return type(tree)(_with_storages(value, storages) for value in tree)
    return tree
