"""Loop, schedules, validations and checkpoints, all counted in epochs or iterations."""

import pytest
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.optim import LinearLR, MultiStepLR
from mmengine.runner import IterBasedTrainLoop

from vitdense.checks import Run, check
from vitdense.config.settle import settle

STEPS = 10


def epochs(number: int, **settings) -> dict:
    return dict(type='EpochBasedTrainLoop', max_epochs=number, **settings)


def iterations(number: int, **settings) -> dict:
    return dict(type='IterBasedTrainLoop', max_iters=number, **settings)


def findings(loop: dict, schedule: list | dict = (), **cfg) -> list:
    cfg = (
        dict(train_dataloader=dict(), val_dataloader=dict(batch_size=1), train_cfg=loop, param_scheduler=schedule) | cfg
    )
    run = Run(Config(cfg), steps=dict(train=STEPS, val=3))
    return [*check(run, 'config'), *check(run, 'model')]


def found(*given, **cfg) -> dict[str, str]:
    return {finding.where: finding.kind for finding in findings(*given, **cfg)}


def step(**settings) -> dict:
    return dict(type='MultiStepLR', gamma=0.1, **settings)


WARM_UP, LATE, OTHER = 'warm-up that outlasts the training', 'milestones beyond the end', 'schedule of another length'
IN_EPOCHS = 'schedule in epochs in a loop of iterations'


@pytest.mark.parametrize(
    ('loop', 'schedule', 'kind'),
    [
        (epochs(3), dict(type='LinearLR', by_epoch=False, begin=0, end=500), WARM_UP),
        (epochs(3), dict(type=LinearLR, by_epoch=False, begin=0, end=31), WARM_UP),
        (epochs(3), dict(type='mmengine.LinearLR', by_epoch=False, begin=0, end=29), None),
        (epochs(3), dict(type='ConstantLR', factor=0.1, begin=0, end=4), WARM_UP),
        (epochs(3), dict(type='ConstantLR', factor=1, begin=2, end=9), None),
        (epochs(3), dict(type='LinearLR', begin=0, end=4, convert_to_iter_based=True), WARM_UP),
        (epochs(3), dict(type='mmdet.QuadraticWarmupLR', begin=0, end=5, convert_to_iter_based=True), WARM_UP),
        (epochs(3), dict(type='LinearLR', start_factor=1, end_factor=0, begin=0, end=9), None),
        (iterations(30), dict(type='LinearLR', by_epoch=False, begin=0, end=500), WARM_UP),
        (iterations(30), dict(type='LinearLR', by_epoch=False, begin=0, end=30), None),
        (iterations(30), dict(type='LinearLR', begin=0, end=4, convert_to_iter_based=True), WARM_UP),
        (iterations(30), dict(type='LinearLR', begin=0, end=2), IN_EPOCHS),
        (iterations(30), dict(type='PolyLR', power=0.9), IN_EPOCHS),
        (dict(by_epoch=False, max_iters=30), step(milestones=[2]), IN_EPOCHS),
        (dict(type=IterBasedTrainLoop, max_iters=30), step(milestones=[2]), IN_EPOCHS),
        (iterations(30), dict(type='ReduceOnPlateauLR', by_epoch=True), None),
        (epochs(12), step(milestones=[8, 11]), None),
        (epochs(12), step(milestones=[8, 12]), LATE),
        (epochs(6), dict(type=MultiStepLR, milestones=[8, 11]), LATE),
        (epochs(6), dict(type='MultiStepMomentum', milestones=[8, 11]), LATE),
        (epochs(6), step(milestones=[40, 59], by_epoch=False), None),
        (epochs(6), step(milestones=[40, 60], by_epoch=False), LATE),
        (iterations(60), step(milestones=[40, 60], by_epoch=False), LATE),
        (iterations(60), step(milestones=[3, 7], convert_to_iter_based=True), LATE),
        (epochs(6), dict(type='StepLR', step_size=6), LATE),
        (epochs(6), dict(type='StepLR', step_size=2), None),
        (epochs(6), dict(type='CosineAnnealingLR', T_max=6), None),
        (epochs(6), dict(type='CosineAnnealingLR', T_max=36), OTHER),
        (epochs(6), dict(type='CosineAnnealingLR', T_max=3), OTHER),
        (epochs(6), dict(type='CosineAnnealingLR', begin=3, T_max=3, end=6), None),
        (epochs(6), dict(type='CosineAnnealingLR', begin=6, T_max=3, end=9), OTHER),
        (epochs(6), dict(type='PolyLR', by_epoch=False, end=160_000), OTHER),
        (epochs(6), dict(type='PolyLR', by_epoch=False, end=60), None),
        (iterations(80), dict(type='PolyLR', by_epoch=False, begin=0, end=40), OTHER),
        (iterations(80), dict(type='PolyLR', by_epoch=False, begin=0, end=80), None),
        (iterations(80), dict(type='OneCycleLR', by_epoch=False, eta_max=1, total_steps=40), OTHER),
    ],
)  # fmt: skip
def test_schedules_against_the_length_of_the_training(loop, schedule, kind):
    for given, key in ((schedule, 'param_scheduler'), ([schedule], 'param_scheduler.0')):
        cases = findings(loop, given, val_dataloader=None)
        assert {case.where: case.kind for case in cases} == ({key: kind} if kind else {})
        assert all(case.fatal is (case.kind == IN_EPOCHS) for case in cases)


