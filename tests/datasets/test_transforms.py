"""Images get the sizes that the releases of DETR, Deformable DETR and YOLOS give them, and labels go with them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from support import CONFIGS
from transformers.image_transforms import get_size_with_aspect_ratio

from vitdense.datasets import DETRResize
from vitdense.datasets.transforms import detr_size

sides = st.integers(16, 4000)
COCO, SMALL = (1333, 800), (853, 512)


def of_transformers(hw: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """Height and width; the releases fit the longer side of an image at the limit to the rounded shorter one."""
    h, w = get_size_with_aspect_ratio(hw, min(scale), max(scale))
    return get_size_with_aspect_ratio(hw, h if hw[0] <= hw[1] else w)


@given(h=sides, w=sides, scale=st.tuples(st.integers(32, 1400), st.integers(32, 1400)))
def test_sizes_are_those_of_another_implementation(h, w, scale):
    width, height = detr_size(w, h, scale)
    assert (height, width) == of_transformers((h, w), scale)


@pytest.mark.parametrize(
    ('hw', 'scale', 'expected', 'of_mmdet'),
    [  # the most frequent sizes of COCO; of long images the shorter side is rounded
        ((480, 640), COCO, (800, 1066), (800, 1067)),
        ((640, 480), COCO, (1066, 800), (1067, 800)),
        ((375, 500), COCO, (800, 1066), (800, 1067)),
        ((427, 640), COCO, (800, 1199), (800, 1199)),
        ((426, 640), COCO, (800, 1201), (800, 1202)),
        ((480, 640), SMALL, (512, 682), (512, 683)),
        ((240, 640), COCO, (500, 1333), (500, 1333)),
        ((800, 800), COCO, (800, 800), (800, 800)),
    ],
)
def test_image_and_factor(hw, scale, expected, of_mmdet):
    results = DETRResize(scale)(dict(img=np.zeros((*hw, 3), np.uint8)))
    assert results['img'].shape[:2] == results['img_shape'] == expected
    assert results['scale_factor'] == (expected[1] / hw[1], expected[0] / hw[0])
    assert results['keep_ratio'] is True
    resize = TRANSFORMS.build(dict(type='Resize', scale=scale, keep_ratio=True))
    assert resize(dict(img=np.zeros((*hw, 3), np.uint8)))['img_shape'] == of_mmdet


@pytest.mark.parametrize('kind', [BitmapMasks, PolygonMasks])
def test_boxes_masks_and_maps_go_with_the_image(kind):
    """A rectangle of 120 x 100 in an image of 640 x 480."""
    box = torch.tensor([[64.0, 48.0, 184.0, 148.0]])
    bitmap = np.zeros((480, 640), np.uint8)
    bitmap[48:148, 64:184] = 1
    polygon = [[np.array([64.0, 48.0, 184.0, 48.0, 184.0, 148.0, 64.0, 148.0])]]
    masks = kind(bitmap[None] if kind is BitmapMasks else polygon, 480, 640)
    image = np.repeat(bitmap[..., None], 3, axis=2) * 255
    results = DETRResize(COCO)(dict(img=image, gt_bboxes=HorizontalBoxes(box), gt_masks=masks, gt_seg_map=bitmap))
    assert results['gt_seg_map'].shape == (800, 1066)
    assert (results['gt_masks'].height, results['gt_masks'].width) == (800, 1066)
    factor = torch.tensor([1066 / 640, 800 / 480]).repeat(2)
    torch.testing.assert_close(results['gt_bboxes'].tensor, box * factor)
    for shown in (results['gt_seg_map'], results['gt_masks'].to_ndarray()[0], results['img'][..., 0] > 127):
        rows, columns = np.nonzero(shown)
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(edges - results['gt_bboxes'].tensor.numpy()).max() <= 1.5


LEAVES = {
    'detr/detr_r50_8xb2-150e_coco.py': (COCO, (800, 1066)),
    'deformable_detr/deformable-detr_swin-t_8xb4-50e_coco.py': (COCO, (800, 1066)),
    'yolos/yolos-b_8xb1-150e_coco.py': (COCO, (800, 1066)),
    'yolos/yolos-ti_8xb2-300e_coco.py': (SMALL, (512, 682)),
}


@pytest.mark.parametrize('leaf', LEAVES)
def test_configs_train_and_test_at_sizes_of_the_releases(leaf, monkeypatch):
    cfg = Config.fromfile(CONFIGS / leaf)
    init_default_scope(cfg.default_scope)
    scale, expected = LEAVES[leaf]
    seen = []
    monkeypatch.setattr(
        'vitdense.datasets.transforms.detr_size',
        lambda w, h, scale: seen.append((h, w, scale)) or detr_size(w, h, scale),
    )
    image = np.zeros((480, 640, 3), np.uint8)
    steps = cfg.train_dataloader.dataset.pipeline[2:-1]
    for _ in range(20):
        size = Compose(steps)(dict(img=image, img_shape=(480, 640)))['img_shape']
        assert size == detr_size(*seen[-1][1::-1], seen[-1][2])[::-1]
    assert {min(scale) for *_, scale in seen} & {400, 500, 600}
    assert {max(scale) for *_, scale in seen} == {4200, scale[0] if scale == COCO else 1013}
    for split in ('val', 'test'):
        resize = cfg[f'{split}_dataloader'].dataset.pipeline[1]
        assert TRANSFORMS.build(resize)(dict(img=image))['img_shape'] == expected
    assert seen[-1][2] == scale


def test_an_image_alone_and_in_views_is_of_that_size():
    """As ``inference_detector`` of mmdet and test-time augmentation prepare it."""
    cfg = Config.fromfile(CONFIGS / 'yolos/yolos-ti_8xb2-300e_coco.py')
    init_default_scope(cfg.default_scope)
    pipeline = cfg.test_dataloader.dataset.pipeline
    views = dict(
        type='TestTimeAug',
        transforms=[
            [dict(pipeline[1], scale=scale) for scale in (SMALL, COCO)],
            [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
            [pipeline[3]],
        ],
    )
    image = np.zeros((480, 640, 3), np.uint8)
    packed = TRANSFORMS.build(views)(dict(img=image, img_id=0, img_path='', ori_shape=(480, 640)))
    assert [tuple(view.shape) for view in packed['inputs']] == [(3, 512, 682)] * 2 + [(3, 800, 1066)] * 2
    model = Recorder(cfg)
    inference_detector(model, image)
    assert model.seen == [(3, 512, 682)]


class Recorder(BaseModel):
    """A detector that keeps the sizes of what it is given."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg, self.seen = cfg, []

    def forward(self, inputs: list, data_samples: list, mode: str) -> list:
        self.seen += [tuple(image.shape) for image in inputs]
        return data_samples
