from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pretrain.config import PretrainConfig
from pretrain.config_parser import load_config, parse_args
from pretrain.errors import PretrainError

ROOT = Path(__file__).parents[2]


def test_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_args(["--help"])
    options = re.split(r"\n  --", capsys.readouterr().out)[1:]
    found = {}
    for option in options:
        name, *words = re.sub(r"\((required, )?type:.*", "", option, flags=re.DOTALL).split()
        if "." in name and not name.endswith(".help"):
            found[name] = words[1:]  # without the values that it takes
    saved = yaml.safe_load((ROOT / "configs/pretrain/demo.yaml").read_text())
    assert {f"masking.{key}" for key in saved["masking"]} <= found.keys()
    assert len(found) > 60
    assert [name for name, words in found.items() if len(words) < 2] == []


def test_an_unknown_key_names_the_file_and_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"masking": {"ratee": 0.5}}))
    with pytest.raises(PretrainError, match=r"mine\.yaml: unknown key masking\.ratee.*rate"):
        parse_args(["--config", str(file)])


def test_a_saved_config_is_read_back_the_same(
    tiny_config: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    config = tiny_config()
    config.save(tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"", "it holds nothing"),
        (b"- data", "it holds list"),
        (b"plain text", "it holds str"),
    ],
)
def test_a_config_file_that_is_none_is_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(PretrainError, match=f"mine.yaml: .*{message}") as caught:
        parse_args(["--config", str(file)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("run: {a: 1}\nmodel:\n  size: 1\nrun: {}\n", "run: given in line 1 and again in line 4"),
        ("model:\n  a: 1\n  b: 2\n  'a': 3\n", r"model\.a: given in line 2 and again in line 4"),
        ("data:\n- a: 1\n- b: 1\n  b: 1\n", r"data\[1\]\.b: given in line 3 and again in line 4"),
    ],
)
def test_a_key_that_is_given_twice_is_told_with_both_lines(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(PretrainError, match=rf"mine\.yaml: {message}; keep one of them$"):
        parse_args(["--config", str(file)])
