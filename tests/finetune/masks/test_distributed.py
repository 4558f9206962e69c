"""Two processes train the same mask as one: DistributedDataParallel, and DeepSpeed's ZeRO."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

PROGRAM = """
import json, os, sys
import torch
from peft import get_peft_model
from transformers import RobertaConfig, RobertaForSequenceClassification
from finetune.masks import MaskConfig

torch.set_num_threads(1)
wrapper, out = sys.argv[-2:]
torch.manual_seed(0)
config = RobertaConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=20, num_labels=3,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)
model = get_peft_model(RobertaForSequenceClassification(config), MaskConfig(recompute_blocks=1))
ids = torch.randint(5, 50, (4, 9))
labels = torch.tensor([0, 1, 2, 0])
model.train()
trained = [p for p in model.parameters() if p.requires_grad]
rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
part = slice(rank * 4 // ranks, (rank + 1) * 4 // ranks)
if wrapper == "deepspeed":
    import deepspeed
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=torch.optim.Adam(trained, lr=0.01),
        config={
            "train_batch_size": 4, "zero_optimization": {"stage": 2},
            "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
        },
    )
    for _ in range(3):
        engine.backward(engine(input_ids=ids[part], labels=labels[part]).loss)
        engine.step()
else:
    run = model
    if wrapper == "ddp":
        torch.distributed.init_process_group("gloo")
        run = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(trained, lr=0.01)
    for _ in range(3):
        run(input_ids=ids[part], labels=labels[part]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
if rank == 0:
    torch.save({n: p.detach().clone() for n, p in model.named_parameters()}, out)
if torch.distributed.is_initialized():
    # Left to the interpreter's end, gloo's threads may abort the process (pytorch issue 190489).
    torch.distributed.destroy_process_group()
"""


def trained(tmp_path: Path, wrapper: str, *launcher: str) -> dict:
    import torch

    program, out = tmp_path / "program.py", tmp_path / f"{wrapper}.pt"
    program.write_text(PROGRAM)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [*launcher, str(program), wrapper, str(out)],
        capture_output=True, text=True, env=environment, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out)


def compare(alone: dict, together: dict) -> None:
    import torch

    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, msg=name)


def test_ddp(tmp_path: Path) -> None:
    alone = trained(tmp_path, "alone", sys.executable)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    compare(alone, trained(tmp_path, "ddp", *launcher))


def test_deepspeed(tmp_path: Path) -> None:
    alone = trained(tmp_path, "alone", sys.executable)
    deepspeed = str(Path(sys.executable).with_name("deepspeed"))
    launcher = [deepspeed, "--num_accelerators", "2", "--master_port", "29731"]
    try:
        compare(alone, trained(tmp_path, "deepspeed", *launcher))
    finally:  # DeepSpeed leaves 66 MiB a rank in shared memory
        for left in Path("/dev/shm").glob("deepspeed_allreduce_buffer_*_29731_?"):
            left.unlink()
