"""From an encoder's folder to its answers: whatever the family, whichever way it was adapted."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from finetune import predict
from finetune.errors import FinetuneError
from finetune.glue import main

METHODS = ["finetune", "mask", "lora", "bitfit", "linear"]
SIZES = {
    **dict.fromkeys(("hidden_size", "embedding_size", "intermediate_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads"), 2),
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
}
OWN = {"deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}}


def save_sentencepiece(folder: Path, tasks: Path) -> dict[str, int]:
    """`spm.model` alone, as DeBERTa-v3 has it; the ids that its config needs."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="reads a lone spm.model")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tasks / "library" / "train.tsv"),
        model_prefix=str(folder / "spm"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        user_defined_symbols=["[MASK]"],
        minloglevel=2,
    )
    (folder / "spm.vocab").unlink()
    return {"pad_token_id": 0, "vocab_size": 80}


def save_encoder(model_type: str, folder: Path, tiny_model: Path, tasks: Path) -> None:
    folder.mkdir()
    if model_type == "deberta-v2":
        ids = save_sentencepiece(folder, tasks)
    else:
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
        ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "vocab_size": 20}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(SIZES | ids | OWN.get(model_type, {})))
    AutoModel.from_config(config).save_pretrained(folder)


@pytest.mark.long
@pytest.mark.parametrize("model_type", ["deberta-v2", "mpnet", "albert", "modernbert"])
def test_predict_gives_the_answers_that_the_job_gave(
    model_type: str, tiny_model: Path, tiny_tasks: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The test file holds the dev sentences, so that the job writes its answers to them."""
    base, tasks, out = tmp_path / "base", tmp_path / "tasks" / "library", tmp_path / "out"
    save_encoder(model_type, base, tiny_model, tiny_tasks)
    tasks.mkdir(parents=True)
    (tasks / "train.tsv").write_text((tiny_tasks / "library" / "train.tsv").read_text())
    dev = (tiny_tasks / "library" / "dev.tsv").read_text()
    (tasks / "dev.tsv").write_text(dev)
    sentences, labels = zip(*(line.split("\t") for line in dev.splitlines()[1:]), strict=True)
    (tasks / "test.tsv").write_text("\n".join(["sentence", *sentences, ""]))
    (tmp_path / "texts.txt").write_text("\n".join([*sentences, ""]))
    command = [
        *("--model_name_or_path", str(base), "--data_dir", str(tasks.parent), "--seed", "1"),
        *("--task_name", "library", "--max_seq_length", "32", "--max_steps", "12"),
        *("--output_dir", str(out), "--learning_rate", "0.02", "--bf16", "false"),
        *("--do_train", "--do_eval", "--do_predict", "--method"),
    ]
    methods = METHODS
    if model_type == "modernbert":
        with pytest.raises(FinetuneError, match="--method bitfit: this encoder has no biases"):
            main([*command, *METHODS])
        methods = [method for method in METHODS if method != "bitfit"]
    main([*command, *methods])
    for method in methods:
        folder = out / "library" / method / "seed-1"
        flag = "--masks" if method == "mask" else "--model_name_or_path"
        capsys.readouterr()
        predict.main([str(tmp_path / "texts.txt"), flag, str(folder), "--max_length", "32"])
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        found = [answer["label"] for answer in answers]
        written = (folder / "predict_results_library.txt").read_text().splitlines()[1:]
        assert found == [line.split("\t")[1] for line in written], method
        right = sum(a == b for a, b in zip(found, labels, strict=True)) / len(labels)
        results = json.loads((folder / "all_results.json").read_text())
        assert results["eval_accuracy"] == pytest.approx(right), method
        assert {answer["task"] for answer in answers} == {"library"}
        assert len(set(found)) > 1 or results["status"] == "collapsed"
