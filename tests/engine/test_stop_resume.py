"""A run that was stopped and goes on ends as one that was not stopped."""

import csv
import signal

import pytest
import torch
from mmengine.hooks import EMAHook
from support.line import Toy, make, validation
from support.stopping import Kill

from vitdense.engine.hooks import CheckpointHook, ResultsHook, StopHook
from vitdense.engine.runner import Runner
from vitdense.signals import Stopped


def runner(folder, *hooks, **overrides):
    torch.manual_seed(0)
    ours = dict(
        checkpoint=CheckpointHook(interval=2, save_best='score', rule='greater'), stop=StopHook(), results=ResultsHook()
    )
    return make(
        Runner, folder, Toy(), ours, custom_hooks=[EMAHook(momentum=0.1), *hooks], **{**validation(), **overrides}
    )


CASES = [(at, 'after_train_iter') for at in range(1, 9)] + [(at, 'after_val_iter') for at in (1, 4, 8)]
CASES += [(1, 'after_train_epoch'), (2, 'before_save_checkpoint'), (1, 'after_val_epoch')]


@pytest.mark.parametrize(('at', 'where'), CASES)
def test_equal(at, where, tmp_path):
    runner(tmp_path / 'whole').train()
    with pytest.raises(Stopped):
        runner(tmp_path / 'run', Kill(at, signal.SIGTERM, where)).train()
    runner(tmp_path / 'run', resume=True, load_from=str(tmp_path / 'run/last.pth')).train()
    one, other = (torch.load(tmp_path / name / 'last.pth', weights_only=True) for name in ('whole', 'run'))
    for part in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(value, other[part][key]) for key, value in one[part].items())
    known = [set(each['message_hub']['runtime_info']) - {'last_ckpt'} for each in (one, other)]
    assert known[0] == known[1]
    rows = [list(csv.DictReader((tmp_path / name / 'results.csv').open())) for name in ('whole', 'run')]
    for row in (*rows[0], *rows[1]):
        row.pop('seconds')
    assert rows[0] == rows[1]
    names = [{path.name for path in (tmp_path / name).glob('*.pth')} for name in ('whole', 'run')]
    assert names[0] == names[1], names
