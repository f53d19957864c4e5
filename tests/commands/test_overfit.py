"""Learning a few images by heart: the images, what is switched off, the verdict."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmcv.cnn.bricks import drop as mmcv_drop
from mmdet.models.backbones import PyramidVisionTransformerV2, SwinTransformer
from mmdet.models.layers import DropBlock
from mmdet.models.utils.vlfuse_helper import BiMultiHeadAttention
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.registry import TRANSFORMS
from support import CONFIGS
from support.layouts import model_of
from torch import nn

from vitdense import commands
from vitdense.commands import parser_of
from vitdense.commands.overfit import (
    choose_images,
    overfit_config,
    plain_pipeline,
    without_dropout,
)
from vitdense.commands.overfit_hints import Evaluation, hints
from vitdense.config.load import load_config
from vitdense.datasets import ShapesSpec, ensure_shapes
from vitdense.models import backbones, heads

DETR = CONFIGS / 'detr/detr_pvtv2-b0_shapes.py'
CLASSES = ('circle', 'cross', 'square', 'star', 'triangle')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    """64 images, two of which (31 and 63) have no objects."""
    root = tmp_path_factory.mktemp('shapes') / 'data'
    ensure_shapes(root, ShapesSpec(num_train=64, num_val=2))
    return root


def tool(shapes: Path, home: Path, *extra: str, config: Path = DETR, options: tuple[str, ...] = ()) -> list[str]:
    data = (f'data_root={shapes}', 'num_train=64', 'num_val=2')
    splits = ('train', 'val')
    settings = [f'{split}_dataloader.dataset.{key}' for split in splits for key in data]
    settings += [f'val_evaluator.ann_file={shapes}/annotations/instances_val.json', *options]
    fixed = ('--no-pretrained', '--work-dir', str(home / 'run'), '--check', 'off')
    return [str(config), *fixed, *extra, '--cfg-options', *settings]


def run(*args, **kwargs) -> bool:
    return not commands.run('overfit', parser_of('overfit').parse_args(tool(*args, **kwargs)))


@pytest.mark.slow
def test_a_detr_learns_four_images_by_heart(shapes, tmp_path, capsys):
    assert run(shapes, tmp_path, '--images', '4', '--target', '0.1', '--steps', '400', '--lr', '1e-3')
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith('PASSED: mAP 0.')
    evaluations = [line.split() for line in lines if line.startswith('step ')]
    assert [int(words[1]) for words in evaluations] == list(range(50, 50 * len(evaluations) + 1, 50))
    assert [float(words[5]) >= 0.1 for words in evaluations] == [False] * (len(evaluations) - 1) + [True]
    names = next(line for line in lines if line.startswith('images ')).split(': ')[1].split(', ')
    assert len(set(names)) == 4
    assert list((tmp_path / 'run').glob('val_iter_*.jpg'))
    written = Config.fromfile(next((tmp_path / 'run').glob('*.py')))
    assert written.train_dataloader.dataset == written.val_dataloader.dataset
    assert not list((tmp_path / 'run').glob('*.pth')), 'nobody needs a model of four images'


@pytest.mark.slow
def test_failing_says_what_to_look_at_and_leaves_an_earlier_run_alone(shapes, tmp_path, capsys):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/mine.txt').write_text('mine')
    few = ('model.bbox_head.num_queries=2',)
    assert not run(shapes, tmp_path, '--images', '3', '--steps', '4', options=few)
    text = capsys.readouterr().out
    assert 'FAILED: mAP 0.95 was not reached in 4 steps' in text
    assert '- an image has' in text
    assert 'the number of queries (bbox_head.query_embed) is 2' in text
    assert [path.name for path in (tmp_path / 'run').iterdir()] == ['mine.txt']
    assert (tmp_path / 'run_run2').is_dir()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_a_failure_with_its_terms(shapes, tmp_path, capsys):
    assert not run(shapes, tmp_path, '--images', '2', '--steps', '30', options=('model.bbox_head.loss_l1=inf',))
    text = capsys.readouterr().out
    assert 'FAILED' in text
    assert 'loss_bbox is inf' in text


@pytest.mark.slow
def test_out_of_time(shapes, tmp_path, capsys):
    assert not run(shapes, tmp_path, '--images', '2', '--steps', '60', '--minutes', '0')
    assert 'not reached in 50 steps, which took 0 minutes' in capsys.readouterr().out


@pytest.mark.parametrize(
    'options', [(), ('train_dataloader.sampler.type=InfiniteSampler',), ('train_cfg.max_epochs=0',)]
)
def test_more_images_than_there_are(shapes, tmp_path, options):
    """Whatever the sampler and the loop of the config, which are replaced."""
    with pytest.raises(ValueError, match='--images 63: only 62 training images have objects'):
        run(shapes, tmp_path, '--images', '63', options=options)


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        (('--images', '0'), '--images: expected a number above 0, found 0'),
        (('--images', 'x'), "--images: invalid int value: 'x'"),
        (('--target', '95'), '--target: expected a number above 0 and up to 1, found 95'),
        (('--steps', '-1'), '--steps: expected a number above 0, found -1'),
    ],
)
def test_bad_arguments(extra, message, capsys):
    with pytest.raises(SystemExit):
        parser_of('overfit').parse_args(['config', *extra])
    assert f'error: argument {message}\n' in capsys.readouterr().err


def test_segmentation_is_refused():
    with pytest.raises(ValueError, match=r'for detection .* the config is for mmseg'):
        plain_pipeline(Config(dict(default_scope='mmseg')))


def shapes_config(shapes: Path, **dataset) -> Config:
    cfg = load_config(str(DETR))
    cfg.train_dataloader.dataset.update(data_root=str(shapes), num_train=64, num_val=2, **dataset)
    return cfg


@pytest.mark.slow
def test_images_are_a_function_of_the_seed_and_have_objects(shapes):
    everything, cfg = set(), shapes_config(shapes)
    for seed in range(6):
        first, again = (choose_images(cfg, [], 8, seed) for _ in range(2))
        assert first[0].indices == again[0].indices == sorted(set(first[0].indices))
        assert [image['img_path'] for image in first[1]] == [image['img_path'] for image in again[1]]
        everything.add(tuple(first[0].indices))
        assert not {31, 63} & set(first[0].indices)
    assert len(everything) == 6


@pytest.mark.parametrize(('indices', 'allowed'), [(5, range(5)), (-4, range(60, 63)), ([40, 7, 31, 9], [7, 9, 40])])
def test_only_images_that_the_config_trains_on(shapes, indices, allowed):
    dataset, known = choose_images(shapes_config(shapes, indices=indices), [], len(allowed), 0)
    assert sorted(dataset.indices) == list(allowed)
    numbers = [int(Path(image['img_path']).stem.split('_')[1]) for image in known]
    assert numbers == dataset.indices


def test_images_of_several_data_sets(shapes):
    cfg = shapes_config(shapes)
    leaf = cfg.train_dataloader.dataset
    parts = [ConfigDict({**leaf, 'indices': 3}), ConfigDict({**leaf, 'indices': [10, 12]})]
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=parts)
    )
    pipeline = plain_pipeline(cfg)
    dataset, _ = choose_images(cfg, pipeline, 5, 0)
    assert [part.indices for part in dataset.datasets] == [[0, 1, 2], [10, 12]]
    assert [part.pipeline for part in dataset.datasets] == [pipeline] * 2


@pytest.mark.parametrize('leaf', ['quickstart/retinanet_pvtv2-b0_fpn_shapes.py', 'pvt/mask-rcnn_pvt-t_fpn_1x_coco.py'])
def test_labels_are_loaded_before_the_resizing_of_validation(leaf):
    cfg = load_config(str(CONFIGS / leaf))
    tested = cfg.val_dataloader.dataset.pipeline
    resize = next(step for step in tested if step.type == 'Resize')
    labels = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'LoadAnnotations')
    load, second, third, pack = plain_pipeline(cfg)
    assert (load.type, second, third) == ('LoadImageFromFile', labels, resize)
    assert {*tested[-1].meta_keys, 'instances'} == set(pack['meta_keys'])


def test_transforms_may_stand_as_classes():
    """As Python-style configs have them."""
    cfg = load_config(str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    by_name = [step['type'] for step in plain_pipeline(cfg)]
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for step in loader.dataset.pipeline:
            step.type = TRANSFORMS.get(f'mmdet.{step.type}')
    assert [step['type'].__name__ for step in plain_pipeline(cfg)] == by_name


def test_what_fights_overfitting_is_off():
    cfg = load_config(str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    cfg.model.data_preprocessor.batch_augments = [dict(type='BatchSyncRandomResize')]
    args = parser_of('overfit').parse_args(['config', '--images', '4', '--seed', '3'])
    overfit_config(cfg, args)
    assert cfg.custom_hooks == []
    assert cfg.model.data_preprocessor.batch_augments is None
    assert cfg.optim_wrapper.optimizer.weight_decay == 0
    assert 'paramwise_cfg' not in cfg.optim_wrapper
    assert 'constructor' not in cfg.optim_wrapper
    assert [schedule.type for schedule in cfg.param_scheduler] == ['LinearLR']
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=2000, val_interval=50)
    assert cfg.randomness == dict(seed=3)


HALF = dict(drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5)
PYRAMID = dict(arch='tiny', depths=(1, 1, 1, 2), num_heads=(1, 2, 4, 8), **HALF)
COLUMN = dict(depth=4, embed_dims=48, num_heads=3, img_size=48, **HALF)
WINDOWS = dict(class_token=False, rel_pos='decomposed', window_size=3, global_blocks=(1,))
LAYERS = dict(num_classes=3, in_channels=32, num_heads=2, feedforward_channels=32, dropout=0.5)
MMDET_PYRAMID = dict(attn_drop_rate=0.5, drop_rate=0.5, drop_path_rate=0.5, init_cfg=None)
BACKBONES = {
    'PVT': lambda: backbones.PVT(**PYRAMID, embed_dims=(16, 32, 64, 64)),
    'PVTv2': lambda: backbones.PVTv2(**PYRAMID | dict(arch='b2_li'), embed_dims=(16, 32, 64, 64)),
    'Swin': lambda: backbones.Swin(**PYRAMID, embed_dims=16),
    'SwinV2': lambda: backbones.SwinV2(**PYRAMID, embed_dims=16),
    'ViT': lambda: backbones.ViT('tiny', **COLUMN),
    'ViTDet': lambda: backbones.ViT('tiny', **COLUMN, **WINDOWS),
    'BEiT': lambda: backbones.ViT('tiny', **COLUMN, pos_embed=None, rel_pos='bias_table', layer_scale=0.1),
    'HybridViT': lambda: backbones.HybridViT('base', **COLUMN, layers=(1, 1, 1)),
    'ViTAdapter': lambda: backbones.ViTAdapter('tiny', **COLUMN, conv_inplane=8),
    'YOLOS': lambda: backbones.YOLOS('small', **COLUMN, det_tokens=5),
    'Swin of mmdet': lambda: SwinTransformer(
        embed_dims=32, depths=(1, 1, 1, 2), num_heads=(1, 2, 4, 8), **MMDET_PYRAMID
    ),
    'PVTv2 of mmdet': lambda: PyramidVisionTransformerV2(embed_dims=16, num_layers=(1, 1, 1, 2), **MMDET_PYRAMID),
    'Swin of timm': lambda: timm.create_model('swin_tiny_patch4_window7_224', img_size=64, proj_drop_rate=0.5, **HALF),
}
HEADS = {
    'DETR': lambda: heads.DETRHead(**LAYERS, channels=32, num_queries=7),
    'Deformable DETR': lambda: heads.DeformableDETRHead(**LAYERS, num_levels=2, num_queries=7),
}


def is_random(outputs: Callable[[], Iterable[torch.Tensor]]) -> bool:
    """Whether ``outputs`` depend on the seed."""
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        runs.append([x.detach() for x in outputs()])
    return not all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def becomes_certain(model: nn.Module, outputs: Callable[[], Iterable[torch.Tensor]]) -> bool:
    model.train()
    for parameter in model.parameters():
        if not parameter.any():  # behind which nothing would count
            nn.init.normal_(parameter)
    assert is_random(outputs)
    without_dropout(model)
    return not is_random(outputs)


@pytest.mark.parametrize('name', BACKBONES)
def test_a_backbone_without_dropout_has_no_randomness(name):
    torch.manual_seed(0)
    model, x = BACKBONES[name](), torch.randn(4, 3, 64, 64)
    assert becomes_certain(model, lambda: as_tuple(model(x)))


@pytest.mark.parametrize('name', HEADS)
def test_a_head_without_dropout_has_no_randomness(name):
    torch.manual_seed(0)
    model, maps = HEADS[name](), [torch.randn(2, 32, 8, 8), torch.randn(2, 32, 4, 4)]
    assert becomes_certain(model, lambda: model(maps))


@pytest.mark.slow
@pytest.mark.parametrize(
    'leaf', ['detr/detr_r18_8xb2-500e_coco.py', 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py']
)
def test_a_detector_of_mmdet_without_dropout_has_no_randomness(leaf):
    model = MODELS.build(model_of(f'mmdet::{leaf}'))
    data = model.data_preprocessor(demo_mm_inputs(2, [(3, 64, 64)] * 2, num_classes=3), training=True)
    assert becomes_certain(model, lambda: model(**data, mode='loss').values())


@pytest.mark.parametrize(
    ('module', 'sizes'),
    [
        (nn.Dropout2d(0.5), [(4, 6, 8, 8)]),
        (nn.AlphaDropout(0.5), [(4, 6)]),
        (mmcv_drop.Dropout(0.5), [(4, 6)]),
        (mmcv_drop.DropPath(0.5), [(4, 6)]),
        (DropBlock(0.9, 3, warmup_iters=0), [(4, 6, 8, 8)]),
        (nn.MultiheadAttention(8, 2, dropout=0.5), [(4, 6, 8)] * 3),
        (BiMultiHeadAttention(8, 8, 8, 2, dropout=0.5), [(4, 6, 8)] * 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else '',
)
def test_a_module_without_dropout_has_no_randomness(module, sizes):
    torch.manual_seed(0)
    inputs = [torch.randn(size) for size in sizes]
    assert becomes_certain(module, lambda: as_tuple(module(*inputs)))


def as_tuple(outputs: torch.Tensor | Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else [x for x in outputs if x is not None]


def advise_on(first: float = 10.0, model: nn.Module | None = None, objects: int = 2, **last) -> str:
    values = dict(step=200, loss=1.0, map=0.6, ap50=0.75, boxes=0.6, classes=np.array([0.6, np.nan])) | last
    before = Evaluation(**values | dict(step=50, map=min(values['map'], 0.6)))
    cfg = Config(dict(model=dict(), optim_wrapper=dict(optimizer=dict(lr=3e-4))))
    images = [dict(instances=[dict()] * objects)]
    return '\n'.join(hints([before, Evaluation(**values)], first, model or nn.Linear(2, 2), cfg, images))


REASONS = {
    'the loss fell by': dict(loss=9.0),
    'training and prediction differ': dict(map=0.0, ap50=0.0, boxes=0.0),
    'classes do not': dict(boxes=0.9),
    'boxes are not precise': dict(ap50=0.9),
    'few objects are found': dict(map=0.3, ap50=0.4, boxes=0.3),
    'the mAP is still rising': dict(map=0.7),
    'but max_per_img is 5': dict(objects=6),
}


@pytest.mark.parametrize('reason', REASONS)
def test_each_symptom_has_its_hint(reason):
    model = nn.Linear(2, 2)
    model.max_per_img = 5
    assert reason in advise_on(model=model, **REASONS[reason])
    assert reason not in advise_on(model=model)


def test_few_trained_parameters_are_named():
    model = nn.Sequential(nn.Linear(2000, 1000), nn.Linear(2, 2))
    assert 'parameters are trained' not in advise_on(model=model, loss=9.0)
    model[0].requires_grad_(False)
    assert 'only 0.00 M of 2.00 M parameters are trained' in advise_on(model=model, loss=9.0)
