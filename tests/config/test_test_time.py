"""Views of a test image where a config does not say which."""

import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope

from vitdense.config.load import load_config
from vitdense.config.test_time import package_of, use_tta, views

LOAD, LABELS = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)
PACK = dict(type='PackDetInputs', meta_keys=('img_id', 'scale_factor'))


def augmented(pipeline, package='mmdet'):
    """Steps before the views, and the alternatives of each step of a view."""
    *before, last = views(pipeline, package)
    assert last['type'] == 'TestTimeAug'
    return before, last['transforms']


def test_sizes_and_flips_come_from_the_test():
    pad = dict(type='Pad', size_divisor=32)
    before, steps = augmented([LOAD, dict(type='Resize', scale=(1333, 800), keep_ratio=True), pad, LABELS, PACK])
    assert before == [LOAD]
    sizes, flips, *rest = steps
    assert [size['scale'] for size in sizes] == [(1000, 600), (1333, 800), (1666, 1000)]
    assert all(size['keep_ratio'] for size in sizes)
    assert [flip['prob'] for flip in flips] == [0.0, 1.0]
    assert rest == [[pad], [LABELS], [dict(PACK, meta_keys=('img_id', 'scale_factor', 'flip', 'flip_direction'))]]


def test_labels_are_neither_resized_nor_flipped():
    _, steps = augmented(
        [LOAD, LABELS, dict(type='vitdense.DETRResize', scale=(1333, 800)), dict(type='PackDetInputs')]
    )
    assert [step[0]['type'] for step in steps[2:]] == ['LoadAnnotations', 'PackDetInputs']
    assert steps[0][0] == dict(type='vitdense.DETRResize', scale=(1000, 600))


def test_a_test_that_does_not_resize():
    before, steps = augmented([LOAD, dict(type='LoadAnnotations'), dict(type='PackSegInputs')], 'mmseg')
    assert before == [LOAD]
    assert [size['scale_factor'] for size in steps[0]] == [0.75, 1.0, 1.25]


@pytest.mark.parametrize('pipeline', [[], [LOAD, dict(type='Collect')]])
def test_a_pipeline_that_is_not_understood(pipeline):
    with pytest.raises(ValueError, match=r'--tta: .*pipeline ends in (nothing|Collect), expected PackDetInputs'):
        views(pipeline, 'mmdet')


def config(name):
    cfg = load_config(name)
    cfg.pop('tta_pipeline', None)
    cfg.pop('tta_model', None)
    return cfg


@pytest.mark.parametrize(
    ('name', 'merged'),
    [
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'vitdense.DetTTAModel'),
        ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'vitdense.DetTTAModel'),
        ('mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py', 'mmseg.SegTTAModel'),
    ],
)
def test_configs_of_mmdet_and_mmseg(name, merged):
    cfg = config(name)
    model = cfg.model
    use_tta(cfg)
    assert (cfg.model.type, cfg.model.module) == (merged, model)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        pipeline = [TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline]
    assert len(pipeline[-1].subroutines) == 6


def test_what_the_config_says_is_kept():
    cfg = load_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.1), max_per_img=7))
    cfg.tta_pipeline = [LOAD]
    use_tta(cfg)
    assert cfg.test_dataloader.dataset.pipeline == [LOAD]
    assert cfg.model.tta_cfg.max_per_img == 7


def test_the_package_of_a_model():
    from mmdet.models import RetinaNet

    assert package_of(Config(dict(model=dict(type='mmseg.EncoderDecoder')))) == 'mmseg'
    assert package_of(Config(dict(model=dict(type=RetinaNet)))) == 'mmdet'
    assert package_of(Config(dict(default_scope='mmdet', model=dict(type='mmseg.EncoderDecoder')))) == 'mmseg'
    assert package_of(Config(dict(default_scope='mmdet', model=dict(type='mine.Detector')))) == 'mmdet'
    with pytest.raises(
        ValueError, match=r"--tta: the config has no tta_model and no tta_pipeline, and the model 'BaseModel'"
    ):
        use_tta(Config(dict(model=dict(type='mmengine.BaseModel'))))
