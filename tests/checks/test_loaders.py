"""Loaders that give what their loops take."""

import pytest
from mmdet.datasets.samplers import MultiDataSampler
from mmdet.datasets.transforms import CachedMosaic
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader

from vitdense.checks import Run, check

EPOCHS, ITERATIONS = dict(by_epoch=True, max_epochs=2), dict(type='IterBasedTrainLoop', max_iters=9)


class Forever(InfiniteSampler):
    """Of a user, in a Python-style config."""


def found(loader: dict, split: str = 'train', loop: dict = EPOCHS, **run) -> dict[str, str]:
    cfg = Config({f'{split}_dataloader': loader, 'train_cfg': loop})
    findings = check(Run(cfg, (split,), **run), 'model' if 'steps' in run else 'config')
    assert all(finding.fatal for finding in findings)
    return {finding.where: finding.kind for finding in findings}


@pytest.mark.parametrize('endless', ['InfiniteSampler', 'mmengine.InfiniteSampler', InfiniteSampler, Forever])
def test_an_epoch_and_an_evaluation_need_a_sampler_that_ends(endless):
    loader = dict(sampler=dict(type=endless))
    assert found(loader) == {'train_dataloader.sampler': 'endless sampler'}
    assert found(loader, loop=ITERATIONS) == {}
    for split in ('val', 'test'):
        assert found(loader, split, ITERATIONS) == {f'{split}_dataloader.sampler': 'endless sampler'}
    batches = dict(sampler=dict(type=DefaultSampler), batch_sampler=dict(type=endless))
    assert found(batches) == {'train_dataloader.batch_sampler': 'endless sampler'}


@pytest.mark.parametrize('mosaic', ['CachedMosaic', 'mmdet.CachedMosaic', CachedMosaic])
@pytest.mark.parametrize('nested', [False, True])
def test_a_transform_with_a_memory_is_remarked(mosaic, nested):
    transforms = [dict(type='LoadImageFromFile'), dict(type=mosaic)]
    where = 'train_dataloader.dataset.pipeline.1'
    if nested:
        transforms = [dict(type='RandomApply', transforms=transforms)]
        where = 'train_dataloader.dataset.pipeline.0.transforms.1'
    cfg = Config(dict(train_dataloader=dict(dataset=dict(pipeline=transforms)), train_cfg=EPOCHS))
    [remark] = [one for one in check(Run(cfg, ('train',)), 'config') if one.kind == 'transform with a memory']
    assert (remark.where, remark.fatal) == (f'{where}.type', False)


def test_mosaics_of_a_data_set_have_no_memory():
    dataset = dict(type='MultiImageMixDataset', dataset=dict(pipeline=[]), pipeline=[dict(type='Mosaic')])
    cfg = Config(dict(train_dataloader=dict(dataset=dataset), train_cfg=EPOCHS))
    assert 'transform with a memory' not in {one.kind for one in check(Run(cfg, ('train',)), 'config')}


@pytest.mark.parametrize('ending', ['DefaultSampler', DefaultSampler, MultiDataSampler])
def test_samplers_that_end_are_fine(ending):
    assert found(dict(sampler=dict(type=ending), batch_sampler=dict(type='AspectRatioBatchSampler'))) == {}


@pytest.mark.parametrize(
    ('loader', 'wrong'),
    [
        (dict(batch_size=0), 'batch_size'),
        (dict(batch_size=-2), 'batch_size'),
        (dict(batch_size='8'), 'batch_size'),
        (dict(batch_size=2.0), 'batch_size'),
        (dict(batch_size=None), 'batch_size'),
        (dict(num_workers=-1), 'num_workers'),
        (dict(num_workers=1, prefetch_factor=0), 'prefetch_factor'),
        (dict(num_workers=1, timeout=-1), 'timeout'),
        (dict(num_workers=True), 'num_workers'),
        (dict(batch_size=None, batch_sampler=dict(type='mine.Batches')), None),
        (dict(batch_size=1, num_workers=0), None),
        ({}, None),
    ],
)
def test_numbers_that_no_loader_takes(loader, wrong):
    assert found(loader) == ({f'train_dataloader.{wrong}': 'number of a loader'} if wrong else {})


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_a_loader_without_a_batch(split):
    loader = dict(batch_size=16, drop_last=True)
    assert found(loader, split, steps={split: 0}) == {f'{split}_dataloader': 'loader without a batch'}
    assert found(loader, split, steps={split: 1}) == {}
    endless = dict(loader, sampler=dict(type='InfiniteSampler'))
    cfg = Config({f'{split}_dataloader': endless})
    assert check(Run(cfg, (split,), steps={split: 0}), 'model') == [], 'its length is no number of batches'
    cfg = Config({f'{split}_dataloader': loader})
    [finding] = check(Run(cfg, (split,), steps={split: 0}, processes=4), 'model')
    assert '0 steps in batches of 16 in each of 4 processes, drop_last=True' in str(finding)
    assert f'--cfg-options {split}_dataloader.drop_last=False' in str(finding)


@pytest.mark.parametrize(
    ('sampler', 'where'),
    [
        (None, 'train_dataloader'),
        (dict(type='DefaultSampler', shuffle=False), 'train_dataloader.sampler.shuffle'),
        (dict(type=InfiniteSampler, shuffle=False), 'train_dataloader.sampler.shuffle'),
        (dict(type='DefaultSampler', shuffle=True), None),
        (dict(type='DefaultSampler'), None),
        (dict(type='ClassAwareSampler'), None),
    ],
)
def test_training_data_in_one_order_are_a_remark(sampler, where):
    loader = dict(dataset=dict(type='CocoDataset'), sampler=sampler)
    run = Run(Config(dict(train_dataloader=loader, val_dataloader=loader, train_cfg=ITERATIONS)))
    remarks = [finding for finding in check(run, 'config') if finding.kind == 'training data in one order']
    assert [(remark.where, remark.fatal) for remark in remarks] == ([(where, False)] if where else [])


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'mmengine.DefaultSampler', DefaultSampler, 'InfiniteSampler'])
@pytest.mark.parametrize('loop', [EPOCHS, ITERATIONS])
def test_a_sampler_that_ends_in_a_loop_of_iterations_is_a_remark(sampler, loop):
    loader = dict(dataset=dict(type='CocoDataset'), sampler=dict(type=sampler))
    run = Run(Config(dict(train_dataloader=loader, val_dataloader=loader, train_cfg=loop)))
    kinds = {finding.kind for finding in check(run, 'config') if finding.where == 'train_dataloader.sampler'}
    ends = sampler != 'InfiniteSampler'
    expected = {'sampler that ends in a loop of iterations'} if ends and loop == ITERATIONS else set()
    assert kinds == (expected if ends or loop == ITERATIONS else {'endless sampler'})


@pytest.mark.parametrize('setting', ['drop_last', 'shuffle'])
def test_what_pytorch_refuses_beside_a_batch_sampler(setting):
    with pytest.raises(ValueError, match='mutually exclusive'):
        DataLoader([1], batch_sampler=[[0]], **{setting: True})
    loader = dict(batch_sampler=dict(type='AspectRatioBatchSampler'))
    assert found(loader | {setting: True}) == {f'train_dataloader.{setting}': 'setting beside a batch sampler'}
    assert found(loader | {setting: False}) == found({setting: True}) == {}
