"""Importing vitdense first makes mmcv importable where it has no compiled ops."""

import os

import pytest
import torch

import vitdense  # noqa: F401

if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:  # the processes share the cores
    torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ['PYTEST_XDIST_WORKER_COUNT'])))


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """What loading a checkpoint says, line by line."""
    lines = []
    monkeypatch.setattr('vitdense.checkpoint.pretrained.say', lines.append)
    return lines
