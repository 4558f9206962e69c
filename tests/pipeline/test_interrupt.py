"""Ctrl-C at a terminal, and a worker that dies: one line each, and the same command resumes."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.config import Config
from pipeline.report.verify import problems
from pipeline.run import run
from pipeline.store.folder import Folder


def _wait_for(output: Path, pattern: str) -> None:
    for _ in range(1200):
        if list(output.glob(pattern)):
            return
        time.sleep(0.05)
    pytest.fail(f"no {pattern} in a minute")


def _command(config: Config, path: Path) -> list[str]:
    path.write_text(json.dumps({"output": config.output, **config.content()}))
    return [sys.executable, "-m", "pipeline", "--config", str(path), "--direct_num_workers=2"]


def _environment(folder: Path, program: str) -> dict[str, str]:
    """An environment in which worker processes run `program` first."""
    lines = f"import os, sys, time\nif 'pipeline.worker' in sys.orig_argv: {program}\n"
    (folder / "sitecustomize.py").write_text(lines)
    return os.environ | {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}


def test_ctrl_c_is_one_line_and_the_rerun_goes_on(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config()
    command = _command(config, tmp_path / "config.json")
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where a shell's `&` began the tests
        os.execv(command[0], command)
    _wait_for(Path(config.output), ".work/chunks/*.json")
    os.write(terminal, b"\x03")
    shown = b""
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:  # how Linux tells the end of a terminal
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    after = shown.decode().split("^C")[1].strip()
    assert after == "interrupted; the same command continues from here"
    run(config, ["--direct_num_workers=1"], False, lambda *_: None)
    assert problems(Folder(config.output)) == []


def test_a_run_that_is_told_alone_to_end_ends_before_its_workers_have_connected(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    command = _command(make_config(), tmp_path / "config.json")
    environment = _environment(tmp_path, "time.sleep(5)")
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # as above
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    signal.signal(signal.SIGINT, before)
    workers: list[psutil.Process] = []
    while not workers:
        assert process.poll() is None
        time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert shown.splitlines()[-1] == "interrupted; the same command continues from here"
    assert "Traceback" not in shown
    assert not any(worker.is_running() for worker in workers)


def test_a_killed_worker_is_told(make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config()
    command = _command(config, tmp_path / "config.json")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for(Path(config.output), ".work/chunks/*.json")
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "pipeline.worker" in child.cmdline()
    ]
    workers[0].send_signal(signal.SIGKILL)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 69
    assert "a worker process was killed (signal 9" in shown.split("error: ")[1]
    assert "Traceback" not in shown


def test_a_worker_that_cannot_start_ends_the_run(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    command = _command(make_config(), tmp_path / "config.json")
    environment = _environment(tmp_path, "os._exit(7)")
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 69
    assert "a worker process ended with exit code 7" in done.stderr.split("error: ")[1]
    assert "Traceback" not in done.stderr


def test_loopback_goes_through_no_proxy(make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config()
    command = _command(config, tmp_path / "config.json")
    with socket.socket() as proxy:  # takes every connection and never answers
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environment = os.environ | {"http_proxy": address, "grpc_proxy": address}
        environment |= {"no_proxy": "example.org", "HTTP_PROXY": address}
        done = subprocess.run(command, capture_output=True, timeout=180, env=environment)
    assert done.returncode == 0
    assert problems(Folder(config.output)) == []
