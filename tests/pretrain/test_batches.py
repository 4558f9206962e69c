"""Batches on any ranks, from a folder and from a URL: the same, tensor for tensor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest

from benchmarks.tiny_run import write_random_folder
from pretrain.batches import Batches
from pretrain.config import DataConfig, PretrainConfig
from pretrain.data import ShardFolder
from pretrain.errors import PretrainError
from pretrain.masking import MaskedBatch
from pretrain.recipe import MaskingConfig

URL = "memory://bucket/shards"
SHARDS, SEQUENCES = 12, 40  # training


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "data"
    sizes = {"shards": SHARDS, "sequences": SEQUENCES, "seq_len": 16}
    return write_random_folder(folder, **sizes, vocab_size=300, block=16)


@pytest.fixture
def url(many_shards: Path) -> str:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.put(f"{many_shards}/", "/bucket/shards/", recursive=True)
    return URL


def batches_of(data: ShardFolder, **settings: int | None) -> Batches:
    sizes: dict[str, int] = {"global_batch_size": 24, "micro_batch_size": 6}
    return Batches(data, seed=5, **(sizes | settings))  # type: ignore[arg-type]


def steps_of(batches: Batches, position: int, count: int) -> list[list[MaskedBatch]]:
    steps = batches.steps(position, MaskingConfig(insert_layer=1))
    found = list(islice(steps, count))
    steps.close()
    return found


def assert_same(ours: list[list[MaskedBatch]], theirs: list[list[MaskedBatch]]) -> None:
    for our_step, their_step in zip(ours, theirs, strict=True):
        for our_batch, their_batch in zip(our_step, their_step, strict=True):
            for our_array, their_array in zip(our_batch, their_batch, strict=True):
                np.testing.assert_array_equal(our_array, their_array)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_batches_of_a_url_are_those_of_the_folder(
    many_shards: Path, url: str, tmp_path: Path, window: int | None
) -> None:
    config = DataConfig(path=url, cache_dir=str(tmp_path), shuffle_shards=window)
    for rank in range(2):
        settings = {"rank": rank, "num_ranks": 2, "shuffle_shards": window}
        near = steps_of(batches_of(ShardFolder(many_shards), **settings), 0, 45)  # over two epochs
        far = batches_of(ShardFolder.from_config(config), **settings)
        assert_same(steps_of(far, 0, 45), near)
        assert_same(steps_of(far, 7 * 24, 5), near[7:12])  # back again
    again = batches_of(ShardFolder.from_config(config), rank=1, num_ranks=2, shuffle_shards=window)
    assert_same(steps_of(again, 31 * 24, 14), near[31:])  # resumed, in the second epoch


def test_a_window_never_takes_more_room_than_it_may(url: str, tmp_path: Path) -> None:
    config = DataConfig(path=url, cache_dir=str(tmp_path), shuffle_shards=2)
    data = ShardFolder.from_config(config)
    assert data.cache is not None
    batches = batches_of(data, shuffle_shards=2)
    most = 0
    for _ in islice(batches.steps(0, MaskingConfig(insert_layer=1)), 45):
        held = 0
        for file in data.path.glob("train-*.tar"):
            with suppress(FileNotFoundError):  # removed by the thread that reads ahead
                held += file.stat().st_size
        most = max(most, held)
    largest = max(shard["bytes"] for shard in data.manifest["splits"]["train"]["shards"])
    assert data.cache.limit_bytes == 6 * largest < data.cache.total_bytes / 2
    assert most <= data.cache.limit_bytes


def test_a_cache_that_is_too_small_for_the_order_is_refused(url: str, tmp_path: Path) -> None:
    for window, needed in (
        (None, "all of its 13 shards .* 5.3e-05|all of its 13"),
        (3, "over 3 of"),
    ):
        config = DataConfig(path=url, cache_dir=str(tmp_path), shuffle_shards=window, cache_gb=1e-6)
        with pytest.raises(PretrainError, match=needed) as error:
            ShardFolder.from_config(config)
        assert "data.cache_gb is 1e-06" in str(error.value)
    ShardFolder.from_config(DataConfig(path=url, cache_dir=str(tmp_path), cache_gb=1))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("size", [16, 48])
def test_a_global_batch_is_the_same_on_any_ranks(
    shard_folder: Path, tiny_config: Callable[..., PretrainConfig], ranks: int, size: int
) -> None:
    data, config = ShardFolder(shard_folder), tiny_config()

    def batch(num_ranks: int, micro: int) -> list[list[np.ndarray]]:
        parts = []
        for rank in range(num_ranks):
            batches = Batches(
                data, seed=3,
                global_batch_size=48, micro_batch_size=micro, rank=rank, num_ranks=num_ranks,
            )  # fmt: skip
            steps = batches.steps(192 - size, config.masking, size)
            next(steps)
            parts += next(steps)  # across the end of an epoch
            steps.close()
        return [np.concatenate(field) for field in zip(*parts, strict=True)]  # type: ignore[misc]

    for ours, whole in zip(batch(ranks, 4), batch(1, size), strict=True):
        np.testing.assert_array_equal(ours, whole)


def test_batch_arithmetic_that_does_not_work_out(shard_folder: Path) -> None:
    data = ShardFolder(shard_folder)
    with pytest.raises(PretrainError, match=r"6 x 2; 12 would be"):
        Batches(
            data, seed=0, global_batch_size=16, micro_batch_size=6, num_ranks=2,
        )  # fmt: skip
    with pytest.raises(PretrainError, match=r"data\.initial_batch_size = 4 .* 4 x 2; 8 would be"):
        Batches(
            data, seed=0,
            global_batch_size=16, micro_batch_size=4, initial_batch_size=4, num_ranks=2,
        )  # fmt: skip
