"""A line between each rank and rank 0, by which every rank learns at once that another one has failed or gone.

A process that dies, however it dies, closes its sockets: the others read the end of the line within milliseconds,
whatever their main thread does (a collective, a save, a long read). That needs no heartbeat, so a process that is
merely slow, stopped or swapped out is never taken for dead. What the ranks then do:

- A rank that *dies* takes the others with it within ``DEATH_SECONDS``: there is nobody left to train with.
- A rank that *fails* (an exception of its own) sends its message and waits; the others leave too, and rank 0 may
  first finish what it is writing. Nobody leaves before rank 0 does, since every launcher takes a process that ends
  with an error for a reason to kill the others.
- An end that all ranks come to together (the run is done, a signal, a bad step) is the same without a message.

One rank speaks: rank 0, or rank 1 where rank 0 is what was lost.
"""

import contextlib
import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from litmoe.distributed.launcher import Children
from litmoe.distributed.world import World

DEATH_SECONDS = 4.0
"""How long the main thread may take to end by itself after a rank has died."""
FAREWELL_SECONDS = 1.0
"""The same after rank 0 has said that it failed, and gone."""
_WORDS_SECONDS = 1.5  # how long a broken collective waits to learn who is gone
_RESUME = "--resume auto goes on from the newest checkpoint"


