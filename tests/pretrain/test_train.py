"""Whole runs in real processes: two ranks, resume to the bit, other layouts, kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModel

from pretrain.batches import Batches
from pretrain.config import load_config
from pretrain.data import ShardFolder
from pretrain.export import exported_step
from pretrain.fault_tolerance.run_folder import RunFolder, open_checkpoint
from pretrain.initialise import initialise
from pretrain.model import LateMaskModel

ROOT = Path(__file__).parents[2]
STEPS, BREAK = 12, 6


def command(config_file: Path, ranks: int, output: Path, *overrides: str) -> list[str]:
    script = ["pretrain/main.py", "--config", str(config_file), "--run.output_dir", str(output)]
    if ranks > 1:  # a free port each: runs of other tests must not meet
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        return [sys.executable, *launcher, *script, *overrides]
    return [sys.executable, *script, *overrides]


def start(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*args),  # type: ignore[arg-type]
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(*args: object, code: int = 0) -> str:
    process = start(*args)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output[-4000:]
    return output


def losses(folder: Path, kind: str = "train/loss") -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record[kind] for record in records if kind in record}


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.jsonl").exists() and max(losses(folder), default=0) >= step:
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"step {step} never came: {process.communicate()[0][-3000:]}")


@pytest.fixture(scope="module")
def tiny_config_file(tiny_config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers: [MASK]s enter below the last two."""
    content = yaml.safe_load(tiny_config_file.read_text())
    content["model"]["num_hidden_layers"] = 3
    file = tmp_path_factory.mktemp("config") / "three_layers.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, tiny_config_file: Path) -> Path:
    """A run of 12 steps on 2 ranks under ZeRO-1, every checkpoint kept."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    every = ("--run.save_every", "3", "--run.keep_checkpoints", "99")
    run(tiny_config_file, 2, folder, *every)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_config_file: Path) -> Path:
    """A run of 12 steps on one rank."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(tiny_config_file, 1, folder)
    return folder


def broken_off(unbroken: Path, folder: Path) -> Path:
    """A copy as if the run had been killed after step 6."""
    shutil.copytree(unbroken, folder, ignore=shutil.ignore_patterns("hf"))
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > BREAK:
            shutil.rmtree(checkpoint)
    return folder


