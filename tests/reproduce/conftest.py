"""A tiny encoder and two small tasks."""

from pathlib import Path

import pytest
import torch

from tests.small_tasks import write_encoder, write_tasks

# A tiny model on one thread is faster than on many, and the tests share the machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))
