"""Every config builds, learns a step and predicts; the tables of the READMEs are those of the metafiles."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmdet.testing import demo_mm_inputs
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from support import CONFIGS
from support.configs import LEAVES, METHODS
from support.sweep import but_for_the_sweep

from vitdense.commands.flops import complexity
from vitdense.config.channels import misfits
from vitdense.config.load import load_config
from vitdense.config.missing_files import check_files
from vitdense.models.backbones import Backbone

ROOT = CONFIGS
FOLDERS = sorted({str(Path(leaf).parent) for leaf in LEAVES})
LONG = {'large', 'huge'}  # all blocks of such a ViT take gigabytes and minutes


def build(leaf: str):
    cfg = load_config(str(ROOT / leaf))
    backbone = cfg.model.backbone
    backbone.pop('init_cfg', None)
    if backbone.type == 'vitdense.ViT' and backbone.arch in LONG:
        maps = tuple(range(len(backbone.get('out_indices', (0, 1)))))
        backbone.depth = len(maps)
        backbone.update({key: maps for key in ('out_indices', 'global_blocks') if key in backbone})
    if 'rpn_head' in cfg.model:  # a thousand regions an image keep the heads of a cascade busy for half a minute
        for settings in (cfg.model.train_cfg.rpn_proposal, cfg.model.test_cfg.rpn):
            settings.max_per_img = 30
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    return cfg, MODELS.build(cfg.model)


@pytest.mark.slow
@pytest.mark.parametrize('leaf', but_for_the_sweep(LEAVES, METHODS))
def test_config_learns_a_step_and_predicts(leaf):
    cfg, model = build(leaf)
    model = revert_sync_batchnorm(model)  # it runs on GPUs only
    if isinstance(model.backbone, Backbone):
        assert list(misfits(cfg.model, model.backbone.out_channels)) == []
    try_out = segment if 'decode_head' in cfg.model else detect
    losses = try_out(cfg, model)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert total > 0
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused


def detect(cfg, model) -> dict[str, torch.Tensor]:
    """Losses of two images; predictions are made, too."""
    model.data_preprocessor.pad_size_divisor = 32  # instead of up to 1024
    num_classes = _head(cfg.model).num_classes
    inputs = demo_mm_inputs(2, [(3, 64, 96), (3, 75, 50)], num_classes=num_classes, with_mask=True)
    model.eval()
    with torch.no_grad():
        predictions = model(**model.data_preprocessor(inputs, training=False), mode='predict')
    assert len(predictions) == 2
    for sample in predictions:
        found = sample.pred_instances
        assert found.bboxes.shape == (len(found.scores), 4)
        assert ((found.labels >= 0) & (found.labels < num_classes)).all()
    model.train()
    return model(**model.data_preprocessor(inputs, training=True), mode='loss')


def _head(model):
    head = model.roi_head.bbox_head if 'roi_head' in model else model.bbox_head
    return head[0] if isinstance(head, list) else head  # of a cascade


def segment(cfg, model) -> dict[str, torch.Tensor]:
    """Losses of two images; predictions are made, too."""
    model.data_preprocessor.size, model.data_preprocessor.size_divisor = None, 32  # instead of up to 768
    num_classes = cfg.model.decode_head.num_classes
    inputs = [segmentation_inputs(hw, num_classes) for hw in ((64, 96), (75, 50))]
    model.eval()
    for image in inputs:
        with torch.no_grad():
            (found,) = model(**model.data_preprocessor(image, training=False), mode='predict')
        labels = found.pred_sem_seg.data
        assert labels.shape == (1, *found.ori_shape)
        assert ((labels >= 0) & (labels < num_classes)).all()
    model.train()
    both = {key: [*inputs[0][key], *inputs[1][key]] for key in inputs[0]}
    return model(**model.data_preprocessor(both, training=True), mode='loss')


def segmentation_inputs(hw: tuple[int, int], num_classes: int) -> dict[str, list]:
    labels = PixelData(data=torch.randint(num_classes, (1, *hw)))
    sample = SegDataSample(gt_sem_seg=labels, metainfo=dict(img_shape=hw, ori_shape=hw, pad_shape=hw))
    return dict(inputs=[torch.randint(256, (3, *hw), dtype=torch.uint8)], data_samples=[sample])


@pytest.mark.parametrize('leaf', LEAVES)
def test_leaf_configs_are_short(leaf):
    assert len((ROOT / leaf).read_text().splitlines()) <= 25


@pytest.mark.parametrize('folder', FOLDERS)
def test_metafile_mirrors_the_table_of_the_readme(folder):
    readme = (ROOT / folder / 'README.md').read_text()
    models = {m['Name']: m for m in yaml.safe_load((ROOT / folder / 'metafile.yml').read_text())['Models']}
    configs = {Path(leaf).stem for leaf in LEAVES if str(Path(leaf).parent) == folder}
    assert set(models) == configs
    for name, model in models.items():
        assert model['Config'] == f'configs/{folder}/{name}.py'
        rows = [line for line in readme.splitlines() if line.startswith('|') and f'({name}.py)' in line]
        assert len(rows) == 1, name
        cells = re.findall(r'\d+\.\d+', re.sub(r'\([^)]*\)', '', rows[0]))
        for result in model['Results']:
            for value in result['Metrics'].values():
                assert any(f'{value:.{digits}f}' in cells for digits in (1, 2, 3)), (name, value)


COCO, ADE, WIDE = (800, 1280), (512, 512), (512, 2048)
SEM_FPN = '8xb4-40k_ade20k-512x512.py'
UPERNET = '8xb2-160k_ade20k-512x512.py'
PUBLISHED = [
    # params (M) and FLOPs (G, with attention) of RetinaNet: arXiv 2201.00520, table of RetinaNet results
    ('pvt/retinanet_pvt-t_fpn_1x_coco.py', COCO, 23.0, 221.0),
    ('pvt/retinanet_pvt-s_fpn_1x_coco.py', COCO, 34.2, 286.0),
    ('pvt/retinanet_pvt-m_fpn_1x_coco.py', COCO, 53.9, 373.0),
    ('pvt/retinanet_pvt-l_fpn_1x_coco.py', COCO, 71.1, 475.0),
    # of Mask R-CNN: README of Swin's official detection code
    ('swin/mask-rcnn_swin-t_fpn_ms-3x_coco.py', COCO, 48.0, 267.0),
    # of Semantic FPN: arXiv 2106.13797, table 5
    (f'pvt/sem-fpn_pvt-t_{SEM_FPN}', ADE, 17.0, 33.2),
    (f'pvt/sem-fpn_pvt-s_{SEM_FPN}', ADE, 28.2, 44.5),
    (f'pvt/sem-fpn_pvt-m_{SEM_FPN}', ADE, 48.0, 61.0),
    (f'pvt/sem-fpn_pvt-l_{SEM_FPN}', ADE, 65.1, 79.6),
    (f'pvt_v2/sem-fpn_pvtv2-b0_{SEM_FPN}', ADE, 7.6, 25.0),
    (f'pvt_v2/sem-fpn_pvtv2-b1_{SEM_FPN}', ADE, 17.8, 34.2),
    (f'pvt_v2/sem-fpn_pvtv2-b2-li_{SEM_FPN}', ADE, 26.3, 41.0),
    (f'pvt_v2/sem-fpn_pvtv2-b2_{SEM_FPN}', ADE, 29.1, 45.8),
    (f'pvt_v2/sem-fpn_pvtv2-b3_{SEM_FPN}', ADE, 49.0, 62.4),
    (f'pvt_v2/sem-fpn_pvtv2-b4_{SEM_FPN}', ADE, 66.3, 81.3),
    (f'pvt_v2/sem-fpn_pvtv2-b5_{SEM_FPN}', ADE, 85.7, 91.1),
    # of UPerNet: README of Swin's official segmentation code
    (f'swin/upernet_swin-t_{UPERNET}', WIDE, 60.0, 945.0),
    (f'swin/upernet_swin-s_{UPERNET}', WIDE, 81.0, 1038.0),
    (f'swin/upernet_swin-b_{UPERNET}', WIDE, 121.0, 1188.0),
    # and arXiv 2401.10166, table of ADE20K results
    (f'vit_upernet/upernet_deit-s_{UPERNET}', WIDE, 58.0, 1217.0),
    (f'vit_upernet/upernet_deit-b_{UPERNET}', WIDE, 144.0, 2007.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('leaf', 'hw', 'parameters', 'flops'), but_for_the_sweep(PUBLISHED, [row for row in PUBLISHED if row[2] < 35])
)
def test_parameters_and_flops_are_the_published_ones(leaf, hw, parameters, flops):
    counted = complexity(load_config(str(ROOT / leaf)), hw)
    assert counted.parameters / 1e6 == pytest.approx(parameters, rel=0.02)
    assert counted.flops / 1e9 == pytest.approx(flops, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('leaf', 'flops'),
    [  # without attention: arXiv 2107.00641, table of RetinaNet and Mask R-CNN results
        ('pvt/retinanet_pvt-s_fpn_1x_coco.py', 226.5),
        ('pvt/retinanet_pvt-m_fpn_1x_coco.py', 283.1),
        ('pvt/retinanet_pvt-l_fpn_1x_coco.py', 345.7),
    ],
)
def test_flops_without_attention_are_the_published_ones(leaf, flops):
    counted = complexity(load_config(str(ROOT / leaf)), COCO)
    assert (counted.flops - counted.attention_flops) / 1e9 == pytest.approx(flops, rel=0.02)


@pytest.mark.slow
def test_flops_of_gfl_with_pvt_v2_are_those_of_the_official_tool():
    """GFL + PVTv2-b2: 33.11 M and 260.65 G, README of the official detection code."""
    cfg = load_config('mmdet::gfl/gfl_r50_fpn_1x_coco.py')
    cfg.model.backbone = dict(type='vitdense.PVTv2', arch='b2')
    cfg.model.neck.in_channels = [64, 128, 320, 512]
    counted = complexity(cfg, COCO)
    assert counted.parameters / 1e6 == pytest.approx(33.11, abs=0.01)
    assert counted.flops / 1e9 == pytest.approx(260.65, rel=0.02)


REFINES = 6 * 300 * (2 * 256**2 + 4 * 256)
"""Of mmdet's decoder with refined boxes, which predicts the boxes of all layers and queries twice."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ('theirs', 'ours', 'more'),
    [
        ('detr_r50_8xb2-150e', 'detr/detr_r50_8xb2-150e', 0),
        ('deformable-detr_r50_16xb2-50e', 'deformable_detr/deformable-detr_r50_8xb4-50e', 0),
        (
            'deformable-detr-refine-twostage_r50_16xb2-50e',
            'deformable_detr/deformable-detr_refine_two-stage_r50_8xb4-50e',
            REFINES,
        ),
    ],
)
def test_query_detectors_of_mmdet_count_as_ours(theirs, ours, more):
    """The same network by two implementations; mmdet's looks at sizes of images and at values."""
    names = f'mmdet::{ours.partition("/")[0]}/{theirs}_coco.py', f'{ROOT / ours}_coco.py'
    first, second = (complexity(load_config(name), (320, 448)) for name in names)
    assert first.flops == second.flops + more
    assert first.attention_flops == second.attention_flops > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
        'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        'mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
    ],
)
def test_models_that_want_more_than_an_image_are_counted(name):
    """Not less than their backbone, a ResNet-50 of 4.1 G for 224 x 224 (arXiv:1512.03385), without its last layer."""
    assert complexity(load_config(name), (224, 224)).flops > 4.0e9


@pytest.mark.skipif('VITDENSE_DATA' not in os.environ, reason='VITDENSE_DATA names no folder of data')
def test_blood_cell_config_reads_real_images():
    cfg = load_config(str(ROOT / 'bccd/retinanet_pvtv2-b0_fpn_bccd.py'))
    check_files(cfg)
    init_default_scope(cfg.default_scope)
    train, val = (DATASETS.build(cfg[f'{split}_dataloader'].dataset) for split in ('train', 'val'))
    assert (len(train), len(val)) == (205, 87)
    annotations = json.loads(Path(cfg.val_evaluator.ann_file).read_text())
    assert sum(len(val.get_data_info(i)['instances']) for i in range(87)) == len(annotations['annotations'])
    sample = train[0]
    height, width = sample['data_samples'].img_shape
    assert sample['inputs'].shape == (3, height, width)
    boxes = sample['data_samples'].gt_instances.bboxes.tensor
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([width, height, width, height])).all()
