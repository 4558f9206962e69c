"""Configs: what is refused, before anything is loaded, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pretrain.config import DataConfig, PretrainConfig
from pretrain.config_parser import parse_args
from pretrain.errors import PretrainError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", sorted((ROOT / "configs/pretrain").glob("*.yaml")), ids=str)
def test_shipped_configs_are_valid(file: Path) -> None:
    parse_args(["--config", str(file)])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--masking.insert_layer", "3"], r"insert_layer is 3.*num_hidden_layers = 2"),
        (["--masking.insert_layer", "2"], r"late_layers is 0.*without any context"),
        (["--masking.insert_layer", "1.0"], r"insert_layer is 1\.0.*strictly between 0 and 1"),
        (["--masking.schedule", "[{start: 0.5, insert_layer: 0.0}]"], r"insert_layer is 0\.0"),
        (["--masking.rate", "1.5"], r"masking\.rate is 1\.5"),
        (["--masking.rate", "many"], "rate"),
        (["--masking.masked_share", "0.95"], "add up to 1"),
        (["--model.num_attention_heads", "3"], "not divisible"),
        (["--masking.loss_fraction", "0"], "masking.loss_fraction is 0"),
        (["--masking.schedule", "[{start: 0.5}, {start: 0.2}]"], r"they must rise"),
        (["--masking.schedule", "[{start: 0.5, insert_layer: 9}]"], "insert_layer is 9"),
        (["--masking.schedule", "[{start: 0.5, rate: 1.5}]"], r"at 0.5, rate is 1.5"),
        (["--data.micro_batch_size", "32"], r"micro_batch_size is 32"),
        (["--data.batch_warmup", "0.1"], r"batch_warmup is 0\.1 without a batch size"),
        (["--data.initial_batch_size", "4"], r"batch_warmup is 0\.0; with"),
        (
            ["--data.initial_batch_size", "6", "--data.batch_warmup", "0.1"],
            r"initial_batch_size is 6; it must be a multiple of data\.micro_batch_size = 4",
        ),
        (
            ["--data.initial_batch_size", "12", "--data.batch_warmup", "0.1"],
            r"initial_batch_size is 12; .*divide data\.global_batch_size = 16",
        ),
        (["--masking.insert_leyer", "1"], r"command line: unknown key.*insert_layer"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_refusals_name_the_key(
    tiny_config: Callable[..., PretrainConfig], overrides: list[str], message: str
) -> None:
    with pytest.raises(PretrainError, match=f"(?s){message}"):
        tiny_config(*overrides)


@pytest.mark.parametrize(
    ("share", "layers", "expected"),
    [("0.75", 12, 9), ("0.75", 22, 16), ("0.5", 2, 1), ("9", 12, 9), ("0.99", 2, 1), ("0.1", 4, 1)],
)
def test_a_share_of_the_layers_is_a_layer(
    tiny_config: Callable[..., PretrainConfig],
    tmp_path: Path,
    share: str,
    layers: int,
    expected: int,
) -> None:
    config = tiny_config(
        *("--model.num_hidden_layers", str(layers), "--masking.insert_layer", share),
        *("--masking.schedule", f"[{{start: 0.5, insert_layer: {share}}}]"),
    )
    assert config.masking.insert_layer == expected
    assert [stage.insertion_layer for stage in config.masking.stages()] == [expected, expected]
    config.save(tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())["masking"]
    assert saved["insert_layer"] == saved["schedule"][0]["insert_layer"] == expected
    assert type(saved["insert_layer"]) is int


def test_stages_hold_from_their_start_on(tiny_config: Callable[..., PretrainConfig]) -> None:
    stages = "[{start: 0.2, rate: 0.4}, {start: 0.5, insert_layer: 1, rate: 0.3}]"
    masking = tiny_config(
        "--masking.schedule", stages, "--masking.rate", "0.5", "--masking.insert_layer", "0"
    ).masking
    found = [(masking.at(f).rate, masking.at(f).insert_layer) for f in (0.0, 0.19, 0.2, 0.5, 1.0)]
    assert found == [(0.5, 0), (0.5, 0), (0.4, 0), (0.3, 1), (0.3, 1)]


@given(
    st.integers(1, 8),
    st.integers(1, 40),
    st.floats(0.01, 1),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_a_batch_grows_linearly_in_whole_increments(
    initial: int, multiple: int, warmup: float, fractions: list[float]
) -> None:
    data = DataConfig(
        path="data",
        micro_batch_size=1,
        global_batch_size=initial * multiple,
        initial_batch_size=initial,
        batch_warmup=warmup,
    )
    assert data.batch_size_at(0) == initial
    assert data.batch_size_at(warmup) == data.batch_size_at(1) == initial * multiple
    sizes = [data.batch_size_at(fraction) for fraction in sorted(fractions)]
    assert sizes == sorted(sizes)
    assert all(size % initial == 0 for size in sizes)
    for fraction, size in zip(sorted(fractions), sizes, strict=True):
        line = initial + (initial * multiple - initial) * min(1, fraction / warmup)
        assert line - initial - 1e-9 <= size <= line + 1e-9


def test_a_batch_does_not_grow_unless_asked(tiny_config: Callable[..., PretrainConfig]) -> None:
    assert [tiny_config().data.batch_size_at(fraction) for fraction in (0, 0.5, 1)] == [16] * 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("--run.seed", "-1"), r"run\.seed is -1"),
        (("--run.hang_minutes", "1e300"), r"run\.hang_minutes is 1e\+300"),
        (("--run.save_minutes", "-1"), r"run\.save_minutes is -1"),
        (("--run.max_rollbacks", "-1"), r"run\.max_rollbacks is -1"),
        (("--run.output_dir", ""), r"run\.output_dir is empty"),
        (("--data.path", " "), r"data\.path is empty"),
        (("--model.hidden_size", "0"), r"model\.hidden_size is 0"),
        (("--model.num_attention_heads", "0"), r"model\.num_attention_heads is 0"),
        (("--model.num_hidden_layers", "0"), r"model\.num_hidden_layers is 0"),
        (("--model.intermediate_size", "-5"), r"model\.intermediate_size is -5"),
        (("--optimizer.gradient_clipping", "-1"), r"optimizer\.gradient_clipping is -1"),
        (("--optimizer.betas", "[2, 3]"), r"optimizer\.betas is \[2"),
    ],
)
def test_values_that_cannot_work_are_named(
    tiny_config: Callable[..., PretrainConfig], override: tuple[str, str], message: str
) -> None:
    with pytest.raises(PretrainError, match=message):
        tiny_config(*override)
