"""What the threads that read, prepare and draw leave alone."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS
from support import ROOT
from support.trained import work_dir

import vitdense
from vitdense.predict.predictor import ahead


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_of_pytorch_belong_to_the_model(two_threads):
    assert set(ahead(lambda _: torch.get_num_threads(), range(20), 4, None)) == {1}
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_pipelines_are_built_where_the_model_is_loaded(tmp_path, monkeypatch):
    """The default scope is one for all threads: two that set it meanwhile undo what the other has set."""
    builders: list[threading.Thread] = []

    class Noted:
        def __init__(self) -> None:
            builders.append(threading.current_thread())

        def __call__(self, results: dict) -> dict:
            return results

    monkeypatch.setitem(TRANSFORMS.module_dict, 'Noted', Noted)
    folder = work_dir('maps', tmp_path)
    [config] = folder.glob('*.py')
    config.write_text(
        config.read_text() + "\ntest_dataloader['dataset']['pipeline'].insert(1, dict(type='mmengine.Noted'))\n"
    )
    model = vitdense.load(folder, device='cpu')
    pictures = [np.zeros((30, 40, 3), np.uint8)] * 12
    assert len(model.predict(pictures, batch_size=2)) == 12
    assert builders == [threading.main_thread()]


@pytest.mark.slow
def test_loading_prints_nothing(tmp_path):
    """Packages tell which optional parts they lack while they are imported, here by a step of the pipeline."""
    folder = work_dir('maps', tmp_path)
    command = [sys.executable, '-W', 'ignore', '-c', f'import vitdense; vitdense.load({str(folder)!r}, device="cpu")']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ('', '')
