"""The end of a process: its exit code is what Slurm scripts and launchers go by."""

import signal
import subprocess
import sys
import time
from pathlib import Path


def test_the_exit_code_survives_an_interpreter_that_aborts_at_its_end() -> None:
    program = (
        "import atexit, os\n"
        "from pretrain.main import end_process\n"
        "atexit.register(os.abort)\n"
        "print('said before')\n"
        "{end}(75)\n"
    )
    found = {
        end: subprocess.run(
            [sys.executable, "-c", program.format(end=end)], capture_output=True, text=True
        )
        for end in ("end_process", "exit")
    }
    assert found["exit"].returncode < 0  # so this is what would be lost
    assert found["end_process"].returncode == 75
    assert found["end_process"].stdout == "said before\n"


def test_ctrl_c_during_the_start_ends_a_process_at_once_without_a_traceback(
    tiny_config_file: Path, tmp_path: Path
) -> None:
    words = ("--config", tiny_config_file, "--run.output_dir", tmp_path / "run")
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "pretrain/main.py", *map(str, words)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores SIGINT, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr
    for line in process.stderr:
        if "pretrain.launch" in line:  # main.py has got beyond its own imports
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in errors
