"""A mask's training that is interrupted resumes from its checkpoint's scores, not from its bits."""

import shutil
from pathlib import Path

from safetensors import safe_open

from finetune.glue import main


def test_resumed_training_gives_the_unbroken_mask(
    tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    command = ["--model_name_or_path", str(tiny_model), "--task_name", "rte", "--method", "mask",
               "--data_dir", str(tiny_tasks), "--max_seq_length", "20", "--seed", "1",
               "--num_train_epochs", "2", "--save_strategy", "epoch", "--learning_rate", "3e-2",
               "--lr_scheduler_type", "linear"]  # fmt: skip
    folders = []
    for name in ("unbroken", "broken"):
        main([*command, "--output_dir", str(tmp_path / name)])
        folders.append(tmp_path / name / "rte" / "mask" / "seed-1")
    unbroken, broken = folders
    checkpoints = sorted(broken.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    assert len(checkpoints) == 2
    with safe_open(checkpoints[0] / "adapter_model.safetensors", "pt") as file:
        assert any(".mask_scores" in key for key in file.keys())  # noqa: SIM118
    # As if killed in the second epoch.
    shutil.rmtree(checkpoints[1])
    for file in ("adapter_model.safetensors", "all_results.json", "train_results.json"):
        (broken / file).unlink()
    main([*command, "--output_dir", str(tmp_path / "broken")])
    mask = "adapter_model.safetensors"
    assert (broken / mask).read_bytes() == (unbroken / mask).read_bytes()
    assert not any(".mask_scores" in key for key in safe_open(broken / mask, "pt").keys())  # noqa: SIM118
