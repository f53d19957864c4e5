"""Importing vitdense first makes mmcv importable where it has no compiled ops."""

import gc
import os
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

import vitdense  # noqa: F401

os.environ.setdefault('VITDENSE_PRODUCTS', 'pytorch')  # what is measured may be another library in the next run

if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:  # the processes share the cores
    torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ['PYTEST_XDIST_WORKER_COUNT'])))


def pytest_configure(config: pytest.Config) -> None:
    """Files are given to the processes in the order of the collection, not those of many tests first."""
    if hasattr(config.option, 'loadscopereorder'):
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is left to the sweep is slow as well, so that ``-m "not slow"`` does without it.

    Several processes begin with the files of many slow tests, so that none is left alone with such a file at the end.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker('slow'))
    if hasattr(config, 'workerinput'):
        items.sort(key=lambda item: -slow[item.path])
    for item in items:
        if item.get_closest_marker('sweep'):
            item.add_marker('slow')


def pytest_collection_finish() -> None:
    """Keep what the imports made out of garbage collections: mmengine makes one for each data set that it builds."""
    gc.freeze()


@pytest.fixture(autouse=True, scope='module')
def _own_scope() -> None:
    """The default scope of a file is not that of a fixture of the file before."""
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    """Random numbers and the default scope of a test do not depend on the tests before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    scopes = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """What loading a checkpoint says, line by line."""
    lines = []
    monkeypatch.setattr('vitdense.checkpoint.pretrained.say', lines.append)
    return lines
