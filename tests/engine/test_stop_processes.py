"""Several processes of which one is asked to stop: all stop, after the same step, with one checkpoint."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import ROOT

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import torch
sys.path.insert(0, 'tests')
from support.line import Toy, make
from mmengine.hooks import Hook
from vitdense.engine.hooks import CheckpointHook, StopHook
from vitdense.engine.processes import leave
from vitdense.engine.runner import Runner
from vitdense.signals import Stopped

rank, folder, at = int(os.environ['RANK']), Path(sys.argv[1]), int(sys.argv[2])
torch.distributed.init_process_group('gloo')

class Kill(Hook):
    def after_train_iter(self, runner, *args, **kwargs):
        time.sleep(0.02 * (1 + rank))  # they are not equally fast
        if rank == 1 and runner.iter + 1 == at:
            os.kill(os.getpid(), signal.SIGTERM)

class Slow(StopHook):  # saves by the clock of the first process, which alone is right
    def _is_due(self):
        return rank == 0 and super()._is_due()

hooks = dict(checkpoint=CheckpointHook(by_epoch=False), stop=Slow(save_every=0.005))
cfg = dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None))
runner = make(Runner, folder, Toy(), hooks, custom_hooks=[Kill()], cfg=cfg, launcher='pytorch',
              train_cfg=dict(by_epoch=False, max_iters=400), experiment_name='x')
try:
    runner.train()
except Stopped as stop:
    Path(folder, f'rank{rank}').write_text(str(runner.iter + 1))
    leave()
    raise
"""


@pytest.mark.slow
def test_one_of_two_is_asked(tmp_path):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = str(free.getsockname()[1])
    at = 60
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'MASTER_ADDR': 'localhost', 'MASTER_PORT': port, 'WORLD_SIZE': '2'}
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', PROGRAM, str(tmp_path), str(at)], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=env | {'RANK': str(rank), 'LOCAL_RANK': str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], outputs
    assert all('Traceback' not in output for output in outputs), outputs
    done = [int(Path(tmp_path, f'rank{rank}').read_text()) for rank in range(2)]
    assert at <= done[0] == done[1] < 400
    assert torch.load(tmp_path / 'last.pth', weights_only=True)['meta']['iter'] == done[0]
    assert torch.load(tmp_path / 'previous.pth', weights_only=True)['meta']['iter'] < done[0]
    assert f'stopped by SIGTERM at iter {done[0]}/400; go on with: ' in outputs[0]
    assert 'stopped by' not in outputs[1]
