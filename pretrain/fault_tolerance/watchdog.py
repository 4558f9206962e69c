"""Ranks that watch each other: one that dies, stops or hangs ends all, and is named.

Without this, the others would wait for it in a collective, up to the process group's timeout and
without a name. A thread in each rank knows what the rank is doing and for how long. From the start
it ends a rank whose launcher has died, and one that is at one thing for too long; it says what a
long start waits for. Once the ranks have met, each thread holds a connection to rank 0's, and both
report every second: a connection that breaks is a rank that has died, one that falls silent is a
rank that is stopped, and a rank that reads data or writes for too long is one that hangs. Rank 0
says it, and all end.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any, NoReturn

from pretrain.errors import RankLostError
from pretrain.launch import Launcher

logger = logging.getLogger(__name__)

SAY_AFTER = 30.0  # seconds at one thing before the first step, after which it is said
_STEP = "in a step"
_PERIOD = 1.0  # seconds between two reports, at most


_LAUNCHER = Launcher()  # looked up before slow imports, during which it may die


class Watchdog:
    """This rank's side. The loop calls `enter`, and `close` when all is well."""

    def __init__(self, rank: int, num_ranks: int, rank_seconds: float, hang_seconds: float) -> None:
        """Watch from now on; waits for nobody.

        Args:
            rank: this one.
            num_ranks: all of them.
            rank_seconds: silence after which a rank is taken for lost.
            hang_seconds: longest that a rank may be at one thing.
        """
        self.rank = rank
        self.num_ranks = num_ranks
        self.rank_seconds = rank_seconds
        self.hang_seconds = hang_seconds
        self._phase = "starting"
        self._since = time.monotonic()
        self._say_after = SAY_AFTER
        self._starting = True
        self._closing = False
        self._sending = threading.Lock()
        self._connections: dict[Connection, int] = {}
        self._heard_at: dict[Connection, float] = {}
        self._phases: dict[int, tuple[str, float]] = {}
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def connect(self, broadcast: Callable[[Any], Any], address: str) -> None:
        """Meet the other ranks' watchdogs; collective.

        Args:
            broadcast: gives rank 0's argument to all ranks.
            address: rank 0's.

        Raises:
            RankLostError: rank 0 can't be reached.
        """
        if self.num_ranks == 1:
            return
        connections: dict[Connection, int] = {}
        if self.rank == 0:
            key = secrets.token_bytes(16)
            with Listener(("", 0), backlog=self.num_ranks, authkey=key) as listener:
                broadcast((listener.address[1], key))
                while len(connections) < self.num_ranks - 1:
                    try:
                        connection = listener.accept()
                        connections[connection] = connection.recv()
                    except (AuthenticationError, EOFError, OSError):
                        continue  # a stranger who tries ports
        else:
            port, key = broadcast(None)
            try:
                connection = Client((address, port), authkey=key)
                connection.send(self.rank)
            except (AuthenticationError, EOFError, OSError) as error:
                raise RankLostError(
                    f"rank {self.rank} can't reach rank 0's watchdog at {address}:{port} "
                    f"({error}): rank 0 has died, or a firewall stands between their nodes"
                ) from None
            connections[connection] = 0
        self._heard_at = dict.fromkeys(connections, time.monotonic())
        self._connections = connections

    def enter(self, phase: str = _STEP) -> None:
        """Say what this rank begins now; the same phase again continues it."""
        if phase != self._phase or phase == _STEP:
            self._since = time.monotonic()
            self._say_after = SAY_AFTER
        self._starting = self._starting and phase != _STEP
        self._phase = phase

    def close(self) -> None:
        """This rank is through: its connections may break from now on."""
        self._closing = True
        self._tell(("done",))

    def fail(self, code: int, reason: str) -> bool:
        """This rank ends for a reason of its own; all end with its exit code.

        Returns:
            Whether rank 0 says it; else this rank has to.
        """
        self._closing = True
        self._tell(("lost", code, f"rank {self.rank}: {reason}"))
        if self.rank == 0 or not self._connections:
            return False
        time.sleep(_PERIOD)  # it says so before a launcher that sees this end kills it
        return True

    def wait_for_news(self) -> None:
        """Let this process end here if another rank is the reason for an error in this one."""
        if self._connections:
            time.sleep(3 * _PERIOD)

    def _watch(self) -> None:
        period = min(_PERIOD, self.rank_seconds / 4)
        while not self._closing:
            if self.num_ranks > 1 and _LAUNCHER.is_gone:
                self._end(f"the launcher of rank {self.rank} has died")
            self._say_what_a_start_waits_for()
            if self._connections:
                self._tell(("beat", self._phase, time.monotonic() - self._since))
                self._receive(period)
                self._end_if_a_rank_is_silent()
            else:
                time.sleep(period / 2)
            self._end_if_nothing_happens()
            time.sleep(period / 4)

    def _say_what_a_start_waits_for(self) -> None:
        """Rank 0 does; so does rank 1, since rank 0 may be what all wait for."""
        seconds = time.monotonic() - self._since
        if self._starting and self.rank <= 1 and seconds > self._say_after:
            self._say_after *= 2
            logger.info(
                "rank %d has been %s for %.0f s; the run ends after %.0f s",
                self.rank,
                self._phase,
                seconds,
                self.hang_seconds,
            )

    def _receive(self, period: float) -> None:
        for connection in wait(list(self._connections), timeout=period):
            assert isinstance(connection, Connection)
            sender = self._connections[connection]
            try:
                message = connection.recv()
            except (EOFError, OSError):
                self._end(f"rank {sender} has died; its own output says why, unless it was killed")
            self._heard_at[connection] = time.monotonic()
            if message[0] == "done":
                del self._connections[connection]
                self._phases.pop(sender, None)
            elif message[0] == "lost":
                self._end(message[2], message[1], said=sender == 0)
            else:
                self._phases[sender] = message[1:]

    def _end_if_a_rank_is_silent(self) -> None:
        now = time.monotonic()
        for connection, sender in self._connections.items():
            if now - self._heard_at[connection] > self.rank_seconds:
                self._end(f"rank {sender} has not answered for {self.rank_seconds:.0f} s")

    def _end_if_nothing_happens(self) -> None:
        """Rank 0 judges all ranks by their reports; a rank that has met nobody judges itself."""
        own = (self._phase, time.monotonic() - self._since)
        phases = self._phases | {self.rank: own}
        judges = self.rank == 0 or not self._connections
        if not judges or any(seconds <= self.hang_seconds for _, seconds in phases.values()):
            return
        # Those in a step wait for the one that is not.
        stuck = {r: phase for r, (phase, _) in phases.items() if phase != _STEP}
        stuck = stuck or {r: phase for r, (phase, _) in phases.items()}
        names = ", ".join(f"rank {r} ({phase})" for r, phase in sorted(stuck.items()))
        self._end(f"nothing has happened for {self.hang_seconds:.0f} s: {names} hangs")

    def _tell(self, message: tuple[Any, ...]) -> None:
        with self._sending:
            for connection in list(self._connections):
                try:
                    connection.send(message)
                except (OSError, ValueError):
                    continue  # what it last said, if anything, is still to be read

    def _end(
        self, reason: str, code: int = RankLostError.exit_code, said: bool = False
    ) -> NoReturn:
        """End this process; `said` if rank 0 has given the reason."""
        if self._closing:
            sys.exit()  # of this thread
        self._tell(("lost", code, reason))
        if not said:
            text = f"error: {reason}"
            if code == RankLostError.exit_code:
                text += "; all ranks end, the same command resumes from the last checkpoint"
            # Past sys.stderr, which the main thread may be writing a traceback to.
            os.write(2, f"{text}\n".encode())
        # The main thread waits in a collective that nothing else can end.
        os._exit(code)