def test_a_run_learns_and_leaves_what_the_contract_names(unbroken: Path) -> None:
    curve = losses(unbroken)
    assert sorted(curve) == list(range(1, STEPS + 1))
    assert curve[STEPS] < curve[1] - 0.5
    assert {p.name for p in unbroken.iterdir()} >= {
        *("config.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "hf")
    }
    assert_exported(unbroken)
    record = json.loads((unbroken / "metrics.jsonl").read_text().splitlines()[1])
    assert {"train/accuracy", "train/skipped_steps", "speed/checkpoint_stall"} <= record.keys()


def assert_exported(folder: Path) -> None:
    """Stock transformers computes what the newest checkpoint's weights compute."""
    checkpoint = open_checkpoint(folder)
    config = load_config(folder / "config.yaml")
    model = LateMaskModel(config.model, config.masking).eval()
    checkpoint.load_into(model)
    stock = AutoModel.from_pretrained(folder / "hf", add_pooling_layer=False).eval()
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        expected, found = stock(ids).last_hidden_state, model.encode(ids)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    words = stock.get_input_embeddings().weight
    assert torch.equal(words, model.decoder[: config.model.known_vocab_size])  # tied, and stays so


def test_resuming_on_the_same_layout_is_exact(
    unbroken: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    folder = broken_off(unbroken, tmp_path / "run")
    output = run(tiny_config_file, 2, folder)
    assert "resuming from" in output
    assert losses(folder) == losses(unbroken)  # to the bit, dropout included


@pytest.mark.parametrize(
    ("ranks", "stage"),
    [
        (1, "0"),
        pytest.param(2, "3", marks=pytest.mark.long),
        pytest.param(1, "2", marks=pytest.mark.long),
        pytest.param(2, "2", marks=pytest.mark.long),
        pytest.param(2, "2_offload", marks=pytest.mark.long),
    ],
)
def test_resuming_on_another_layout_goes_on_alike(
    unbroken: Path, tiny_config_file: Path, tmp_path: Path, ranks: int, stage: str
) -> None:
    folder = broken_off(unbroken, tmp_path / "run")
    # No dropout: its noise belongs to a rank. The reference is resumed the same way.
    reference = broken_off(unbroken, tmp_path / "reference")
    for path in (folder, reference):
        text = (path / "config.yaml").read_text().replace("dropout: 0.1", "dropout: 0.0")
        (path / "config.yaml").write_text(text)
    still = ("--model.dropout", "0.0")
    run(tiny_config_file, 2, reference, *still)
    run(
        *(tiny_config_file, ranks, folder, *still),
        *("--run.deepspeed_config", f"configs/deepspeed/zero{stage}.json"),
    )
    for kind in ("train/loss", "valid/loss"):  # the same validation sequences, too
        expected = losses(reference, kind)
        assert losses(folder, kind).keys() == expected.keys()
        for step, loss in losses(folder, kind).items():
            assert loss == pytest.approx(expected[step], rel=2e-5), (kind, step)
    assert_exported(folder)


@pytest.mark.parametrize("stage", [2, *(pytest.param(n, marks=pytest.mark.long) for n in (0, 3))])
def test_ranks_and_accumulation_give_the_gradient_of_one_batch(
    tiny_config_file: Path, tmp_path: Path, stage: int
) -> None:
    folder = tmp_path / "run"
    plain = ("--model.dropout", "0", "--optimizer.gradient_clipping", "0", "--budget.steps", "1")
    zero = ("--run.deepspeed_config", f"configs/deepspeed/zero{stage}.json")
    run(tiny_config_file, 2, folder, *plain, *zero, "--data.micro_batch_size", "2")
    config = load_config(folder / "config.yaml")
    data = ShardFolder(config.data.path)
    model = LateMaskModel(config.model, config.masking)
    initialise(model, config.run.seed)
    batches = Batches(data, seed=0, global_batch_size=16, micro_batch_size=16)
    batch = batches.micro_batch(0, 0, config.masking)
    loss = model(*(torch.from_numpy(array) for array in batch)).loss_sum / batch.labels.size
    loss.backward()
    assert losses(folder)[1] == pytest.approx(loss.item(), rel=1e-6)
    share = 1 - config.optimizer.betas[0]  # Adam's first moment after one step
    for name, moment in open_checkpoint(folder).tensors("exp_avg"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        torch.testing.assert_close(moment, share * gradient, rtol=1e-4, atol=1e-8, msg=name)


# 4, 8 and 12 sequences for 2 steps each, then 16.
WARMUP = ("--data.initial_batch_size", "4", "--data.batch_warmup", "0.5")
WARMUP_SIZES = [4, 4, 8, 8, 12, 12] + [16] * 6


@pytest.mark.parametrize(
    "stage", ["1", *(pytest.param(n, marks=pytest.mark.long) for n in ("0", "2", "2_offload", "3"))]
)
def test_a_step_of_a_growing_batch_takes_the_gradient_of_its_own_sequences(
    tiny_config_file: Path, tmp_path: Path, stage: str
) -> None:
    folder = tmp_path / "run"
    plain = ("--model.dropout", "0", "--optimizer.gradient_clipping", "0")
    still = ("--optimizer.lr", "1e-30", "--data.micro_batch_size", "2")
    zero = ("--run.deepspeed_config", f"configs/deepspeed/zero{stage}.json")
    run(tiny_config_file, 2, folder, *plain, *still, *zero, *WARMUP)
    config = load_config(folder / "config.yaml")
    model = LateMaskModel(config.model, config.masking)
    initialise(model, config.run.seed)  # nothing moves the weights
    data = ShardFolder(config.data.path)
    position, decay = 0, config.optimizer.betas[0]
    moments = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step, size in enumerate(WARMUP_SIZES, start=1):
        batch = Batches(data, seed=0, global_batch_size=size, micro_batch_size=size).micro_batch(
            position, 0, config.masking
        )
        model.zero_grad()
        loss = model(*(torch.from_numpy(array) for array in batch)).loss_sum / batch.labels.size
        loss.backward()
        assert losses(folder)[step] == pytest.approx(loss.item(), rel=1e-6)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            moments[name] = decay * moments[name] + (1 - decay) * parameter.grad
        position += size
    assert losses(folder, "train/batch_size") == dict(enumerate(WARMUP_SIZES, start=1))
    for name, moment in open_checkpoint(folder).tensors("exp_avg"):
        torch.testing.assert_close(moment, moments[name], rtol=1e-4, atol=1e-8, msg=name)


@pytest.mark.long
def test_a_growing_batch_survives_a_kill_and_other_ranks(
    tiny_config_file: Path, tmp_path: Path
) -> None:
    still = ("--model.dropout", "0", "--data.micro_batch_size", "2", *WARMUP)
    every = ("--run.save_every", "1", "--run.keep_checkpoints", "99")
    whole = tmp_path / "whole"
    run(tiny_config_file, 2, whole, *still, *every)
    for ranks in (2, 1):
        folder = tmp_path / f"on {ranks}"
        shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("hf"))
        for checkpoint in (folder / "checkpoints").iterdir():
            if int(checkpoint.name.removeprefix("step-")) > 3:  # the first of 8 sequences
                shutil.rmtree(checkpoint)
        run(tiny_config_file, ranks, folder, *still)
        if ranks == 2:
            assert losses(folder) == losses(whole)
        for step, loss in losses(whole).items():
            assert losses(folder)[step] == pytest.approx(loss, rel=2e-5), step


def test_kill_9_anywhere_loses_nothing_but_time(
    unbroken: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(tiny_config_file, 2, folder, "--run.save_every", "1")
    wait_for_step(folder, 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run(tiny_config_file, 2, folder)
    assert losses(folder) == losses(unbroken)


def test_a_signal_saves_and_says_that_the_run_can_go_on(
    unbroken: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(tiny_config_file, 1, folder, "--data.micro_batch_size", "8")
    wait_for_step(folder, 2, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)  # a second one soon after is the same one
    assert process.returncode == 75, output[-3000:]
    assert "SIGTERM: saving" in output
    stopped_at = max(losses(folder))
    assert (folder / "checkpoints" / f"step-{stopped_at:08d}" / "state.json").exists()
    run(tiny_config_file, 1, folder, "--data.micro_batch_size", "8")
    assert sorted(losses(folder)) == list(range(1, STEPS + 1))


@pytest.mark.long
def test_hours_for_one_start_end_it_as_a_signal_does(
    tiny_config_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    output = run(tiny_config_file, 2, folder, "--run.stop_after_hours", "1e-9", code=1)
    assert "exitcode  : 75" in output  # torchrun's own is 1
    assert (folder / "checkpoints" / "step-00000001" / "state.json").exists()


def test_what_is_measured_on_request_changes_nothing(
    alone: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    measured = ("--run.time_parts", "true", "--run.profile_steps", "[1, 2]")
    more = ("--run.peak_tflops", "0.1", "--run.gradient_checkpointing", "true")
    run(tiny_config_file, 1, folder, *measured, *more)
    assert losses(folder) == losses(alone)  # dropout's noise is drawn again in the backward pass
    record = json.loads((folder / "metrics.jsonl").read_text().splitlines()[2])
    parts = [record[f"time/{part}"] for part in ("forward", "backward", "update")]
    assert 0 < sum(parts) <= 1.01
    assert 0 < record["speed/mfu"] == pytest.approx(record["speed/tflops"] / 0.1)
    trace = json.loads((folder / "traces" / "rank-0.json").read_text())
    assert any("ProfilerStep" in e["name"] or "aten::" in e["name"] for e in trace["traceEvents"])


def test_a_finished_run_is_left_as_it_is(unbroken: Path, tiny_config_file: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (unbroken / "checkpoints").rglob("*")}
    output = run(tiny_config_file, 1, unbroken)
    assert "is finished" in output
    assert {p: p.stat().st_mtime_ns for p in (unbroken / "checkpoints").rglob("*")} == before


def test_a_finished_run_whose_budget_is_raised_is_exported_again(
    unbroken: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    shutil.copytree(unbroken, tmp_path / "run")
    before = exported_step(tmp_path / "run" / "hf")
    run(tiny_config_file, 1, tmp_path / "run", "--budget.steps", str(STEPS + 2))
    assert (before, exported_step(tmp_path / "run" / "hf")) == (STEPS, STEPS + 2)
    assert_exported(tmp_path / "run")
    assert not list((tmp_path / "run").glob(".hf*"))


def test_a_run_records_how_it_came_about(unbroken: Path) -> None:
    start = RunFolder(unbroken).starts()[0]  # other tests give the same command again
    git = ("git", "-C", str(ROOT), "rev-parse", "HEAD")
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    assert start["commit"] == (commit or None)
    assert "main.py --config" in start["command"]
    assert start["versions"]["torch"] == torch.__version__
    assert start["ranks"] == 2
    card = (unbroken / "hf" / "README.md").read_text()
    assert commit in card
    assert start["command"] in card
    assert "python -m pretrain.fill_mask hf" in card
    assert "{" not in card


def test_it_starts_from_another_folder(alone: Path, tiny_config_file: Path, tmp_path: Path) -> None:
    """The default DeepSpeed config is the package's own, not a file of the current folder."""
    script = [sys.executable, str(ROOT / "pretrain/main.py"), "--config", str(tiny_config_file)]
    subprocess.run(
        [*script, "--run.output_dir", "run"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    assert losses(tmp_path / "run") == losses(alone)


def test_another_config_in_the_same_folder_is_refused(
    unbroken: Path, tiny_config_file: Path
) -> None:
    output = run(tiny_config_file, 1, unbroken, "--masking.rate", "0.3", code=2)
    assert "masking.rate: was 0.5, is 0.3" in output
    assert "Traceback" not in output


def test_the_deepspeed_launcher_starts_it(tiny_config_file: Path, tmp_path: Path) -> None:
    """The command that users type, with its own --local_rank argument."""
    launcher = Path(sys.executable).with_name("deepspeed")
    environment = os.environ | {"PATH": f"{launcher.parent}:{os.environ['PATH']}"}
    options = ["--num_accelerators", "2", "--master_port", "29731"]
    script = command(tiny_config_file, 1, tmp_path / "run", "--budget.steps", "2")[1:]
    result = subprocess.run(
        [str(launcher), *options, *script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert (tmp_path / "run" / "hf" / "config.json").exists()


STAGES = "[{start: 0.25, rate: 0.3}, {start: 0.75, insert_layer: 1}]"


def test_a_run_with_stages_resumes_in_the_right_one(
    alone: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    staged = ("--masking.schedule", STAGES, "--run.save_every", "3")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    output = run(tiny_config_file, 1, whole, *staged, "--run.keep_checkpoints", "99")
    assert "sequence from 25 % of the run on" in output
    assert max(losses(whole)) == STEPS
    shutil.copytree(whole, broken, ignore=shutil.ignore_patterns("hf"))
    for checkpoint in (broken / "checkpoints").iterdir():
        if int(checkpoint.name.rpartition("-")[2]) > BREAK:
            shutil.rmtree(checkpoint)
    run(tiny_config_file, 1, broken, *staged, "--run.keep_checkpoints", "99")
    assert losses(broken) == losses(whole)
    first = STEPS // 4
    assert losses(alone)[first] == losses(whole)[first]
    assert losses(alone)[first + 1] != losses(whole)[first + 1]


@pytest.mark.long
def test_a_compiled_run_goes_as_the_eager_one(tiny_config_file: Path, tmp_path: Path) -> None:
    fixed = ("--masking.schedule", STAGES, "--model.dropout", "0", "--run.precision", "fp32")
    run(tiny_config_file, 2, tmp_path / "eager", *fixed)
    run(tiny_config_file, 2, tmp_path / "compiled", *fixed, "--run.compile", "true")
    eager, compiled = losses(tmp_path / "eager"), losses(tmp_path / "compiled")
    assert eager.keys() == compiled.keys()
    for step, loss in eager.items():
        assert compiled[step] == pytest.approx(loss, rel=1e-4)