def test_schedules_that_follow_each_other_are_fine():
    """As YOLOX has them."""
    assert found(epochs(300), [
        dict(type='mmdet.QuadraticWarmupLR', begin=0, end=5, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', begin=5, T_max=285, end=285, convert_to_iter_based=True),
        dict(type='ConstantLR', factor=1, begin=285, end=300),
    ]) == {}  # fmt: skip


def test_a_finding_tells_both_lengths():
    [finding] = findings(epochs(1), dict(type='LinearLR', by_epoch=False, begin=0, end=500))
    assert 'LinearLR to 500 iterations, and training ends after 10' in str(finding)


def test_before_the_loader_is_built_nothing_is_said_of_iterations_in_epochs():
    cfg = Config(dict(train_cfg=epochs(1), param_scheduler=dict(type='LinearLR', by_epoch=False, end=500)))
    assert check(Run(cfg), 'model') == []


@pytest.mark.parametrize(
    ('loop', 'key'),
    [
        (epochs(0), 'max_epochs'),
        (epochs(2.5), 'max_epochs'),
        (epochs('3'), 'max_epochs'),
        (iterations(-1), 'max_iters'),
        (epochs(2, val_interval=0), 'val_interval'),
        (epochs(2, val_interval=None), 'val_interval'),
        (epochs(2, val_begin=None), 'val_begin'),
        (epochs('three'), 'max_epochs'),
        (iterations(30, val_interval='5'), 'val_interval'),
        (epochs(2.0), None),
    ],
)
def test_numbers_of_a_loop(loop, key):
    cfg = dict(train_cfg=loop, train_dataloader=dict(), val_dataloader=dict(batch_size=1))
    settle(
        Config(dict(cfg, default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1))))
    )  # leaves it to the rule
    run = Run(Config(cfg), ('train', 'val'))
    faults = [one.where for one in check(run, 'config') if one.fatal]
    assert faults == ([f'train_cfg.{key}'] if key else [])


@pytest.mark.parametrize(
    ('loop', 'key', 'part'),
    [
        (epochs(3, val_begin=4), 'val_begin', 'none takes place'),
        (iterations(30, val_begin=31), 'val_begin', 'none takes place'),
        (epochs(3, val_interval=5), 'val_interval', 'only then is one'),
        (iterations(30), 'val_interval', '1000, and training ends after 30 iterations'),
        (iterations(30, val_interval=1), 'val_interval', 'are these epochs?'),
        (epochs(3, val_begin=3), None, None),
        (epochs(3), None, None),
        (iterations(30, val_interval=30), None, None),
    ],
)
def test_validations_that_are_not_reached(loop, key, part):
    remarks = findings(loop)
    assert [one.where for one in remarks] == ([f'train_cfg.{key}'] if key else [])
    assert not part or part in str(remarks[0])
    assert found(loop, val_dataloader=None) == {}
    run = Run(Config(dict(train_cfg=loop, train_dataloader=dict())), ('train',), steps=dict(train=STEPS))
    assert check(run, 'config') == []


