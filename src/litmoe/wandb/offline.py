"""What earlier offline parts of a run hold, which ``wandb sync`` will upload in their order.

``wandb sync`` adds the rows of a part behind those of the parts before, and renumbers steps that are there
already. So a resumed part must begin exactly where the last one ends; and that is not where the run was killed,
for wandb writes its file in blocks.

The file is LevelDB's log: blocks of 32 KiB, in them records with a header of checksum, length and kind, which go
on in the next block if need be. Each holds one message of wandb's protocol.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litmoe.errors import LitMoEError
from litmoe.files import reason_of

_BLOCK = 32768
_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _LAST = 1, 2, 4
_MAGIC = 7  # bytes before the first record


def next_step(wandb_dir: Path, run_id: str) -> int:
    """The first step that the offline parts of a run do not hold; 0 if there are none.

    Args:
        wandb_dir: the folder that wandb puts its own folder ``wandb`` into.
        run_id: the run's.

    Raises:
        LitMoEError: a part cannot be read.
    """
    parts = sorted(wandb_dir.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb"))
    return max((_last_step(path) for path in parts), default=-1) + 1


def _last_step(path: Path) -> int:
    """The highest step of a part, -1 if it has no rows. They are in order of their steps, so the end is enough."""
    from wandb.proto import wandb_internal_pb2

    try:
        with path.open("rb") as file:
            n_blocks = -(-path.stat().st_size // _BLOCK)
            for first in reversed(range(n_blocks)):
                # a record may go on in the blocks after: 8 of them are more than any row takes
                file.seek(first * _BLOCK)
                data = file.read(8 * _BLOCK)
                steps = [
                    record.history.step.num
                    for record in _records(data, wandb_internal_pb2.Record, skip=_MAGIC if first == 0 else 0)
                    if record.WhichOneof("record_type") == "history"
                ]
                if steps:
                    return max(steps)
    except OSError as error:
        raise LitMoEError(f"{path}: cannot be read: {reason_of(error)}") from error
    return -1


def _records(data: bytes, kind: Any, skip: int) -> Iterator[Any]:
    """The messages of consecutive blocks; parts of records without a beginning or an end are left out."""
    position, parts, whole = skip, b"", False
    while position + _HEADER.size <= len(data):
        room = _BLOCK - position % _BLOCK
        if room < _HEADER.size:  # the rest of a block is padding
            position += room
            continue
        _, length, piece = _HEADER.unpack_from(data, position)
        body = data[position + _HEADER.size : position + _HEADER.size + length]
        position += _HEADER.size + length
        if piece == 0 or len(body) < length:  # never written, or cut short by a kill
            return
        if piece in (_FULL, _FIRST):
            parts, whole = b"", True
        parts += body
        if piece in (_FULL, _LAST) and whole:
            whole = False
            try:
                yield kind.FromString(parts)
            except Exception:  # damaged, as after a crash of the machine: protobuf has errors of its own
                return
