"""Configs that lack a part, or are of an earlier mmdet or mmseg."""

import pytest
from mmengine.config import Config

from vitdense.checks import Run, check
from vitdense.config.runtime import use_runtime
from vitdense.config.settle import settle

LOADER = dict(batch_size=1, sampler=dict(type='DefaultSampler'), dataset=dict(type='CocoDataset'))
WHOLE = dict(
    default_scope='mmdet',
    model=dict(type='RetinaNet'),
    train_dataloader=LOADER,
    train_cfg=dict(by_epoch=True, max_epochs=1),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    val_dataloader=LOADER,
    val_cfg=dict(),
    val_evaluator=dict(type='CocoMetric'),
    test_dataloader=LOADER,
    test_cfg=dict(),
    test_evaluator=[dict(type='CocoMetric'), dict(metrics=[dict(type='CocoMetric')])],
)
TRAIN = {key: WHOLE[key] for key in ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')}
SPLITS = [('train', 'val'), ('test',), ('train',)]


def found(cfg: dict, splits: tuple[str, ...] = ('train', 'val')) -> str:
    """All that is said, one line each; the tools' own preparation of a config comes first and must not fail."""
    config = Config(cfg)
    use_runtime(config)
    settle(config)
    findings = check(Run(config, splits), 'parts')
    assert all(finding.fatal for finding in findings)
    return '\n'.join(map(str, findings))


@pytest.mark.parametrize('splits', SPLITS)
def test_a_whole_config_has_all_parts(splits):
    assert found(WHOLE, splits) == ''


def test_a_config_that_only_trains_is_one():
    assert found(TRAIN) == ''
    assert 'no test_dataloader, test_cfg, test_evaluator' in found(TRAIN, ('test',))
    assert found(dict(model=WHOLE['model']), ()) == '', 'all that counting FLOPs needs'


@pytest.mark.parametrize('splits', SPLITS)
@pytest.mark.parametrize('part', sorted(set(WHOLE) - {'default_scope'}))
@pytest.mark.parametrize('value', [None, ..., 'text', 7])
def test_each_part_that_is_missing_is_named(splits, part, value):
    cfg = {key: node for key, node in WHOLE.items() if key != part} | ({part: value} if value is not ... else {})
    said = found(cfg, splits)
    assert said.startswith('missing part: ')
    assert (f'no {part}' if value in (None, ...) else f'{part}: {value!r}; expected a dict') in said


@pytest.mark.parametrize('splits', SPLITS)
@pytest.mark.parametrize('cfg', [{}, dict(model=None), dict(classes=('a',)), dict(default_scope='mmdet')])
def test_no_config_at_all(cfg, splits):
    said = found(cfg, splits)
    assert f'config: no model, {splits[0]}_dataloader, ' in said


def test_a_part_of_a_config_is_told_where_it_belongs():
    assert 'no train_dataloader, train_cfg, optim_wrapper;' in found(dict(model=WHOLE['model']))
    assert 'belongs into _base_ of one that has the rest' in found(dict(model=WHOLE['model']))


def test_a_test_without_a_test_set_is_told_of_the_validation():
    cfg = {key: node for key, node in WHOLE.items() if not key.startswith('test')}
    assert 'test_dataloader = val_dataloader' in found(cfg, ('test',))


@pytest.mark.parametrize(
    ('part', 'node', 'said'),
    [
        ('model', dict(backbone=dict(type='ResNet')), 'model: no type'),
        ('train_cfg', dict(max_epochs=1), 'train_cfg: no type and no by_epoch; expected type='),
        ('train_cfg', dict(max_iters=1), 'train_cfg: no type and no by_epoch'),
        ('train_cfg', dict(by_epoch=True), 'train_cfg: no max_epochs'),
        ('train_cfg', dict(type='IterBasedTrainLoop', max_epochs=2), 'train_cfg: no max_iters'),
        ('train_cfg', dict(type='EpochBasedTrainLoop', by_epoch=True, max_epochs=2), 'both type and by_epoch'),
        ('train_cfg', dict(type='mine.Loop'), ''),
        ('train_dataloader', dict(LOADER, dataset=None), 'train_dataloader: no dataset'),
        ('train_dataloader', dict(LOADER, dataset=dict(ann_file='a.json')), 'train_dataloader.dataset: no type'),
        ('train_dataloader', dict(LOADER, sampler=dict(shuffle=True)), 'train_dataloader.sampler: no type'),
        ('train_dataloader', dict(LOADER, sampler=None), ''),
        ('test_dataloader', dict(batch_size=1), 'test_dataloader: no dataset'),
        ('optim_wrapper', dict(type='OptimWrapper'), 'optim_wrapper: no optimizer'),
        ('optim_wrapper', dict(optimizer=dict(lr=0.1)), 'optim_wrapper.optimizer: no type'),
        ('optim_wrapper', dict(constructor='mine.Two', a=dict(), b=dict()), ''),
        ('val_evaluator', dict(metric='bbox'), 'val_evaluator: no type'),
        ('val_evaluator', [dict(type='CocoMetric'), dict(metric='bbox')], 'val_evaluator: no type'),
    ],
)
def test_half_of_a_part(part, node, said):
    assert (said in found(WHOLE | {part: node})) if said else found(WHOLE | {part: node}) == ''


OLD = dict(
    model=dict(type='RetinaNet'),
    data=dict(samples_per_gpu=2, train=dict(type='CocoDataset'), val=dict(type='CocoDataset')),
    evaluation=dict(interval=1, metric='bbox'),
    optimizer=dict(type='SGD', lr=0.01),
    optimizer_config=dict(grad_clip=None),
    lr_config=dict(policy='step', step=[8, 11]),
    runner=dict(type='EpochBasedRunner', max_epochs=1),
    checkpoint_config=dict(interval=1),
    workflow=[('train', 1)],
)


@pytest.mark.parametrize('splits', [*SPLITS, ()])
def test_a_config_of_mmdet_2_is_called_one_and_nothing_else_is_said(splits):
    said = found(OLD, splits)
    assert said.startswith('config of mmdet 2.x or mmseg 0.x: data, runner, optimizer')
    for moved in ('data -> train_dataloader', 'lr_config -> param_scheduler', 'runner -> train_cfg'):
        assert moved in said
    assert 'missing part' not in said
    assert 'https://mmdetection.readthedocs.io' in said


@pytest.mark.parametrize('key', ['lr_config', 'runner', 'data', 'evaluation', 'optimizer', 'resume_from'])
def test_a_key_of_mmdet_2_that_was_left_behind_is_not_ignored(key):
    new = {'lr_config': 'param_scheduler', 'runner': 'train_cfg', 'data': 'train_dataloader'}
    new |= {'evaluation': 'val_evaluator', 'optimizer': 'optim_wrapper', 'resume_from': 'resume'}
    cfg = {name: node for name, node in WHOLE.items() if name != new[key]} | {key: OLD.get(key, 'run/last.pth')}
    assert found(cfg).startswith(f'config of mmdet 2.x or mmseg 0.x: {key}: ')


@pytest.mark.parametrize('key', ['optimizer', 'data', 'runner', 'evaluation'])
def test_variables_of_these_names_are_fine_in_a_config_of_today(key):
    """mmseg writes ``optim_wrapper = dict(optimizer=optimizer)``."""
    assert found(WHOLE | {key: OLD[key]}) == ''


@pytest.mark.parametrize(
    ('loader', 'key'),
    [
        (dict(LOADER, samples_per_gpu=2), 'train_dataloader.samples_per_gpu: an argument of that time, now batch_size'),
        (dict(LOADER, dataset=dict(type='CocoDataset', img_prefix='a')), 'train_dataloader.dataset.img_prefix'),
        (
            dict(LOADER, dataset=dict(type='X', pipeline=[dict(type='RandomFlip', flip_ratio=0.5)])),
            'train_dataloader.dataset.pipeline.0.flip_ratio: an argument of that time, now prob',
        ),
    ],
)
def test_arguments_of_mmdet_2_in_a_config_of_today(loader, key):
    assert key in found(WHOLE | dict(train_dataloader=loader))


@pytest.mark.parametrize(
    ('scope', 'nearest'), [('mmdetection', 'mmdet'), ('mmsegmentation', 'mmseg'), ('a b', 'mmdet')]
)
def test_a_scope_that_is_no_package(scope, nearest):
    said = found(WHOLE | dict(default_scope=scope))
    assert f'unknown default_scope: default_scope: {scope!r}' in said
    assert f'--cfg-options default_scope={nearest}' in said or scope == 'a b'


@pytest.mark.parametrize(
    ('key', 'value', 'found_at'),
    [
        ('optim_wrapper', dict(optimizer=dict(type='SGD', lr='1e-4')), 'optim_wrapper.optimizer.lr'),
        ('param_scheduler', [dict(type='LinearLR', end='500')], 'param_scheduler.0.end'),
        ('train_cfg', dict(by_epoch=True, max_epochs='12'), 'train_cfg.max_epochs'),
    ],
)
def test_numbers_that_a_file_has_as_text(key, value, found_at):
    """PyYAML reads ``1e-4`` as text."""
    assert f'number as text: {found_at}: ' in found(WHOLE | {key: value})


def weights(cfg: dict, splits: tuple[str, ...] = ('train',)) -> list[str]:
    return [
        case.where for case in check(Run(Config(WHOLE | cfg), splits), 'config') if case.kind == 'missing checkpoint'
    ]


def test_weights_that_are_not_there(tmp_path):
    there = tmp_path / 'there.pth'
    there.touch()
    assert weights(dict(load_from=str(there))) == []
    assert weights(dict(load_from=str(tmp_path / 'gone.pth'))) == ['load_from']
    assert weights(dict(load_from=str(tmp_path / 'gone.pth')), ('test',)) == ['load_from']
    for init, key in (
        (dict(type='Pretrained', checkpoint='gone.pth'), 'model.backbone.init_cfg.checkpoint'),
        ([dict(type='vitdense.Pretrained', checkpoint='gone.pth')], 'model.backbone.init_cfg.0.checkpoint'),
    ):
        model = dict(type='RetinaNet', backbone=dict(type='X', init_cfg=init))
        assert weights(dict(model=model)) == [key]
        assert weights(dict(model=model), ('test',)) == [], 'a test loads the whole model'
    assert weights(dict(model=dict(type='EncoderDecoder', pretrained='gone.pth'))) == ['model.pretrained']
    findings = check(Run(Config(WHOLE | dict(load_from=f'{tmp_path}/ther.pth'))), 'config')
    [finding] = [one for one in findings if one.kind == 'missing checkpoint']
    assert 'there.pth' in str(finding), 'what is beside it'


@pytest.mark.parametrize(
    'name', ['torchvision://resnet50', 'open-mmlab://resnet50_v1c', 'https://a.org/b.pth', 'pvt_v2_b0', None, True]
)
def test_weights_that_are_fetched_are_not_looked_for(name):
    init = dict(type='Pretrained', checkpoint=name)
    assert weights(dict(model=dict(type='X', pretrained=name, backbone=dict(init_cfg=init)))) == []