class Lifeline(threading.Thread):
    """Watches the other ranks while a run is under way. Start it before the processes connect (a child that ends
    then would be waited for without end), `connect` after."""

    def __init__(
        self, world: World, children: Children | None, wait_limit: float, program: str = "litmoe"
    ) -> None:
        """
        Args:
            world: which process this is.
            children: those that this one has started.
            wait_limit: seconds to wait at most for another rank, where it is right to wait.
            program: begins the lines on stderr.
        """
        super().__init__(name="lifeline", daemon=True)
        self.world, self.children, self.wait_limit, self.program = world, children, wait_limit, program
        self.rescue: Callable[[float], None] | None = None
        """Called with seconds before this process is ended from here: finishes a pending write, or gives up."""
        self._selector = selectors.DefaultSelector()
        self._ranks: dict[socket.socket, int] = {}
        self._buffers: dict[socket.socket, bytes] = {}
        self._parted: set[int] = set()  # ranks that have said goodbye
        self._lock = threading.Lock()
        self._spoken = False
        self._leaving = threading.Event()  # this rank's main thread is on its way out by itself
        self._over = threading.Event()  # rank 0 has said goodbye: all may go
        self._lost = threading.Event()
        self._words: tuple[int, str | None, int] | None = None  # the lost rank, what it said, the exit code
        self._closed = False

    # What the main thread calls

    def connect(self, exchange: Callable[[Any], Any]) -> None:
        """Join the ranks; ``exchange`` is a broadcast from rank 0, which all ranks call here."""
        if self.world.rank == 0:
            server = socket.create_server(("" if self.world.nodes > 1 else "127.0.0.1", 0))
            token = secrets.token_hex(16)
            exchange((server.getsockname()[1], token))
            self._accept(server, token)
        else:
            port, token = exchange(None)
            host = self.world.address if self.world.nodes > 1 else "127.0.0.1"
            line = socket.create_connection((host, port), timeout=30)
            line.sendall(json.dumps({"token": token, "rank": self.world.rank}).encode() + b"\n")
            self._add(line, 0)

    def orphaned(self) -> None:
        """The process that started this one is gone: end as if rank 0 were."""
        if not self._over.is_set() and not self._closed:
            self._on_loss(0, "the process that started it is gone" if self.world.rank == 0 else None, 1)

    def leaving(self) -> None:
        """The main thread is on its way out with an error of its own; it is not hurried unless a rank is dead."""
        self._leaving.set()

    def lost(self) -> str | None:
        """Which rank has failed or gone, in words, where a collective broke; None if none has."""
        self._lost.wait(_WORDS_SECONDS)
        return self.lost_so_far()

    def lost_so_far(self) -> str | None:
        """The same without waiting."""
        return self._sentence() if self._words else None

    def mark_spoken(self) -> bool:
        """Whether the words about a lost rank are this process's to say, once."""
        with self._lock:
            first, self._spoken = not self._spoken, True
        lost, message, _ = self._words or (-1, None, 0)
        # rank 0 that failed has said so itself; rank 0 that died needs somebody to say it
        speaker = 0 if lost != 0 else 1 if message is None else None
        return first and self.world.rank == speaker

    @property
    def exit_code(self) -> int:
        """What a process leaves with because of the lost rank: 2 where that explained itself, else 1."""
        return self._words[2] if self._words else 1

    def leave(self, message: str | None = None, exit_code: int = 1) -> None:
        """Say goodbye, with the error of this rank where there is one; returns when rank 0 has gone, or may go.

        Args:
            message: why this rank leaves early, in one line; None where the run is done.
            exit_code: of this rank's process.
        """
        self._leaving.set()
        if self.world.rank == 0:
            self._send_all({"kind": "bye", "message": message, "code": exit_code})
            self._over.set()
            if self.children is not None:
                self.children.stop(min(10.0, self.wait_limit))
        elif not self._over.is_set() and self._ranks:
            self._send_all(
                {"kind": "bye" if message is None else "failed", "message": message, "code": exit_code}
            )
            self._over.wait(self.wait_limit)
        self._closed = True

    # The thread

    def run(self) -> None:
        """Read the lines of all ranks, until this one leaves."""
        while not self._closed:
            for key, _ in self._selector.select(timeout=0.2) if self._ranks else self._idle():
                self._read(key.fileobj)  # type: ignore[arg-type]
            self._look_at_children()

    def _idle(self) -> list[Any]:
        time.sleep(0.2)
        return []

    def _look_at_children(self) -> None:
        for rank, code in (self.children.ended() if self.children is not None else {}).items():
            if rank not in self._parted and not self._over.is_set():
                self._parted.add(rank)
                ended = (
                    f"its process ended with exit code {code}" if code >= 0 else f"signal {-code} ended it"
                )
                self._on_loss(rank, None, 1, ended)

    def _read(self, line: socket.socket) -> None:
        rank = self._ranks[line]
        try:
            data = line.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._drop(line)
            if rank not in self._parted and not self._over.is_set():
                self._parted.add(rank)
                self._on_loss(rank, None, 1)
            if rank == 0:
                self._over.set()  # nobody is left to wait for
            return
        *lines, self._buffers[line] = (self._buffers[line] + data).split(b"\n")
        for text in lines:
            self._on_message(rank, json.loads(text))

    def _on_message(self, rank: int, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind in ("bye", "failed"):
            self._parted.add(rank)
        if kind == "bye" and rank == 0:
            self._over.set()
            if message["message"] is not None and not self._leaving.is_set():
                self._on_loss(0, message["message"], message["code"])
        elif kind == "failed":
            self._on_loss(rank, message["message"], message["code"])
        elif kind == "lost":
            self._on_loss(message["rank"], message["message"], message["code"])

    def _on_loss(self, rank: int, message: str | None, code: int, how: str = "") -> None:
        """A rank has died (no message) or failed: tell the others, and see that this process ends."""
        if self._words is None:
            self._words = (rank, message or (f"it is gone ({how})" if how else None), code)
        self._lost.set()
        if self.world.rank == 0:
            self._send_all({"kind": "lost", "rank": rank, "message": message, "code": code})
        arguments = (message is None, FAREWELL_SECONDS if rank == 0 and message else DEATH_SECONDS)
        threading.Thread(target=self._end, args=arguments, name="lifeline-end", daemon=True).start()

    def _end(self, dead: bool, seconds: float) -> None:
        """End this process where its main thread cannot: it may wait in a collective for the lost rank."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._closed:
                return
            time.sleep(0.1)
        if self._leaving.is_set() and not dead:
            return  # it says its own words, and may take its time
        if self.world.rank == 0 and self.rescue is not None:
            with contextlib.suppress(Exception):
                self.rescue(1.0 if dead else self.wait_limit)
        if self.mark_spoken():
            with contextlib.suppress(OSError, ValueError):
                print(f"{self.program}: {self._sentence()}", file=sys.stderr, flush=True)
        if self.world.rank == 0:
            self._send_all({"kind": "bye", "message": None, "code": self.exit_code})
        elif not dead:
            self._over.wait(self.wait_limit)  # rank 0 may be writing
        if self.children is not None:
            self.children.kill()
        os._exit(self.exit_code)

    def _sentence(self) -> str:
        assert self._words is not None
        rank, message, code = self._words
        if message is None:
            return f"rank {rank}: its process is gone (killed, or out of memory); {_RESUME}"
        return f"rank {rank}: {message}" + ("" if code == 2 else f"; {_RESUME}")

    # Sockets

    def _accept(self, server: socket.socket, token: str) -> None:
        """Wait for every other rank to come to the line, and to know the token that only the ranks got."""
        deadline = time.monotonic() + 60
        with server:
            while len(self._ranks) < self.world.size - 1 and time.monotonic() < deadline:
                server.settimeout(max(0.1, deadline - time.monotonic()))
                try:
                    line, _ = server.accept()
                    line.settimeout(10)
                    hello = json.loads(_first_line(line))
                    if hello["token"] != token:
                        raise ValueError("a stranger")
                except (OSError, ValueError, KeyError, TypeError):
                    continue
                self._add(line, int(hello["rank"]))

    def _add(self, line: socket.socket, rank: int) -> None:
        line.settimeout(None)
        line.setsockopt(
            socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
        )  # a machine without power closes no sockets
        self._ranks[line], self._buffers[line] = rank, b""
        self._selector.register(line, selectors.EVENT_READ)

    def _drop(self, line: socket.socket) -> None:
        self._selector.unregister(line)
        del self._ranks[line], self._buffers[line]
        line.close()

    def _send_all(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        for line in list(self._ranks):
            with contextlib.suppress(OSError):
                line.sendall(data)


def _first_line(line: socket.socket) -> bytes:
    """The first line, and not a byte of what comes after it."""
    data = b""
    while not data.endswith(b"\n") and len(data) < 256:
        byte = line.recv(1)
        if not byte:
            raise OSError("the line ended")
        data += byte
    return data
