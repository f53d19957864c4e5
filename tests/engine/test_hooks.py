"""Hooks and runner on a toy model: what must never pass in silence."""

import io
import logging
import re
from inspect import signature
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop
from rich.console import Console
from support.line import Toy, make
from support.numbers_drawn import Numbers
from support.sweep import but_for_the_sweep

from vitdense import console
from vitdense.engine.hooks import (
    CheckpointHook,
    InvalidLossError,
    InvalidLossHook,
    ProgressHook,
    progress,
)
from vitdense.engine.log_processor import LogProcessor
from vitdense.engine.runner import Runner


@pytest.mark.slow
class Batches(Hook):
    """Keeps what was drawn for each image, pass by pass."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.drawn += torch.cat(data_batch['inputs']).tolist()

    def passes(self) -> list[tuple[float, ...]]:
        return [tuple(sorted(self.drawn[i : i + 6])) for i in range(0, len(self.drawn), 6)]


@pytest.fixture
def no_pause(monkeypatch):
    """mmengine waits two seconds between passes."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)


def iterations(folder: Path, number: int, sampler: str = 'DefaultSampler', start: str = 'fork', **settings) -> Batches:
    batches = Batches()
    workers = dict(num_workers=2, persistent_workers=False, multiprocessing_context=start)
    loader = dict(batch_size=2, sampler=dict(type=sampler, shuffle=False), dataset=Numbers(), **workers)
    hooks = dict(checkpoint=CheckpointHook(interval=9, by_epoch=False))
    loop = dict(by_epoch=False, max_iters=number, **settings.pop('loop', {}))
    make(
        Runner, folder, Toy(), hooks, custom_hooks=[batches], train_dataloader=loader, train_cfg=loop,
        randomness=dict(seed=3), **settings,
    ).train()  # fmt: skip
    return batches


@pytest.mark.slow
@pytest.mark.parametrize('start', but_for_the_sweep(['fork', 'spawn'], ['fork']))
def test_augmentation_differs_between_the_passes_of_a_loop_of_iterations(tmp_path, no_pause, start):
    passes = iterations(tmp_path, 9, start=start).passes()
    assert len(set(passes)) == len(passes) == 3
    assert iterations(tmp_path / 'again', 9, start=start).passes() == passes, 'the seed decides'


@pytest.mark.slow
def test_a_resumed_loop_of_iterations_goes_on_where_it_was(tmp_path, no_pause):
    whole = iterations(tmp_path / 'whole', 18)
    iterations(tmp_path / 'half', 9)
    rest = iterations(tmp_path / 'half', 18, load_from=str(tmp_path / 'half/last.pth'), resume=True)
    assert rest.drawn == whole.drawn[18:]


@pytest.mark.slow
@pytest.mark.parametrize(('sampler', 'forward'), [('InfiniteSampler', False), ('DefaultSampler', True)])
def test_a_resumed_loop_that_skips_data_does_not_begin_with_the_same_augmentation(tmp_path, no_pause, sampler, forward):
    first = iterations(tmp_path, 9, sampler)
    if forward and 'fast_forward_on_resume' not in signature(IterBasedTrainLoop).parameters:
        pytest.skip("upstream's mmengine has no such loop")
    loop = dict(fast_forward_on_resume=True) if forward else {}
    again = iterations(tmp_path, 18, sampler, loop=loop, load_from=str(tmp_path / 'last.pth'), resume=True)
    assert not set(first.drawn) & set(again.drawn)


def test_best_and_last_have_fixed_names(tmp_path):
    scores = iter([0.5, 0.7, 0.6])

    val = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Numbers())

    class Scores(Evaluator):
        def __init__(self):
            self.metrics = []

        def process(self, data_samples, data_batch=None):
            pass

        def evaluate(self, size):
            return dict(score=next(scores))

    hooks = dict(checkpoint=CheckpointHook(interval=1, save_best='score', rule='greater', max_keep_ckpts=1))
    make(
        Runner, tmp_path, Toy(), hooks, val_dataloader=val, val_cfg=dict(), val_evaluator=Scores(),
        train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1),
    ).train()  # fmt: skip
    read = {path.name: torch.load(path, weights_only=True) for path in tmp_path.glob('*.pth')}
    assert set(read) == {'best.pth', 'last.pth', 'previous.pth', 'best_score_epoch_2.pth', 'epoch_3.pth'}
    assert read['best.pth']['meta']['epoch'] == 2
    assert read['last.pth']['meta']['epoch'] == 3
    assert read['previous.pth']['meta']['epoch'] == 2
    assert 'optimizer' in read['last.pth']


def test_lines_of_a_run_that_is_piped(tmp_path, capsys):
    hooks = dict(progress=ProgressHook(interval=2), checkpoint=None, pictures=None)
    runner = make(Runner, tmp_path, Toy(), hooks, log_processor=LogProcessor(by_epoch=True))
    runner.train()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split('  ')[:2] for line in lines] == [[f'epoch {n}/3', 'step 2/3'] for n in (1, 2, 3)]
    for part in ('eta 0:00:0', ' img/s', 'data ', 'mem ', 'lr 1.00e-02', 'loss ', 'loss_cls ', 'loss_bbox '):
        assert part in lines[0]
    log = next(tmp_path.rglob('*.log')).read_text()
    assert 'Hooks will be executed' in log
    assert all(line in log for line in lines)


