"""Importing vitdense first makes mmcv importable where it has no compiled ops."""

import pytest

import vitdense  # noqa: F401


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """What loading a checkpoint says, line by line."""
    lines = []
    monkeypatch.setattr('vitdense.checkpoint.pretrained.say', lines.append)
    return lines
