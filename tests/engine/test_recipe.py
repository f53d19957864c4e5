"""What of a run is another than before: it is told, and where somebody accepts it, it takes effect."""

from contextlib import nullcontext

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from support.line import Toy, make, validation
from support.numbers_drawn import Numbers
from torch.optim import SGD

from vitdense.engine.hooks import CheckpointHook, ResultsHook
from vitdense.engine.hooks.results import read_rows
from vitdense.engine.recipe import differences, recipe_of, refusal
from vitdense.engine.runner import Runner

RECIPE = dict(
    model=dict(
        type='RetinaNet',
        backbone=dict(type='vitdense.PVTv2', arch='b0', init_cfg=dict(type='Pretrained', checkpoint='a.pth')),
        bbox_head=dict(type='mmdet.RetinaHead', num_classes=2, loss_cls=dict(type='FocalLoss', gamma=2.0)),
        test_cfg=dict(score_thr=0.05),
    ),
    train_dataloader=dict(
        batch_size=2,
        num_workers=2,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(
            type='CocoDataset',
            data_root='/data/coco/',
            ann_file='/data/coco/train.json',
            data_prefix=dict(img='images'),
            pipeline=[dict(type='LoadImageFromFile', backend_args=None), dict(type='Resize', scale=(1333, 800))],
        ),
    ),
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4), clip_grad=dict(max_norm=1.0)),
    param_scheduler=[dict(type='LinearLR', start_factor=0.1, end=5), dict(type='MultiStepLR', milestones=[8, 11])],
    train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1),
    custom_hooks=[dict(type='NumClassCheckHook'), dict(type='EMAHook', momentum=0.1)],
)


def changed(processes: int = 1, images: int | None = 8, **settings) -> dict[str, list[str]]:
    cfg = Config(RECIPE)
    cfg.merge_from_dict(settings)
    return differences(recipe_of(Config(RECIPE), 1, 8), recipe_of(cfg, processes, images))


@pytest.mark.parametrize(
    ('settings', 'subject', 'line'),
    [
        ({'model.backbone.arch': 'b1'}, 'architecture', 'model.backbone.arch: b0 -> b1'),
        ({'model.bbox_head.loss_cls.gamma': 1.0}, 'architecture', 'model.bbox_head.loss_cls.gamma: 2.0 -> 1.0'),
        ({'train_dataloader.batch_size': 4}, 'batch', 'train_dataloader.batch_size: 2 -> 4'),
        ({'processes': 2}, 'batch', 'processes: 1 -> 2'),
        ({'custom_hooks.1.momentum': 0.2}, 'hooks', 'hooks.EMAHook.momentum: 0.1 -> 0.2'),
        (
            {'custom_hooks.1.type': EMAHook, 'custom_hooks.1.momentum': 0.2},
            'hooks',
            'hooks.EMAHook.momentum: 0.1 -> 0.2',
        ),
        ({'optim_wrapper.accumulative_counts': 2}, 'batch', 'optim_wrapper.accumulative_counts: 1 -> 2'),
        ({'optim_wrapper.optimizer.type': SGD}, 'optimizer', 'optim_wrapper.optimizer.type: AdamW -> SGD'),
        ({'optim_wrapper.clip_grad': None}, 'optimizer', 'optim_wrapper.clip_grad.max_norm: 1.0 -> (absent)'),
        ({'optim_wrapper.optimizer.lr': 1e-3}, 'learning rate', 'optim_wrapper.optimizer.lr: 0.0001 -> 0.001'),
        ({'train_cfg.max_epochs': 24}, 'schedule', 'train_cfg.max_epochs: 12 -> 24'),
        ({'param_scheduler.1.milestones': [9]}, 'schedule', 'param_scheduler.1.milestones: [8, 11] -> [9]'),
        ({'train_dataloader.dataset.ann_file': 'half.json'}, 'data', 'ann_file: train.json -> half.json'),
        ({'train_dataloader.dataset.pipeline.1.scale': (640, 640)}, 'data', 'scale: [1333, 800] -> [640, 640]'),
        ({'train_dataloader.sampler.shuffle': False}, 'data', 'train_dataloader.sampler.shuffle: True -> False'),
        ({'images': 4}, 'data', 'training images: 8 -> 4'),
    ],
)
def test_what_matters(settings, subject, line):
    found = changed(**settings)
    assert line in found[subject][-1] or line in found[subject][0]
    assert set(found) == {subject}
    message = refusal('last.pth', found)
    assert message.startswith('--resume: last.pth was trained with other settings:\n')
    assert line in message
    assert message.endswith('--accept-changes goes on with the new ones')


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'model.backbone.init_cfg': None},
        {'model.test_cfg.score_thr': 0.5},
        {'train_dataloader.num_workers': 8},
        {'train_dataloader.dataset.data_root': '/elsewhere/coco/'},
        {'train_dataloader.dataset.ann_file': '/elsewhere/train.json'},
        {'train_dataloader.dataset.type': CocoDataset},
        {'optim_wrapper.type': OptimWrapper},
        {'model.backbone.type': 'PVTv2'},
        {'train_cfg.val_interval': 3},
        {'work_dir': 'x', 'default_hooks.checkpoint.interval': 3},
        {'images': None},
    ],
)
def test_what_does_not(settings):
    assert changed(**settings) == {}


