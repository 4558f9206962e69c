"""What a user reads of keys and values that can't be taken: one line, with the remedy."""

from pathlib import Path

import pytest

from pipeline.__main__ import main, parse
from pipeline.errors import PipelineError

BEGIN = "output: a\nsources: [{kind: python-docs}]\n"


def _message(folder: Path, config: str, *arguments: str) -> str:
    """What is told of a config file and of arguments, without the file's name."""
    file = folder / "mine.yaml"
    file.write_text(config)
    with pytest.raises(PipelineError) as told:
        parse(["--config", str(file), *arguments])
    return str(told.value).removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("output: a\nseq_len: 9\noutput: b\n", "output: given in line 1 and again in line 3"),
        (
            "cleaning:\n  repetition:\n    max_duplicate_lines: 0\n    'max_duplicate_lines': 1\n",
            "cleaning.repetition.max_duplicate_lines: given in line 3 and again in line 4",
        ),
        (
            "sources:\n- kind: text\n- kind: text\n  paths: [a]\n  paths: [b]\n",
            "sources[1].paths: given in line 4 and again in line 5",
        ),
        (
            "cleaning: {repetition: {max_top_ngram: {2: .1, 2: .2}}}\n",
            "cleaning.repetition.max_top_ngram.2: given in line 1 and again in line 1",
        ),
    ],
)
def test_a_key_that_is_given_twice_is_told_with_both_lines(
    tmp_path: Path, config: str, message: str
) -> None:
    assert _message(tmp_path, config) == f"{message}; keep one of them"
    with pytest.raises(PipelineError) as told:
        parse([f"--config={config}"])
    assert str(told.value) == f"--config: {message}; keep one of them"


def test_the_same_key_may_stand_in_several_sections_and_in_what_they_share(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "output: a\n"
        "sources: [&one {kind: text, name: a, paths: &paths [b]}, "
        "{<<: *one, name: c}, {<<: *one, name: d, paths: *paths}]\n"
        "tokenizer: {seed: 1}\nnear_duplicates: {seed: 1}\n"
    )
    config, _ = parse(["--config", str(file)])
    assert [source.label for source in config.sources] == ["a", "c", "d"]


@pytest.mark.parametrize("value", ["true", "yes", "on"])
@pytest.mark.parametrize(
    ("config", "key", "write"),
    [
        ("near_duplicates: {}", "near_duplicates", "near_duplicates: {}"),
        ("tasks: {}", "tasks", "tasks: {}"),
        ("cleaning: {{repetition: {}}}", "cleaning.repetition", "repetition: {}"),
        ("decontamination: {}", "decontamination", "decontamination: {paths: [FILE, …]}"),
    ],
)
def test_a_section_is_not_switched_on_by_a_word(
    tmp_path: Path, config: str, key: str, write: str, value: str
) -> None:
    message = f"; write `{write}` for the usual settings"
    assert _message(tmp_path, BEGIN + config.format(value)) == f"{key}: Got True{message}"
    assert _message(tmp_path, BEGIN, f"--{key}={value}") == f"{key}: Got {value}{message}"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("tasks: no", "tasks: Got False; leave the key out, or write null, to do without"),
        ("tasks: 3", "tasks: Expected settings, as `SETTING: VALUE`, or no such key. Got 3"),
        ("split: true", "split: Expected settings, as `SETTING: VALUE`, or no such key. Got True"),
        ("split:", "split: Expected settings, as `SETTING: VALUE`, or no such key. Got None"),
        ("near_duplicates: {bands: x}", "near_duplicates: bands: Expected int. Got x"),
        ("decontamination: {ngram: 3}", "decontamination.paths: missing"),
        ("tokenizer: {path: 3}", "tokenizer.path: Expected str. Got 3"),
        (
            "near_duplicates: {bandz: 3}",
            "near_duplicates: Option 'bandz' is not accepted; did you mean 'bands'?",
        ),
    ],
)
def test_a_value_that_is_no_section_is_told_in_one_line(
    tmp_path: Path, config: str, message: str
) -> None:
    assert _message(tmp_path, BEGIN + config) == message


@pytest.mark.parametrize("config", ["cleaning: {languages: [no, da]}", "tokenizer: {path: no}"])
def test_a_word_that_yaml_takes_for_false_is_to_be_quoted(tmp_path: Path, config: str) -> None:
    message = _message(tmp_path, BEGIN + config)
    assert "Expected str. Got False" in message
    assert message.endswith("put the word in quotes")


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("cleaning.min_chars", "min_characters"),
        ("near_duplicates.thresh", "threshold"),
        ("tokenizer.lower", "lowercase"),
        ("cleaning.vocab_size", "tokenizer.vocab_size"),
        ("cleaning.repetition.max_top", "max_top_ngram"),
    ],
)
def test_a_key_of_the_same_section_is_meant_first(
    option: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--{option}", "5", "--output", "a", "--sources", "[{kind: python-docs}]"]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"did you mean {key!r}?\n")
    assert error.count("\n") == 1