@pytest.mark.parametrize(
    ('loop', 'hook', 'part'),
    [
        (epochs(3), dict(interval=1), None),
        (epochs(3), dict(interval=3), None),
        (epochs(3), dict(interval=5), 'the first after 5 epochs of 3: one is written at the end alone'),
        (epochs(3), dict(interval=2, save_begin=2), 'the first after 4 epochs of 3'),
        (epochs(3), dict(interval=5, save_last=False), 'no run could go on'),
        (epochs(3), dict(max_keep_ckpts=2, save_last=False), 'none is due (interval=-1), and save_last=False'),
        (epochs(3), dict(interval=-1), None),
        (epochs(3), dict(interval=4000, by_epoch=False), 'the first after 4000 iterations of 30'),
        (epochs(3), dict(interval=20, by_epoch=False), None),
        (iterations(80), dict(interval=100, by_epoch=False), 'the first after 100 iterations of 80'),
        (iterations(80), dict(interval=40, by_epoch=False), None),
    ],
)
def test_checkpoints_that_are_not_written(loop, hook, part):
    hook = dict(type='vitdense.CheckpointHook', **hook)
    given = findings(loop | dict(val_interval=1 if 'max_epochs' in loop else 40), default_hooks=dict(checkpoint=hook))
    assert [one.where for one in given] == (['default_hooks.checkpoint.interval'] if part else [])
    assert not part or part in str(given[0])
    assert not any(one.fatal for one in given)


def test_a_schedule_that_lacks_its_argument_is_no_matter_of_its_length():
    assert found(epochs(3), dict(type='StepLR')) == found(epochs(3), dict(type='MultiStepLR')) == {}


NEVER, NOT_SWITCHED = 'average that never begins', 'pipeline that is never switched to'


@pytest.mark.parametrize(
    ('loop', 'hook', 'kind'),
    [
        (epochs(3), dict(type='EMAHook', begin_epoch=4), NEVER),
        (epochs(3), dict(type='EMAHook', begin_epoch=3), None),
        (epochs(3), dict(type=EMAHook, begin_iter=31), NEVER),
        (epochs(3), dict(type='EMAHook', begin_iter=30), None),
        (iterations(30), dict(type='EMAHook', begin_iter=31), NEVER),
        (iterations(30), dict(type='EMAHook', begin_iter=30), None),
        (iterations(30), dict(type='EMAHook', begin_epoch=2), NEVER),
        (epochs(3), dict(type='mmdet.PipelineSwitchHook', switch_epoch=3), NOT_SWITCHED),
        (epochs(3), dict(type='mmdet.PipelineSwitchHook', switch_epoch=2), None),
        (iterations(30), dict(type='mmdet.PipelineSwitchHook', switch_epoch=1), NOT_SWITCHED),
        (epochs(3), dict(type='mmdet.YOLOXModeSwitchHook', num_last_epochs=3), NOT_SWITCHED),
        (epochs(3), dict(type='mmdet.YOLOXModeSwitchHook', num_last_epochs=2), None),
        (epochs(10), dict(type='mmdet.YOLOXModeSwitchHook'), NOT_SWITCHED),
        (iterations(30), dict(type='mmdet.YOLOXModeSwitchHook', num_last_epochs=1), NOT_SWITCHED),
        (epochs(3), dict(type='mine.Hook', switch_epoch=9), None),
    ],
)
def test_hooks_that_begin_after_the_end(loop, hook, kind):
    given = {one.kind: one for one in findings(loop, custom_hooks=[hook]) if one.where.startswith('custom_hooks.0')}
    assert list(given) == ([kind] if kind else [])
    assert all(one.fatal == (kind == NEVER) for one in given.values()), 'mmengine stops for the average'
