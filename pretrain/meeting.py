"""Where the ranks of a run meet: on one node by a file, on several at a port that all know.

Each says in the log what it waits for, and the limit's end is an error that names who did not come.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO

import torch
from torch.distributed import HashStore, PrefixStore, Store, TCPStore

from pretrain.errors import PretrainError, RankLostError
from pretrain.launch import THIS_NODE, Launch

_ATTEMPT = timedelta(seconds=5)  # to reach rank 0 in; the log is told between two attempts


def meet(launch: Launch, run: str, timeout: timedelta, waiting_for: Callable[[str], None]) -> Store:
    """A store that all ranks share, as soon as each of them has come.

    Args:
        launch: who this process is.
        run: names the run, so that ranks of another one are not taken for ours.
        timeout: after which a rank that has not come is given up.
        waiting_for: told what keeps the ranks from going on.

    Raises:
        PretrainError: the port is taken, or another process is this rank already.
        RankLostError: ranks did not come, or died.
    """
    if launch.num_ranks == 1:
        return HashStore()
    name = hashlib.sha256(f"{run}\n{launch.start}".encode()).hexdigest()[:16]
    wait = _Wait(launch, timeout, waiting_for)
    try:
        if launch.is_on_one_node:
            store = _meet_on_this_node(launch, name, wait)
        else:
            store = _meet_at_port(launch, name, wait)
    except torch.distributed.DistError:
        raise RankLostError(f"rank 0 died before all {launch.num_ranks} ranks had met") from None
    store.set_timeout(timeout)
    return store


class _Wait:
    """For ranks that are not there: for how long still, and what the log says meanwhile."""

    def __init__(
        self, launch: Launch, timeout: timedelta, waiting_for: Callable[[str], None]
    ) -> None:
        self._launch = launch
        self._timeout = timeout
        self._waiting_for = waiting_for
        self._end = time.monotonic() + timeout.total_seconds()

    def for_all(self, store: Store) -> None:
        """Until every rank has said in `store` that it is here."""
        launch = self._launch
        if store.add(f"rank {launch.rank}", 1) > 1:
            raise PretrainError(
                f"two processes are rank {launch.rank} of the same run: start it once only, and "
                "give each process a RANK of its own"
            )
        missing = list(range(launch.num_ranks))
        while missing := [rank for rank in missing if not store.check([f"rank {rank}"])]:
            self.a_moment_for(missing)

    def a_moment_for(self, missing: list[int], where: str = "") -> None:
        """Sleep; RankLostError once the limit is reached."""
        names = ", ".join(map(str, missing[:8])) + (" …" if len(missing) > 8 else "")
        ranks = f"rank {names} of {self._launch.num_ranks}{where}"
        self._waiting_for(ranks)
        if time.monotonic() > self._end:
            seconds = self._timeout.total_seconds()
            raise RankLostError(
                f"rank {self._launch.rank} waited {seconds:.0f} s for {ranks}, in vain; look at "
                "that rank's own output"
            )
        time.sleep(0.05)


def _meet_on_this_node(launch: Launch, name: str, wait: _Wait) -> Store:
    """Rank 0 takes a free port and leaves it in a file; the launchers' default is all runs' own."""
    folder = Path(tempfile.gettempdir())
    file = folder / f"latemask-{os.getuid()}-{name}"
    store: Store | None
    if launch.is_main_process:
        _remove_stale(folder.glob(f"latemask-{os.getuid()}-{'[0-9a-f]' * len(name)}"))
        if _announced_port(file) is not None:
            raise PretrainError(
                "another start of the same run waits for its ranks on this machine; let that one "
                "go on, or end it and run this command again"
            )
        store = TCPStore(THIS_NODE, 0, is_master=True, wait_for_workers=False)
        with _announce(file, store.port):
            try:
                wait.for_all(store)
            finally:
                file.unlink(missing_ok=True)
        return store
    while (port := _announced_port(file)) is None or (store := _store_at(THIS_NODE, port)) is None:
        wait.a_moment_for([0])
    wait.for_all(store)
    return store


def _announce(file: Path, port: int) -> IO[str]:
    """Leave `port` in `file`, locked until the stream is closed or this process has ended."""
    try:
        number, partial = tempfile.mkstemp(prefix=f"{file.name}-", dir=file.parent)
        stream = os.fdopen(number, "w")
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(str(port))
        stream.flush()
        Path(partial).replace(file)
    except OSError as error:
        raise PretrainError(
            f"the ranks can't find each other through a file in {file.parent} ({error.strerror}); "
            "make room there, or set TMPDIR to a folder of this machine that can be written"
        ) from None
    return stream


def _announced_port(file: Path) -> int | None:
    """The port in `file`, unless the process that wrote it has ended or is another user's."""
    with suppress(OSError, ValueError), file.open() as stream:
        if os.fstat(stream.fileno()).st_uid == os.getuid():
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # its lock is held, so its writer lives
                return int(stream.read())
    return None


def _remove_stale(files: Iterable[Path]) -> None:
    """What killed processes have left behind, as soon as it is a day old."""
    for file in files:
        with suppress(OSError):
            is_old = time.time() - file.stat().st_mtime > 24 * 3600
            if is_old and _announced_port(file) is None:
                file.unlink()


def _store_at(address: str, port: int) -> TCPStore | None:
    """A connection to rank 0's store; None where nobody answers."""
    try:
        return TCPStore(address, port, is_master=False, timeout=_ATTEMPT, wait_for_workers=False)
    except torch.distributed.DistError:
        return None


def _meet_at_port(launch: Launch, name: str, wait: _Wait) -> Store:
    """Rank 0, or torchrun's agent beside it, listens at the launcher's port."""
    where = f"{launch.address}:{launch.port}"
    store: TCPStore | None = None
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if launch.is_main_process and not agent:
        try:
            store = TCPStore(launch.address, launch.port, is_master=True, wait_for_workers=False)
        except torch.distributed.DistError as error:
            if "EADDRINUSE" in str(error):
                raise PretrainError(
                    f"port {launch.port} of {launch.address} is taken, perhaps by another run; "
                    "give all ranks another one: deepspeed --master_port N, torchrun "
                    "--master-port N, or MASTER_PORT=N for srun"
                ) from None
            raise PretrainError(
                f"rank 0 can't listen at {where}: {str(error).splitlines()[0]}; MASTER_ADDR and "
                "MASTER_PORT say where"
            ) from None
    while store is None:
        wait.a_moment_for([0], f" at {where}")
        _require_address(launch.address)
        store = _store_at(launch.address, launch.port)
    own = PrefixStore(name, store)
    wait.for_all(own)
    return own


def _require_address(address: str) -> None:
    try:
        socket.getaddrinfo(address, None)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:  # not one of a name server that doesn't answer
            raise PretrainError(
                f"MASTER_ADDR is {address}, which this node can't resolve: set it to the address "
                "of rank 0's node"
            ) from None
