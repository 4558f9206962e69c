import re
import shlex
from pathlib import Path

import pytest

from pipeline.__main__ import _separate, main, parse
from pipeline.errors import PipelineError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["demo", "wikibooks", "wikibooks_24hbert"])
def test_configs_of_the_repository_are_valid(name: str) -> None:
    config, _ = parse(["--config", str(ROOT / f"configs/pipeline/{name}.yaml"), "--seq_len", "64"])
    assert config.seq_len == 64
    assert "output" not in config.content()


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("outputt: a\nsources: [{kind: python-docs}]", ["outputt", "did you mean 'output'"]),
        ("sources: [{kind: jsonl, pats: [a]}]", ["pats", "did you mean 'paths'"]),
        ("sources: [{kind: python-docs}]\nseq_len: many", ["seq_len", "many"]),
        ("sources: [{kind: jsonl}]", ["sources[0].paths"]),
        ("sources: [{kind: python-docs}]\nseq_len: 2", ["seq_len: 2", "at least 3"]),
        ("sources: [{kind: python-docs}]\nsplit: {tasks: 0.1}", ["tasks", "both or neither"]),
    ],
)
def test_a_wrong_config_is_told_by_key_and_file(
    tmp_path: Path, yaml: str, words: list[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("output: a\n" + yaml if "outputt" not in yaml else yaml)
    with pytest.raises(PipelineError) as error:
        parse(["--config", str(path)])
    for word in [*words, "c.yaml"]:
        assert word in str(error.value)


def test_an_option_of_nobody_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runer", "DirectRunner"]) == 1
    assert "did you mean --runner" in capsys.readouterr().err


def test_options_of_the_documented_runners_pass_through() -> None:
    rows = re.findall(r"^\|.*\|$", (ROOT / "docs/pipeline.md").read_text(), flags=re.M)
    commands = [
        shlex.split(part) for row in rows for part in re.findall(r"`(--runner [^`]*)`", row)
    ]
    assert len(commands) == 5
    for command in commands:
        ours, beams = _separate(command)
        assert ours == command[:2]
        assert beams == command[2:]
