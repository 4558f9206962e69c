"""Ranks that watch each other: one that dies, stops or hangs ends all, and is named.

Without this, the others would wait for it in a collective, up to the process group's timeout and
without a name. Each rank's thread holds a connection to rank 0's, and both say every few seconds
what their rank is doing and for how long. A connection that breaks is a rank that has died; one
that falls silent is a rank that is stopped; a rank that reads data or writes far longer than it
should is one that hangs. Rank 0 says it, and all end.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any, NoReturn

import torch

RANK_LOST = 69  # EX_UNAVAILABLE
_STEP = "in a step"
_PERIOD = 1.0  # seconds between two words, at most


class Watchdog:
    """This rank's side. Threads only; the loop calls `doing`, and `close` when all is well."""

    def __init__(self, rank: int, num_ranks: int, rank_seconds: float, hang_seconds: float) -> None:
        """Collective.

        Args:
            rank: this one.
            num_ranks: all of them; a single one is not watched.
            rank_seconds: silence after which a rank is taken for lost.
            hang_seconds: longest that a rank may be at one thing.
        """
        self.rank, self.num_ranks = rank, num_ranks
        self.rank_seconds, self.hang_seconds = rank_seconds, hang_seconds
        self._doing, self._since = "starting", time.monotonic()
        self._launcher = os.getppid()
        self._closing = False
        self._sending = threading.Lock()
        self._connections: dict[Connection, int] = {}
        if num_ranks == 1:
            return
        meeting: list[Any] = [None]
        if rank == 0:
            key = secrets.token_bytes(16)
            listener = Listener(("", 0), backlog=num_ranks, authkey=key)
            meeting = [(listener.address[1], key)]
        torch.distributed.broadcast_object_list(meeting)
        port, key = meeting[0]
        if rank == 0:
            with listener:
                for _ in range(num_ranks - 1):
                    connection = listener.accept()
                    self._connections[connection] = connection.recv()
        else:
            connection = Client((os.environ["MASTER_ADDR"], port), authkey=key)
            connection.send(rank)
            self._connections[connection] = 0
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def doing(self, what: str = _STEP) -> None:
        """Say what this rank's loop begins now."""
        self._doing, self._since = what, time.monotonic()

    def close(self) -> None:
        """This rank is through: its connections may break from now on."""
        self._closing = True
        self._tell(("done",))

    def fail(self, code: int, reason: str) -> None:
        """This rank ends for a reason of its own: rank 0 says it, all end with its exit code."""
        self._closing = True
        self._tell(("lost", code, f"rank {self.rank}: {reason}"))

    def wait_for_news(self) -> None:
        """Let this process end here if another rank is the reason for an error in this one."""
        if self._connections:
            time.sleep(3 * _PERIOD)

    def _watch(self) -> None:
        period = min(_PERIOD, self.rank_seconds / 4)
        heard = dict.fromkeys(self._connections, time.monotonic())
        beats: dict[int, tuple[str, float]] = {}
        while self._connections and not self._closing:
            self._tell(("beat", self._doing, time.monotonic() - self._since))
            for connection in wait(list(self._connections), timeout=period):
                assert isinstance(connection, Connection)
                sender = self._connections[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    self._end(f"rank {sender} has died; its own output says why, unless it was "
                              "killed")  # fmt: skip
                heard[connection] = time.monotonic()
                if message[0] == "done":
                    del self._connections[connection]
                elif message[0] == "lost":
                    self._end(message[2], message[1], said=sender == 0)
                else:
                    beats[sender] = message[1:]
            if os.getppid() != self._launcher:
                self._end(f"the launcher of rank {self.rank} has died")
            now = time.monotonic()
            for connection, sender in self._connections.items():
                if now - heard[connection] > self.rank_seconds:
                    self._end(f"rank {sender} has not answered for {self.rank_seconds:.0f} s")
            beats[self.rank] = self._doing, now - self._since
            if self.rank == 0 and all(s > self.hang_seconds for _, s in beats.values()):
                # Those in a step wait for the one that is not.
                stuck = {r: what for r, (what, _) in beats.items() if what != _STEP} or {
                    r: what for r, (what, _) in beats.items()
                }
                names = ", ".join(f"rank {r} ({what})" for r, what in sorted(stuck.items()))
                self._end(f"nothing has happened for {self.hang_seconds:.0f} s: {names} hangs")
            time.sleep(period / 4)

    def _tell(self, message: tuple[Any, ...]) -> None:
        with self._sending:
            for connection in list(self._connections):
                try:
                    connection.send(message)
                except (OSError, ValueError):
                    continue  # what it last said, if anything, is still to be read

    def _end(self, reason: str, code: int = RANK_LOST, said: bool = False) -> NoReturn:
        """End this process; `said` if rank 0 has given the reason."""
        if self._closing:
            sys.exit()  # of this thread
        self._tell(("lost", code, reason))
        if not said:
            text = f"error: {reason}"
            if code == RANK_LOST:
                text += "; all ranks end, the same command goes on from the last checkpoint"
            print(text, file=sys.stderr, flush=True)
        # The main thread waits in a collective that nothing else can end.
        os._exit(code)
