"""Where the loops of a training begin, what they count and when they validate."""

from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import mmengine.runner.loops as mmengine_loops
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop as TheirEpochs
from mmengine.runner import IterBasedTrainLoop as TheirIterations
from mmengine.runner import Runner as BareRunner
from support.numbers_drawn import Numbers
from torch import nn

from vitdense.engine.hooks import CheckpointHook
from vitdense.engine.loops import EpochBasedTrainLoop, IterBasedTrainLoop, resumable
from vitdense.engine.runner import Runner


class Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.line(torch.stack(inputs).float())
        return dict(loss=out.square().mean()) if mode == 'loss' else [out]


class Counted(Numbers):
    """Notes the images that are loaded; runners copy it."""

    loaded: ClassVar[list[int]] = []

    def __getitem__(self, index):
        self.loaded.append(index)
        return super().__getitem__(index)


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict:
        return {'x': 0.0}


class Seen(Hook):
    """Numbers of the batches, what was drawn in them, and the iterations of validations."""

    def __init__(self) -> None:
        self.numbers, self.drawn, self.validated = [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.numbers.append(batch_idx)
        self.drawn += torch.cat(data_batch['inputs']).tolist()

    def before_val(self, runner) -> None:
        self.validated.append(runner.iter)


def run(folder: Path, loop: dict, runner_type=Runner, sampler: str = 'DefaultSampler', **settings) -> Seen:
    """Train with 3 batches of 2 images in a pass; a checkpoint after each iteration."""
    seen = Seen()
    Counted.loaded.clear()
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type=sampler, shuffle=True), dataset=Counted())
    runner_type(
        model=Line(), work_dir=str(folder), train_dataloader=loader, train_cfg=loop, randomness=dict(seed=0),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)), custom_hooks=[seen], experiment_name=uuid4().hex,
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Numbers()),
        val_evaluator=[Nothing()], val_cfg=dict(),
        default_hooks=dict(checkpoint=CheckpointHook(interval=1, by_epoch=False, save_best=None), logger=None),
        **settings,
    ).train()  # fmt: skip
    return seen


EPOCHS, ITERATIONS = (
    dict(by_epoch=True, max_epochs=3, val_interval=5),
    dict(by_epoch=False, max_iters=9, val_interval=50),
)


@pytest.mark.parametrize(
    ('loop', 'ours'),
    [
        (dict(by_epoch=True, max_epochs=1), EpochBasedTrainLoop),
        (dict(by_epoch=False, max_iters=1), IterBasedTrainLoop),
        (dict(type='EpochBasedTrainLoop', max_epochs=1), EpochBasedTrainLoop),
        (dict(type='mmengine.IterBasedTrainLoop', max_iters=1), IterBasedTrainLoop),
        (dict(type=TheirEpochs, max_epochs=1), EpochBasedTrainLoop),
        (dict(type=TheirIterations, max_iters=1), IterBasedTrainLoop),
    ],
)
def test_loops_of_mmengine_become_resumable(loop, ours):
    found = resumable(loop)
    assert found.pop('type') is ours
    assert found == {key: value for key, value in loop.items() if key.startswith('max')}


class Own(TheirEpochs):
    """Of a user."""


@pytest.mark.parametrize(
    'loop', [dict(type=Own), dict(type='vitdense.EpochBasedTrainLoop'), dict(), dict(type='Nobody')]
)
def test_other_loops_are_left_as_they_are(loop):
    assert resumable(loop) == loop


@pytest.mark.parametrize('loop', [EPOCHS, ITERATIONS])
def test_nothing_is_loaded_twice_and_batches_keep_their_numbers(loop, tmp_path):
    whole = run(tmp_path, loop)
    assert whole.numbers == (list(range(3)) * 3 if loop == EPOCHS else list(range(9)))
    rest = run(tmp_path, loop, load_from=str(tmp_path / 'iter_5.pth'), resume=True)
    assert rest.numbers == whole.numbers[5:]
    assert rest.drawn == whole.drawn[10:]
    assert len(Counted.loaded) == 8


@pytest.mark.parametrize('loop', [EPOCHS, ITERATIONS])
@pytest.mark.parametrize('done', [2, 3, 4, 6, 8])
def test_a_checkpoint_of_another_loop_has_no_place_but_a_number_of_iterations(loop, done, tmp_path):
    whole = run(tmp_path, loop)
    path = tmp_path / f'iter_{done}.pth'
    checkpoint = torch.load(path, weights_only=False)
    for part in ('runtime_info', 'resumed_keys'):
        del checkpoint['message_hub'][part]['data_pass']
    torch.save(checkpoint, path)
    rest = run(tmp_path, loop, load_from=str(path), resume=True)
    assert rest.drawn == whole.drawn[2 * done :]


@pytest.mark.parametrize(
    'loop',
    [
        dict(by_epoch=True, max_epochs=7, val_begin=2, val_interval=3, dynamic_intervals=[(5, 1)]),
        dict(by_epoch=False, max_iters=11, val_begin=3, val_interval=4, dynamic_intervals=[(8, 1)]),
    ],
)
def test_validations_come_when_those_of_mmengine_do(loop, tmp_path):
    theirs = run(tmp_path / 'theirs', loop, BareRunner, 'DefaultSampler' if loop['by_epoch'] else 'InfiniteSampler')
    ours = run(tmp_path / 'ours', loop)
    assert ours.validated == theirs.validated
    assert len(ours.validated) >= 4
    middle = ours.validated[2]
    rest = run(tmp_path / 'ours', loop, load_from=str(tmp_path / f'ours/iter_{middle}.pth'), resume=True)
    assert rest.validated == ours.validated[2:], 'the checkpoint is of before the validation'


def test_no_image_is_drawn_before_the_run_knows_where_it_is(tmp_path, monkeypatch):
    """mmengine 0.10.7 makes its iterator, which takes indices from the sampler, when the loop is made."""

    def eager(loader):
        raise AssertionError

    monkeypatch.setattr(mmengine_loops, '_InfiniteDataloaderIterator', eager)
    run(tmp_path, dict(ITERATIONS, max_iters=2), sampler='InfiniteSampler')
    assert mmengine_loops._InfiniteDataloaderIterator is eager
