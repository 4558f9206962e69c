"""Who a process is, by what launchers put into its environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pretrain.errors import PretrainError
from pretrain.launch import Launch

SRUN = {
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_ID": "3",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4",
}
ON_TWO_NODES = SRUN | {
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "MASTER_ADDR": "10.0.0.7",
}
DEEPSPEED = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_SIZE": "4",
    "CROSS_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "TORCHELASTIC_RUN_ID": "none",
    "MASTER_ADDR": "10.0.0.7",
    "MASTER_PORT": "30000",
}


@pytest.mark.parametrize(
    ("environment", "in_a_shell", "expected"),
    [
        pytest.param({}, False, (0, 1, 0, 1, "127.0.0.1", 29500), id="python"),
        pytest.param({"WORLD_SIZE": "8"}, False, (0, 1, 0, 1, "127.0.0.1", 29500), id="no rank"),
        pytest.param(DEEPSPEED, False, (1, 4, 1, 4, "127.0.0.1", 29500), id="deepspeed"),
        pytest.param(
            DEEPSPEED | {"MASTER_ADDR": "a-name-that-may-not-resolve"},
            False,
            (1, 4, 1, 4, "127.0.0.1", 29500),
            id="deepspeed with a hostfile of one node",
        ),
        pytest.param(
            DEEPSPEED | {"WORLD_SIZE": "8", "MASTER_ADDR": "10.0.0.7"},
            False,
            (1, 8, 1, 4, "10.0.0.7", 29500),
            id="deepspeed on two nodes",
        ),
        pytest.param(TORCHRUN, False, (5, 8, 1, 4, "10.0.0.7", 30000), id="torchrun"),
        pytest.param(TORCHRUN | SRUN, False, (5, 8, 1, 4, "10.0.0.7", 30000), id="both: torchrun"),
        pytest.param(SRUN, False, (1, 4, 1, 4, "127.0.0.1", 25003), id="srun"),
        pytest.param(
            SRUN | {"MASTER_PORT": "4000"}, False, (1, 4, 1, 4, "127.0.0.1", 4000), id="srun, port"
        ),
        pytest.param(ON_TWO_NODES, False, (2, 4, 0, 2, "10.0.0.7", 25003), id="srun on two nodes"),
        pytest.param(
            ON_TWO_NODES | {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1"},
            False,
            (2, 3, 0, 1, "10.0.0.7", 25003),
            id="srun on two nodes, unevenly",
        ),
        pytest.param(SRUN, True, (0, 1, 0, 1, "127.0.0.1", 29500), id="a shell of an allocation"),
        pytest.param(
            {"SLURM_JOB_ID": "5000", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
            False,
            (0, 1, 0, 1, "127.0.0.1", 29500),
            id="a job's script",
        ),
    ],
)
def test_who_a_process_is(
    environment: dict[str, str], in_a_shell: bool, expected: tuple[object, ...]
) -> None:
    launch = Launch.from_environment(environment, in_a_shell=in_a_shell)
    assert expected == (
        launch.rank,
        launch.num_ranks,
        launch.local_rank,
        launch.num_local_ranks,
        launch.address,
        launch.port,
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "one"}, "RANK is 'one', expected a whole number: unset RANK"),
        (DEEPSPEED | {"MASTER_PORT": "-1"}, "MASTER_PORT is '-1', expected a whole number"),
        (DEEPSPEED | {"MASTER_PORT": "70000"}, "MASTER_PORT is 70000, expected a port"),
        ({"RANK": "1"}, "rank 1 of 1, and 0 of 1 on this node, but ranks count from 0: unset"),
        (DEEPSPEED | {"LOCAL_RANK": "4"}, "rank 1 of 4, and 4 of 4 on this node"),
    ],
)
def test_contradictions_are_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(PretrainError, match=message):
        Launch.from_environment(environment)


def test_without_an_address_slurm_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {key: v for key, v in ON_TWO_NODES.items() if key != "MASTER_ADDR"}
    environment["SLURM_STEP_NODELIST"] = "n[3-4]"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        "#!/bin/sh\n"
        '[ "$2 $3" = "hostnames n[3-4]" ] && printf "n3\\nn4\\n"\n'
        '[ "$2 $3" = "node n3" ] && echo "NodeName=n3 NodeAddr=10.0.0.3 NodeHostName=n3"\n'
        "true\n"
    )
    scontrol.chmod(0o755)
    assert Launch.from_environment(environment, in_a_shell=False).address == "10.0.0.3"
    scontrol.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(PretrainError, match=r"MASTER_ADDR is not set.*export MASTER_ADDR="):
        Launch.from_environment(environment, in_a_shell=False)


def test_steps_and_jobs_side_by_side_have_ports_and_names_of_their_own() -> None:
    found = [
        Launch.from_environment(
            SRUN | {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}, in_a_shell=False
        )
        for job in range(5000, 5020)
        for step in range(20)
    ]
    assert len({launch.port for launch in found}) == len({launch.start for launch in found}) == 400
