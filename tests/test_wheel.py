"""What `pip install` of the wheel brings works without the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("pipeline", "pretrain", "finetune")
FILES = ("LICENSE", "README.md", "pyproject.toml", "setup.py")
HEAVY = ("torch", "transformers", "apache_beam", "deepspeed", "pandas", "sklearn")
COMMANDS = [
    ["pipeline"],
    ["pipeline", "verify", "data"],
    *([f"pretrain.{name}"] for name in ("main", "average", "evaluate", "export", "fill_mask")),
    *([f"pretrain.{name}"] for name in ("flops", "probe")),
    *([f"finetune.{name}"] for name in ("glue", "predict", "serve", "maskfile", "families")),
    ["finetune.glue", "table", "runs"],
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel of a copy of the tree is unpacked to."""
    source = tmp_path_factory.mktemp("source")
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in (*STAGES, "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    wheels = tmp_path_factory.mktemp("wheels")
    isolation = ["--no-build-isolation"] if find_spec("setuptools") else []
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            *isolation,
            "--no-deps",
            "--wheel-dir",
            wheels,
            source,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.iterdir()
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python WORDS…` in `folder`, with the installed modules ahead of the checkout's."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_holds_every_module_and_config(installed: Path) -> None:
    for name in (*STAGES, "configs"):
        inside = installed / ("latemask_configs" if name == "configs" else name)
        there = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*.*")}
        expected = {path for path in there if path.suffix != ".pyc"}
        assert expected
        assert {path.relative_to(inside) for path in inside.rglob("*.*")} == expected


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_knows_its_version(
    installed: Path, tmp_path: Path, command: list[str]
) -> None:
    done = run(installed, tmp_path, "-X", "importtime", "-m", *command, "--version")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert done.stdout == f"latemask {version}\n"
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, flags=re.M))
    assert imported >= {"importlib.metadata", f"{command[0].partition('.')[0]}.distribution"}
    assert not imported.intersection(HEAVY)


def test_modules_and_configs_are_those_installed(installed: Path, tmp_path: Path) -> None:
    program = "import finetune, pipeline, pretrain as p; print(finetune, pipeline, p)"
    assert run(installed, tmp_path, "-c", program).stdout.count(str(installed)) == len(STAGES)
    for stage in STAGES:
        config = "configs/deepspeed/zero1.json"
        program = (
            "import logging; logging.basicConfig(level='INFO'); from pathlib import Path;"
            f"from {stage}.distribution import find_config; print(find_config(Path({config!r})))"
        )
        found = installed / "latemask_configs/deepspeed/zero1.json"
        done = run(installed, tmp_path, "-c", program)
        assert done.stdout == f"{found}\n"
        assert config in done.stderr and str(found) in done.stderr
        own = tmp_path / stage / config
        own.parent.mkdir(parents=True)
        own.touch()
        done = run(installed, tmp_path / stage, "-c", program)
        assert (done.stdout, done.stderr) == (f"{config}\n", "")


@pytest.mark.long
def test_from_text_to_an_encoder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    names = sorted(topics)
    for file, chosen in (("a", names[::2]), ("b", names[1::2])):
        text = "\n\n".join(topics[name] for name in chosen)
        (tmp_path / f"texts/{file}.txt").write_text(text, encoding="utf-8")
    pipeline = (
        *("-m", "pipeline", "--config", "configs/pipeline/demo.yaml", "--output", "data"),
        *("--sources", "[{kind: text, paths: [texts/*.txt], documents: blank-lines}]"),
        *("--tokenizer.vocab_size", "400", "--split.valid", "0.1"),
        *("--split.tasks", "0", "--tasks", "null", "--direct_num_workers", "1"),
    )
    done = run(installed, tmp_path, *pipeline)
    assert str(installed / "latemask_configs/pipeline/demo.yaml") in done.stderr
    pretrain = (
        *("-m", "pretrain.main", "--config", "configs/pretrain/demo.yaml"),
        *("--data.path", "data", "--run.output_dir", "run"),
        *("--run.deepspeed_config", "configs/deepspeed/zero2.json"),
        *("--budget.flops", "null", "--budget.hours", "null", "--budget.steps", "2"),
    )
    done = run(installed, tmp_path, *pretrain)
    for config in ("pretrain/demo.yaml", "deepspeed/zero2.json"):
        assert str(installed / "latemask_configs" / config) in done.stderr
    assert (tmp_path / "run/hf/model.safetensors").is_file()
