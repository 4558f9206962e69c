"""The end of a process: its exit code is what Slurm scripts and launchers go by."""

import subprocess
import sys


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
