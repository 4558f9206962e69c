"""Own flags, glue's flags, a config's section for a figure, and what is no flag at all."""

from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.jobs.plan import make_plan
from reproduce.weight_masks.command import main
from reproduce.weight_masks.connectivity import ConnectivityFlags
from reproduce.weight_masks.flags import read_command


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(
        "task_name: [library]\nmax_seq_length: 16\nlearning_rate: 0.5\n"
        "tasks: {library: {learning_rate: 0.25}}\n"
        "figures:\n"
        "  connectivity: {points: 5, start: -0.5, stop: 1.5, learning_rate: 0.125, seed: [3, 4]}\n"
        "  ensemble: {size: 2}\n"
    )
    return path


def test_a_section_wins_over_the_file_and_the_command_over_it(
    config: Path, tiny_model: Path, tiny_tasks: Path, tmp_path: Path
) -> None:
    command = ["--config", str(config), "--output_dir", str(tmp_path / "out"), "--stop", "1.25"]
    own, words = read_command("connectivity", ConnectivityFlags, command, "")
    assert (own.points, own.start, own.stop, own.runs) == (5, -0.5, 1.25, None)
    assert own.output_dir == tmp_path / "out"
    words += ["--model_name_or_path", str(tiny_model), "--data_dir", str(tiny_tasks)]
    plan = make_plan([*words, "--output_dir", str(tmp_path)])
    (jobs,) = plan.rounds
    assert [(job.seed, job.training["learning_rate"]) for job in jobs] == [(3, 0.125), (4, 0.125)]
    assert {job.max_seq_length for job in jobs} == {16}


def test_glue_reads_the_same_file(config: Path, tiny_model: Path, tiny_tasks: Path) -> None:
    plan = make_plan(
        [
            *("--config", str(config), "--model_name_or_path", str(tiny_model)),
            *("--data_dir", str(tiny_tasks), "--output_dir", "nowhere"),
        ]
    )
    assert plan.rounds[0][0].training["learning_rate"] == 0.25


def test_the_grid_has_both_ends() -> None:
    own = ConnectivityFlags(Path(), points=3, start=-0.25, stop=1.25)
    assert own.grid() == [-0.25, 0.0, 0.5, 1.0, 1.25]
    with pytest.raises(FinetuneError, match="a start below the stop"):
        ConnectivityFlags(Path(), start=1.0, stop=1.0).grid()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sparsty"], "sparsty: no such figure. Did you mean sparsity"),
        (["layers", "--output_dir", "x", "--count", "1"], "--count. Did you mean counts"),
        (["layers", "--output_dir", "x", "--lerning_rate", "1"], "Did you mean learning_rate"),
        (["ensemble"], "output_dir"),
        (["ensemble", "--output_dir", "x", "--size", "3"], "size: found 3, expected 2, 4"),
        (["sparsity", "--output_dir", "x", "--initial_sparsity", "0.5"], "two shares or more"),
        (["memory", "--output_dir", "x", "--tasks", "0"], "tasks: found 0"),
    ],
)
def test_what_is_wrong_is_named(command: list[str], message: str) -> None:
    with pytest.raises(FinetuneError, match=message):
        main(command)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{conectivity: {points: 5}}", "found .'conectivity'., expected sparsity, layers"),
        ("{connectivity: {poitns: 5}}", "figures.connectivity: unknown flag poitns. .* points"),
        ("[connectivity]", "figures: expected a map"),
    ],
)
def test_a_wrong_section_is_named(tmp_path: Path, section: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"figures: {section}\n")
    with pytest.raises(FinetuneError, match=message):
        main(["connectivity", "--output_dir", "x", "--config", str(path)])


def test_help_lists_figures(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    text = capsys.readouterr().out
    assert all(name in text for name in ("sparsity", "connectivity", "ensemble"))
