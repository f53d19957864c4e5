"""Deformable DETR against implementations that others wrote, with the same weights."""

from pathlib import Path

import pytest
import torch
import transformers
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from vitdense.checkpoint.convert import convert
from vitdense.engine.config import load_config

CONFIGS = Path(__file__).parents[1] / 'configs/deformable_detr'
LAYOUTS = Path(__file__).parent / 'checkpoint_layouts'
TOLERANCE = 1e-4
KINDS = {
    'plain': ('deformable-detr_r50', dict()),
    'refine': ('deformable-detr_refine_r50', dict(with_box_refine=True)),
    'two-stage': ('deformable-detr_refine_two-stage_r50', dict(with_box_refine=True, two_stage=True)),
}
SIZES = [(250, 310), (203, 170)]


def randomize_(module: nn.Module) -> nn.Module:
    """Weights that make every path count, and statistics of batch norm that are not those of a new one."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith('running_var'):
            value.copy_(1 + 0.2 * noise.abs())
        elif value.ndim == 1:
            value.add_(0.05 * noise)
        elif value.ndim > 1:
            value.copy_(noise / value[0].numel() ** 0.5)
    return module.eval()


def build(leaf: str, **changes) -> nn.Module:
    """The detector of a config without pretrained weights; ``changes`` of its head."""
    cfg = load_config(str(CONFIGS / leaf))
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.bbox_head.update(changes)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(cfg.model).eval()


def metas(sizes):
    batch = tuple(max(side) for side in zip(*sizes, strict=True))
    return [dict(img_shape=size, batch_input_shape=batch, scale_factor=(1.0, 1.0)) for size in sizes]


def padded(sizes) -> torch.Tensor:
    """Random images (B, 3, H, W) of ``sizes``, zero beyond them."""
    generator = torch.Generator().manual_seed(1)
    batch = torch.zeros(len(sizes), 3, *metas(sizes)[0]['batch_input_shape'])
    for image, (height, width) in zip(batch, sizes, strict=True):
        image[:, :height, :width] = torch.randn(3, height, width, generator=generator)
    return batch


def assert_close(ours, theirs) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert b.std() > 1e-2
        assert (a - b).abs().max() <= TOLERANCE


@pytest.mark.parametrize('kind', KINDS)
def test_equals_transformers_in_all_decoder_layers(kind):
    name, options = KINDS[kind]
    queries = 100 if options.get('two_stage') else 300  # few enough that theirs takes no proposal out of the image
    options = dict(num_queries=queries, two_stage_num_proposals=queries, **options)
    config = transformers.DeformableDetrConfig(num_labels=80, auxiliary_loss=True, **options)
    reference = randomize_(transformers.DeformableDetrForObjectDetection(config))
    ours = build(f'{name}_8xb4-50e_coco.py', num_queries=queries)
    state, dropped = convert(reference.state_dict(), 'deformable_detr')
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith('model.decoder.') for key in dropped)
    assert all(key.endswith('num_batches_tracked') for key in missing)
    images = padded(SIZES)
    mask = torch.stack([(image != 0).any(0) for image in images]).long()
    labels = [dict(class_labels=torch.tensor([3]), boxes=torch.tensor([[0.5, 0.5, 0.2, 0.2]]))] * 2
    with torch.no_grad():
        theirs = reference(images, mask, labels=labels)  # without labels only of the last layer
        mine, proposals = ours.bbox_head.run(ours.neck(ours.backbone(images)), metas(SIZES))
    assert mine.logits.shape == (6, 2, queries, 80)
    assert_close([x[-1] for x in mine], [theirs.logits, theirs.pred_boxes])
    for layer, outputs in enumerate(theirs.auxiliary_outputs):
        assert_close([x[layer] for x in mine], [outputs['logits'], outputs['pred_boxes']])
    if proposals is not None:
        inside = ~theirs.enc_outputs_coord_logits.isinf().any(2)
        assert_close([proposals.logits], [theirs.enc_outputs_class])
        assert_close([proposals.boxes], [theirs.enc_outputs_coord_logits.sigmoid()])
        assert inside.gather(1, proposals.best).all()
