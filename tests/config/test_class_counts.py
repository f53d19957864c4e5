"""The class count of every head, on configs of mmdet and mmseg with small backbones."""

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from vitdense.checks import Run
from vitdense.checks.heads import class_counts
from vitdense.config.cfg_options import merge_options
from vitdense.config.load import config_path
from vitdense.datasets.scan import SplitReport

DETECTORS = {
    'retinanet/retinanet_r50_fpn_1x_coco.py': ['bbox_head'],
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': ['roi_head.bbox_head', 'roi_head.mask_head'],
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': [
        f'roi_head.{head}.{stage}' for head in ('bbox_head', 'mask_head') for stage in range(3)
    ],
    'htc/htc_r50_fpn_1x_coco.py': [
        f'roi_head.{head}.{stage}' for head in ('bbox_head', 'mask_head') for stage in range(3)
    ],
    'detr/detr_r50_8xb2-150e_coco.py': ['bbox_head'],
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': ['bbox_head'],
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': ['bbox_head'],
    'yolox/yolox_tiny_8xb8-300e_coco.py': ['bbox_head'],
    'solov2/solov2_r50_fpn_1x_coco.py': ['mask_head'],
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py': [
        'roi_head.bbox_head', 'roi_head.mask_head', 'roi_head.point_head',
    ],
}  # fmt: skip
SEGMENTORS = {
    'upernet/upernet_r50_4xb4-160k_ade20k-512x512.py': ['decode_head', 'auxiliary_head'],
    'setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py': ['decode_head', *(f'auxiliary_head.{i}' for i in range(3))],
    'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py': ['decode_head', 'auxiliary_head.0', 'auxiliary_head.1'],
    'point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py': ['decode_head.0', 'decode_head.1'],
    'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py': ['decode_head'],  # things and stuff are not used
    'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py': ['decode_head'],
}
STOCK = [*(('mmdet', name) for name in DETECTORS), *(('mmseg', name) for name in SEGMENTORS)]


def build(package: str, name: str, **head) -> nn.Module:
    """The stock model without weights, on the meta device; ViT, which cannot be built there, narrower."""
    cfg = Config.fromfile(config_path(f'{package}::{name}'))
    model = ConfigDict({**cfg.model, 'pretrained': None} if 'pretrained' in cfg.model else cfg.model)
    model.backbone.pop('init_cfg', None)
    model.backbone.pop('pretrained', None)
    for key, value in head.items():
        place, field = key.rsplit('__', 1)
        node = model
        for part in place.split('__'):
            node = node[int(part) if part.isdigit() else part]
        node[field] = value
    init_default_scope(cfg.default_scope)
    narrow = model.backbone.type == 'VisionTransformer'
    if narrow:
        model.backbone.update(embed_dims=32, num_heads=2)
    with torch.device('cpu' if narrow else 'meta'):
        return MODELS.build(model)


def check_class_counts(model: nn.Module, classes: list[str], key: str, config: dict | None = None) -> None:
    run = Run(Config(dict(model=config or {})), reports=[SplitReport(key, 'X', classes=tuple(classes))], model=model)
    for case in class_counts(run):
        raise ValueError(f'{case.found}; expected {case.expected}: {case.remedy}')


def names(count: int) -> list[str]:
    return [f'class {i}' for i in range(count)]


@pytest.mark.parametrize(('package', 'name'), STOCK)
def test_stock_models_pass_with_their_own_classes_only(package, name):
    model = build(package, name)
    count = 80 if package == 'mmdet' else 19 if 'cityscapes' in name else 150
    check_class_counts(model, names(count), 'train_dataloader.dataset')
    with pytest.raises(ValueError, match=rf'the {count - 1} classes of val_dataloader.dataset') as error:
        check_class_counts(model, names(count - 1), 'val_dataloader.dataset')
    message = str(error.value)
    for head in {**DETECTORS, **SEGMENTORS}[name]:
        assert f'model.{head}.num_classes is {count}' in message
        assert f'model.{head}.num_classes={count - 1}' in message.partition('--cfg-options ')[2].split()
    assert message.count(' is ') == len({**DETECTORS, **SEGMENTORS}[name])


@pytest.mark.slow
@pytest.mark.parametrize(('package', 'name'), STOCK)
def test_the_options_of_the_message_mend_it(package, name):
    cfg = Config.fromfile(config_path(f'{package}::{name}'))
    with pytest.raises(ValueError, match='--cfg-options') as error:
        check_class_counts(build(package, name), names(5), 'train_dataloader.dataset', cfg.model)
    options = str(error.value).partition('--cfg-options ')[2].split()
    given = {key: int(value) for key, value in (option.split('=') for option in options)}
    merge_options(cfg, given)
    fields = {key.removeprefix('model.').replace('.', '__'): value for key, value in given.items()}
    check_class_counts(build(package, name, **fields), names(5), 'train_dataloader.dataset', cfg.model)