def test_a_recipe_is_plain_data(tmp_path):
    """It can be read without running code, and is what it was."""
    recipe = recipe_of(Config(RECIPE), 2, 8)
    torch.save(recipe, tmp_path / 'x.pth')
    assert torch.load(tmp_path / 'x.pth', weights_only=True) == recipe


@pytest.mark.parametrize('before', [{}, None, 'x', {'batch': 3}, {'batch': {}, 'other': {'a': 1}}])
def test_a_checkpoint_without_a_recipe(before):
    """Of a release before, or of somebody else."""
    assert set(differences(before, recipe_of(Config(RECIPE), 1))) <= {'batch'}


def test_values_of_a_file_do_not_reach_the_terminal():
    hostile = {'schedule': {'train_cfg.max_epochs': '\x1b]0;evil\x07\n12'}}
    [line] = [line for line in differences(hostile, recipe_of(Config(RECIPE), 1))['schedule'] if 'max_epochs' in line]
    assert line == r'train_cfg.max_epochs: \x1b]0;evil\x07\n12 -> 12'


class Rates(Hook):
    """Keeps the learning rates of the steps."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.seen.append(next(iter(runner.optim_wrapper.get_lr().values()))[0])


SCHEDULES = [
    [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4)],
    [dict(type='MultiStepLR', by_epoch=True, milestones=[1, 3], gamma=0.1)],
    [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=0, T_max=4),
    ],
    [],
]


def trained(folder, cfg: dict, accept: bool = False, **overrides) -> tuple[Runner, list[float]]:
    """A run of 3 steps an epoch with settings of ``cfg``, and its learning rates."""
    rates = Rates()
    settings = dict(
        train_cfg=dict(by_epoch=True, max_epochs=4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=[],
    )
    settings |= cfg
    hooks = dict(checkpoint=CheckpointHook(interval=2))
    described = Config(settings)
    runner = make(Runner, folder, Toy(), hooks, custom_hooks=[rates], cfg=described, **settings, **overrides)
    runner.accept_changes = accept
    runner.train()
    return runner, rates.seen


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('change', ['rate', 'schedule'])
def test_accepted_rates_are_those_of_a_run_that_always_had_them(schedule, change, tmp_path):
    new = dict(param_scheduler=schedule)
    new |= (
        dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.5, momentum=0.8)))
        if change == 'rate'
        else dict(train_cfg=dict(by_epoch=True, max_epochs=5))
    )
    trained(tmp_path / 'old', dict(param_scheduler=schedule))
    last = str(tmp_path / 'old/epoch_2.pth')
    with pytest.raises(ValueError, match='--accept-changes goes on with the new ones'):
        trained(tmp_path / 'old', new, resume=True, load_from=last)
    runner, rates = trained(tmp_path / 'old', new, True, resume=True, load_from=last)
    _, whole = trained(tmp_path / 'new', new)
    assert rates == pytest.approx(whole[6:], rel=1e-12)
    assert runner.optim_wrapper.param_groups[0]['momentum'] == (0.8 if change == 'rate' else 0.9)


def test_an_optimizer_of_another_kind_begins_anew(tmp_path):
    trained(tmp_path, {})
    new = dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)))
    last = str(tmp_path / 'epoch_2.pth')
    runner, rates = trained(tmp_path, new, True, resume=True, load_from=last)
    assert runner.optim_wrapper.optimizer.state_dict()['state'][0]['step'] == len(rates) == 6


class Both(OptimWrapperDict):
    """All optimizers take a step for the same loss."""

    def optim_context(self, model):
        return nullcontext()

    def update_params(self, loss) -> None:
        loss.backward()
        for wrapper in self.values():
            wrapper.step()
            wrapper.zero_grad()


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TwoOptimizers(DefaultOptimWrapperConstructor):
    """One for the weight, one for the bias."""

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.lr = optim_wrapper_cfg['optimizer']['lr']

    def __call__(self, model) -> Both:
        parts = dict(weight=[model.line.weight], bias=[model.line.bias])
        return Both(**{name: OptimWrapper(SGD(part, self.lr)) for name, part in parts.items()})


@pytest.mark.parametrize('first', ['one', 'two'])
def test_two_optimizers_instead_of_one(first, tmp_path):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
    one = dict(optim_wrapper=wrapper, param_scheduler=SCHEDULES[1])
    two = dict(optim_wrapper=dict(wrapper, constructor='TwoOptimizers'), param_scheduler=SCHEDULES[1])
    before, after = (one, two) if first == 'one' else (two, one)
    trained(tmp_path, before)
    last = str(tmp_path / 'epoch_2.pth')
    with pytest.raises(ValueError, match=r'optim_wrapper\.constructor'):
        trained(tmp_path, after, resume=True, load_from=last)
    runner, _ = trained(tmp_path, after, True, resume=True, load_from=last)
    assert runner.iter == 12
    rate = runner.optim_wrapper.get_lr()
    assert [value[0] for value in rate.values()] == pytest.approx([1e-4] * len(rate))


def test_a_larger_batch_goes_on_with_the_epoch(tmp_path):
    trained(tmp_path, {})
    loader = dict(batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    last = str(tmp_path / 'epoch_2.pth')
    before = torch.load(last, weights_only=True)['meta']
    assert (before['epoch'], before['iter']) == (2, 6)
    runner = make(
        Runner, tmp_path, Toy(), dict(checkpoint=CheckpointHook(interval=1)), resume=True, load_from=last,
        train_dataloader=dict(loader, dataset=Numbers()), train_cfg=dict(by_epoch=True, max_epochs=4),
        cfg=Config(dict(train_dataloader=dict(batch_size=3))),
    )  # fmt: skip
    runner.accept_changes = True
    runner.train()
    assert (runner.epoch, runner.iter) == (4, 8)


def test_results_of_a_larger_batch_have_a_row_for_each_epoch(tmp_path):
    """A step of the present batch is another one; a row was known by its number."""
    best = dict(save_best='score', rule='greater')  # which makes a checkpoint that the validation is in
    kept = dict(checkpoint=CheckpointHook(interval=1, **best), results=ResultsHook())
    make(Runner, tmp_path, Toy(), kept, cfg=Config(dict(train_dataloader=dict(batch_size=2))), **validation(2)).train()
    rows = read_rows(tmp_path / 'results.csv')
    assert [(row['epoch'], row['iter'], row.get('val/score')) for row in rows] == [
        (1, 3, None),
        (2, 6, 0.5),
        (3, 9, 0.5),
    ]
    loader = dict(batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Numbers())
    runner = make(
        Runner, tmp_path, Toy(), kept, resume=True, load_from=str(tmp_path / 'epoch_2.pth'),
        cfg=Config(dict(train_dataloader=dict(batch_size=3))), **{**validation(2), 'train_dataloader': loader},
    )  # fmt: skip
    runner.accept_changes = True
    validated = Counted()
    runner.register_hook(validated)
    runner.train()
    rows = read_rows(tmp_path / 'results.csv')
    assert [(row['epoch'], row['iter'], row.get('val/score')) for row in rows] == [
        (1, 2, None),
        (2, 4, 0.5),
        (3, 6, 0.5),
    ]
    assert validated.after == [6], 'the validation of epoch 2 was before'


class Counted(Hook):
    """Iterations after which a validation began."""

    def __init__(self) -> None:
        self.after: list[int] = []

    def before_val(self, runner) -> None:
        self.after.append(runner.iter)


def test_weights_that_are_no_longer_averaged_are_those_of_the_training(tmp_path):
    """A checkpoint has the average where others have the weights."""
    states = {}
    for name, hooks in (('average', [EMAHook(momentum=0.5)]), ('none', [])):
        torch.manual_seed(0)
        kept = dict(checkpoint=CheckpointHook(interval=1))
        make(Runner, tmp_path / name, Toy(), kept, custom_hooks=hooks).train()
        last = str(tmp_path / name / 'epoch_2.pth')
        runner = make(Runner, tmp_path / name, Toy(), dict(kept), resume=True, load_from=last)
        runner.train()
        states[name] = runner.model.state_dict()
        assert 'ema_state_dict' not in torch.load(tmp_path / name / 'last.pth', weights_only=True)
    assert all(torch.equal(value, states['none'][key]) for key, value in states['average'].items())


PLATEAU = dict(type='ReduceOnPlateauLR', monitor='score', patience=0, factor=0.5, rule='greater')


def test_what_a_plateau_has_reduced_stays_reduced(tmp_path):
    """A longer training begins its schedules anew; this one cannot be computed without the metrics."""

    validates = validation()
    del validates['train_cfg']

    def train(epochs: int, lr: float, **overrides) -> list[float]:
        settings = dict(
            train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr)),
            param_scheduler=[SCHEDULES[0][0], PLATEAU],
        )
        return trained(tmp_path, settings, True, **validates, **overrides)[1]

    whole = train(6, 0.01)
    assert whole[-1] < 0.2 * whole[4], 'it is reduced'
    last = dict(resume=True, load_from=str(tmp_path / 'epoch_4.pth'))
    assert train(7, 0.01, **last)[:6] == pytest.approx(whole[12:], rel=1e-12)
    assert train(6, 0.03, **last) == pytest.approx([3 * rate for rate in whole[12:]], rel=1e-12)


@pytest.mark.parametrize(('before', 'after'), [(0, 3), (3, 0), (1, 2), (2, 1), (1, 3)])
def test_schedules_of_another_kind_and_number(before, after, tmp_path):
    several = [*SCHEDULES[:3], [PLATEAU]]
    validates = validation()
    loop = validates.pop('train_cfg') | dict(max_epochs=4)
    old, new = (dict(train_cfg=loop, param_scheduler=several[number]) for number in (before, after))
    trained(tmp_path, old, **validates)
    last = str(tmp_path / 'epoch_2.pth')
    _, rates = trained(tmp_path, new, True, resume=True, load_from=last, **validates)
    _, whole = trained(tmp_path / 'new', new, **validates)
    if after < 3 or before == 3:
        assert rates == pytest.approx(whole[6:], rel=1e-12)
    else:
        assert rates[:3] == pytest.approx([0.01] * 3, rel=1e-12), 'it has seen no metrics yet'


def test_a_run_that_is_complete_says_so(tmp_path, capsys):
    trained(tmp_path, {})
    capsys.readouterr()
    _, rates = trained(tmp_path, {}, resume=True, load_from=str(tmp_path / 'last.pth'))
    assert rates == []
    assert '--resume: the run is complete (epoch 4/4), nothing is left to train' in capsys.readouterr().out


def test_the_best_checkpoint_has_no_optimizer_and_is_refused(tmp_path):
    trained(tmp_path, {})
    content = torch.load(tmp_path / 'last.pth', weights_only=True)
    del content['optimizer']
    torch.save(content, tmp_path / 'best.pth')
    with pytest.raises(ValueError, match=r'best\.pth holds no state of the optimizer.*--resume .*last\.pth goes on'):
        trained(tmp_path, {}, resume=True, load_from=str(tmp_path / 'best.pth'))
