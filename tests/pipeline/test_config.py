import re
import shlex
from pathlib import Path

import pytest

from pipeline.__main__ import _check_beam_options, _separate, main, parse
from pipeline.config import Source
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
        ("sources: [{kind: jsonl, path: [a]}]", ["path", "did you mean 'paths'"]),
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


def test_all_problems_of_a_config_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        """
        output: ""
        sources: [{kind: python-docs, paths: [a]}, {kind: jsonl, name: python-docs, weight: 0}]
        seq_len: 2
        chunk_bytes: 0
        cleaning: {min_characters: 5, max_characters: 4, min_alphabetic: 1, languages: [English],
                   min_language_score: 1.5}
        near_duplicates: {bands: 0, threshold: -0.1}
        decontamination: {paths: [a], ngram: 4, min_words: 3, overlap: 1.5}
        split: {valid: 0, tasks: 1}
        tokenizer: {lowercase: true, vocab_size: 260, sample_bytes: 0}
        packing: {more_seq_lens: [2, 512, 512]}
        shards: {train: 0, valid: 0, block_sequences: 0}
        tasks: {libraries: 9, library_dev: 8, max_characters: 49}
        """
    )
    with pytest.raises(PipelineError) as error:
        parse(["--config", str(path)])
    keys = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert sorted(keys) == sorted(
        [
            "output",
            *("sources[0].paths", "sources[1].paths", "sources[1].weight"),
            *("sources[0].name", "sources[1].name"),
            *("seq_len", "chunk_bytes", "cleaning.max_characters", "cleaning.min_alphabetic"),
            *("cleaning.languages", "cleaning.min_language_score"),
            *("near_duplicates.bands", "near_duplicates.threshold"),
            *("decontamination.min_words", "decontamination.overlap"),
            *("split.valid", "split.tasks", "split.tasks"),
            *("tokenizer.lowercase", "tokenizer.vocab_size", "tokenizer.sample_bytes"),
            *["packing.more_seq_lens"] * 4,
            *("shards.train", "shards.valid", "shards.block_sequences"),
            *("tasks.library_dev", "tasks.max_characters"),
        ]
    )


@pytest.mark.parametrize(
    ("encoding", "is_one"),
    [
        *[(name, True) for name in ("UTF8", "cp1252", "utf-16", "utf-16-le", "utf-32-be", "cp037")],
        *[(name, False) for name in ("utf-9", "", "hex", "rot13", "undefined", "utf-8\0")],
    ],
)
def test_an_encoding_is_one_of_text(encoding: str, is_one: bool) -> None:
    problems = list(Source(kind="text", paths=["a"], encoding=encoding).problems("sources[0]."))
    assert [line.split(":")[0] for line in problems] == ["sources[0].encoding"] * (not is_one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nowhere.yaml"], "config: File does not exist: "),
        (["--seq_len", "many"], "seq_len: Expected int. Got many"),
        (["--sources", "[{kind: word}]"], "sources: kind: Expected one of 'text', 'jsonl', "),
        (["--sources", "texts"], "sources: Expected list. Got texts"),
        (["--sources", "[texts]"], "sources: Expected keys with values. Got texts"),
        (["--splits.valid", "1"], "unrecognized arguments: --splits.valid 1; did you mean 'split'"),
    ],
)
def test_a_wrong_value_is_told_without_classes_and_types(
    arguments: list[str], message: str
) -> None:
    with pytest.raises(PipelineError) as told:
        parse(["--output", "data", *arguments])
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)


def test_a_config_file_is_named_for_what_stands_in_it_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("sources: [{kind: python-docs}]\noutput: data\n")
    with pytest.raises(PipelineError, match=r"^seq_len: Expected int\. Got many$"):
        parse(["--config", str(file), "--seq_len", "many"])
    file.write_text(file.read_text() + "seq_len: many\n")
    with pytest.raises(PipelineError, match=r"mine\.yaml: .*seq_len: Expected int\. Got many$"):
        parse(["--config", str(file), "--output", "other"])


def test_an_option_of_nobody_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runer", "DirectRunner"]) == 2
    assert "did you mean --runner" in capsys.readouterr().err
    config = str(ROOT / "configs/pipeline/demo.yaml")
    assert main(["--config", config, "--direct_num_worker=2"]) == 2
    assert "did you mean --direct_num_workers" in capsys.readouterr().err
    assert main(["--config", config, "--cleaning.min_character", "3", "--output", "data"]) == 2
    assert "cleaning.min_character" in capsys.readouterr().err
    assert main(["--config", config, "--executionModeForBatch=BATCH_FORCED"]) == 2
    assert "--executionModeForBatch: neither" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--direct_num_workers", "-1"], "--direct_num_workers: -1, must be at least 0"),
        (["--direct_num_workers=1.5"], "--direct_num_workers: invalid int value: '1.5'"),
        (["--direct_num_workers", "x"], "--direct_num_workers: invalid int value: 'x'"),
        (["--direct_num_workers"], "--direct_num_workers: expected one argument"),
        (["--direct_running_mode", "fast"], "--direct_running_mode: invalid choice: 'fast'"),
    ],
)
def test_a_wrong_value_of_an_option_of_beam_is_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(ROOT / "configs/pipeline/demo.yaml"), "--output", f"{tmp_path}/data"]
    assert main([*config, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner", "PortableRunner", "flink"])
def test_options_that_only_a_job_server_knows_pass_through(runner: str) -> None:
    beams = ["--executionModeForBatch=BATCH_FORCED", "--parallelism", "2", "--object_reuse"]
    ours, passed = _separate([f"--runner={runner}", *beams, "--seq_len=64"])
    assert ours == [f"--runner={runner}", "--seq_len=64"]
    assert passed == beams
    _check_beam_options(passed, runner)
    with pytest.raises(PipelineError, match="did you mean --parallelism"):
        _check_beam_options(["--paralelism=2"], runner)
    with pytest.raises(PipelineError, match="did you mean --seq_len"):
        _separate([f"--runner={runner}", "--seqlen=64"])


def test_options_of_the_documented_runners_pass_through() -> None:
    rows = re.findall(r"^\|.*\|$", (ROOT / "docs/pipeline.md").read_text(), flags=re.M)
    commands = [
        shlex.split(part) for row in rows for part in re.findall(r"`(--runner [^`]*)`", row)
    ]
    assert len(commands) == 6
    for command in commands:
        ours, beams = _separate(command)
        assert ours == command[:2]
        assert beams == command[2:]
        _check_beam_options(beams, command[1])