def test_message_has_the_first_names_and_one_wrong_head_alone():
    model = build('mmdet', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', roi_head__bbox_head__num_classes=3)
    with pytest.raises(
        ValueError, match=r'^model\.roi_head\.mask_head\.num_classes is 80; .* 3 classes of .* \(a, b, c\)'
    ):
        check_class_counts(model, ['a', 'b', 'c'], 'train_dataloader.dataset')
    with pytest.raises(ValueError, match=r'the 7 classes of .* \(a, b, c, d, e and 2 more\)'):
        check_class_counts(model, list('abcdefg'), 'train_dataloader.dataset')


def test_masks_without_classes_are_left_out():
    name = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    fields = dict(roi_head__bbox_head__num_classes=3, roi_head__mask_head__num_classes=1)
    check_class_counts(build('mmdet', name, roi_head__mask_head__class_agnostic=True, **fields), list('abc'), 'data')
    with pytest.raises(ValueError, match=r'model.roi_head.mask_head.num_classes is 1;'):
        check_class_counts(build('mmdet', name, **fields), list('abc'), 'data')


@pytest.mark.parametrize(
    ('name', 'head'),
    [
        ('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', 'panoptic_head'),
        ('maskformer/maskformer_r50_ms-16xb1-75e_coco.py', 'panoptic_head'),
        ('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 'semantic_head'),
    ],
)
def test_panoptic_heads_have_things_and_stuff(name, head):
    model = build('mmdet', name)
    check_class_counts(model, names(133), 'data')
    with pytest.raises(ValueError, match=r'80 \+ 53 = 133.* 132 classes') as error:
        check_class_counts(model, names(132), 'data')
    assert f'model.{head}.num_things_classes + num_stuff_classes is 80 + 53 = 133' in str(error.value)
    assert f'model.{head}.num_things_classes=THINGS' in str(error.value)


def test_box_heads_beside_a_panoptic_head_have_the_things():
    fields = dict(roi_head__bbox_head__num_classes=79)
    model = build('mmdet', 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', **fields)
    with pytest.raises(ValueError, match=r'bbox_head\.num_classes is 79, but there are 80 classes of things') as error:
        check_class_counts(model, names(133), 'data')
    assert str(error.value).endswith('--cfg-options model.roi_head.bbox_head.num_classes=80')


def test_instances_of_mask2former():
    model = build('mmdet', 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py')
    check_class_counts(model, names(80), 'data')
    with pytest.raises(ValueError, match=r'80 \+ 0 = 80'):
        check_class_counts(model, names(79), 'data')


def test_binary_segmentation_with_one_output():
    name = 'upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
    for outputs in (1, 2):
        head = dict(num_classes=2, out_channels=outputs, threshold=0.3)
        fields = {f'{place}__{key}': v for place in ('decode_head', 'auxiliary_head') for key, v in head.items()}
        model = build('mmseg', name, **fields)
        check_class_counts(model, ['background', 'vessel'], 'data')
        with pytest.raises(ValueError, match=r'model.decode_head.num_classes is 2'):
            check_class_counts(model, ['vessel'], 'data')


def test_teachers_are_left_out_and_students_are_the_detector():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = build('mmdet', 'retinanet/retinanet_r50_fpn_1x_coco.py')
            self.teacher = self.student.__class__.__new__(self.student.__class__)
            self.teacher.__dict__ = self.student.__dict__

    with pytest.raises(ValueError, match=r'^model\.detector\.bbox_head\.num_classes is 80; .*'):
        check_class_counts(Pair(), names(3), 'data')


def test_too_few_classes_become_background_on_the_bare_stack():
    """A label without a channel of its own has a finite loss."""
    from mmengine.structures import InstanceData

    cfg = Config.fromfile(config_path('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'))
    init_default_scope('mmdet')
    cfg.model.bbox_head.update(num_classes=2, feat_channels=8, in_channels=8, stacked_convs=1)
    head = MODELS.build({**cfg.model.bbox_head, 'train_cfg': cfg.model.train_cfg, 'test_cfg': cfg.model.test_cfg})
    maps = [torch.zeros(1, 8, size, size) for size in (16, 8, 4, 2, 1)]
    boxes = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 72.0, 72.0]]), labels=torch.tensor([2]))
    metas = [dict(img_shape=(128, 128), pad_shape=(128, 128), scale_factor=(1.0, 1.0))]
    losses = head.loss_by_feat(*head(maps), [boxes], metas)
    assert all(level.isfinite().all() for level in losses['loss_cls'])
    with pytest.raises(ValueError, match=r'model.bbox_head.num_classes is 2; .* the 3 classes'):
        check_class_counts(nn.ModuleDict(dict(bbox_head=head)), list('abc'), 'train_dataloader.dataset')