def test_what_the_operators_report_is_shown_and_logged(tmp_path, capsys):
    make(Runner, tmp_path, Toy(), dict(checkpoint=None))
    logging.getLogger('vitdense').info('a back end was chosen')
    assert 'a back end was chosen' in capsys.readouterr().out.splitlines()
    assert 'a back end was chosen' in next(tmp_path.rglob('*.log')).read_text()


def test_a_live_bar_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    screen = Console(file=io.StringIO(), force_terminal=True, width=150, color_system=None)
    monkeypatch.setattr(console, 'CONSOLE', screen)
    monkeypatch.setattr(progress, 'CONSOLE', screen)
    hooks = dict(progress=ProgressHook(), checkpoint=None)
    runner = make(Runner, tmp_path, Toy(), hooks, log_processor=LogProcessor(by_epoch=True))
    runner.train()
    shown = screen.file.getvalue()
    assert re.search(r'epoch 3/3 .*3/3 .*step 3/3 .*loss ', shown)
    assert not re.search(r'^epoch', shown, re.M), 'no lines beside the bar'
    assert shown.count('\x1b[?25l') == shown.count('\x1b[?25h') == 1, 'the cursor is there again'


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(tmp_path, monkeypatch):
    monkeypatch.setenv('TERM', 'dumb')
    screen = Console(file=io.StringIO(), force_terminal=True, width=150)
    monkeypatch.setattr(console, 'CONSOLE', screen)
    monkeypatch.setattr(progress, 'CONSOLE', screen)
    hooks = dict(progress=ProgressHook(), checkpoint=None)
    make(Runner, tmp_path, Toy(), hooks, log_processor=LogProcessor(by_epoch=True)).train()
    assert len(re.findall(r'^epoch \d/3  step 3/3 ', screen.file.getvalue(), re.M)) == 3


def test_the_bar_is_taken_down_when_a_run_fails(tmp_path, monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    screen = Console(file=io.StringIO(), force_terminal=True, width=150)
    monkeypatch.setattr(progress, 'CONSOLE', screen)
    hooks = dict(invalid_loss=InvalidLossHook(max_skipped=0), progress=ProgressHook(), checkpoint=None)
    with pytest.raises(InvalidLossError):
        make(Runner, tmp_path, Toy(float('nan')), hooks, log_processor=LogProcessor(by_epoch=True)).train()
    assert '\x1b[?25h' in screen.file.getvalue(), 'the cursor is there again'


def data(*classes):
    sampler = dict(type='DefaultSampler', shuffle=False)
    return dict(batch_size=2, num_workers=0, sampler=sampler, dataset=Numbers(classes))


def test_resuming_with_other_classes_is_refused(tmp_path):
    hooks = dict(checkpoint=CheckpointHook(interval=1))
    make(Runner, tmp_path, Toy(), hooks, train_dataloader=data('cat', 'dog')).train()
    again = dict(load_from=str(tmp_path / 'last.pth'), resume=True, train_cfg=dict(by_epoch=True, max_epochs=4))
    with pytest.raises(ValueError, match=r"--resume: .*last\.pth .*\n  classes +\('cat', 'dog'\) -> \('dog', 'cat'\)"):
        make(Runner, tmp_path, Toy(), hooks, train_dataloader=data('dog', 'cat'), **again).train()
    make(Runner, tmp_path, Toy(), hooks, train_dataloader=data('cat', 'dog'), **again).train()
    assert torch.load(tmp_path / 'last.pth', weights_only=True)['meta']['epoch'] == 4


def test_testing_with_the_classes_in_another_order_is_refused(tmp_path):
    hooks = dict(checkpoint=CheckpointHook(interval=1))
    make(Runner, tmp_path, Toy(), hooks, train_dataloader=data('cat', 'dog')).train()
    evaluator = dict(type='DumpResults', out_file_path=str(tmp_path / 'x.pkl'))
    test = dict(load_from=str(tmp_path / 'last.pth'), test_cfg=dict(), test_evaluator=evaluator)
    none = dict(train_dataloader=None, train_cfg=None, optim_wrapper=None)
    with pytest.raises(ValueError, match=r"in another order, and a label is a number; .*classes=\('cat', 'dog'\)"):
        make(Runner, tmp_path, Toy(), hooks, test_dataloader=data('dog', 'cat'), **test, **none).test()
    for others in (('cat', 'dog'), ('cat', 'cow')):  # other names are a warning: some only have another spelling
        runner = make(Runner, tmp_path, Toy(), hooks, test_dataloader=data(*others), **test, **none)
        runner.build_test_loop(runner._test_loop)
        runner.load_checkpoint(str(tmp_path / 'last.pth'))
