"""Whole detectors: Mask R-CNN and Cascade Mask R-CNN over ViTDet.

detectron2 and mmdet number everything in the same order: the background is the last logit, class k has channels 4k
to 4k + 3 of the boxes (dx, dy, dw, dh) and channel k of the masks, anchors of a place are sorted by height over width,
the deltas of one anchor lie together, and regions are flattened channels first.
"""

import re

import torch

from .family import Family, Layout, State, nest, same
from .tensors import add_class_entry, drop_class_entry

CASCADE = r'roi_head\.bbox_head\.(\d+)\.fc_cls\.weight'
MASK_HEAD = 'roi_head.mask_head.'
POSITIONS = 'backbone.pos_embed'


def _mask_head_of_each_stage(state: State) -> State:
    """Give each stage of a cascade the one mask head of detectron2: the mean of their masks is its mask."""
    stages = sorted(found[1] for key in state if (found := re.fullmatch(CASCADE, key)))
    spread: State = {}
    for key, value in state.items():
        rest = key.removeprefix(MASK_HEAD)
        repeated = stages if rest != key else []
        spread |= {f'{MASK_HEAD}{stage}.{rest}': value for stage in repeated} or {key: value}
    return spread


def _one_mask_head(state: State) -> State:
    """Undo :func:`_mask_head_of_each_stage` where the heads of all stages are equal."""
    joined: State = {}
    for key, value in state.items():
        name = re.sub(rf'^{re.escape(MASK_HEAD)}\d+\.', MASK_HEAD, key)
        if not torch.equal(joined.setdefault(name, value), value):
            raise ValueError(f'{key} is not that of the first stage: detectron2 has one mask head for all stages')
    return joined


VITDET_DETECTOR = Family(
    classes=('SimpleFeaturePyramid',),
    whole=True,
    own=r'roi_head\.bbox_head\.(\d\.)?shared_convs\.0\.ln\.',
    class_head=r'roi_head\.(bbox_head\.(\d\.)?fc_(cls|reg)|mask_head\.(\d\.)?conv_logits)\.(weight|bias)',
    layouts=(
        Layout(
            'detectron2',
            probe=r'backbone\.net\.blocks\.0\.attn\.qkv\.',
            dropped=('pixel_mean', 'pixel_std', 'proposal_generator.anchor_generator.cell_anchors.{i}'),
            places=(
                *nest(same('pos_embed', 'patch_embed.', 'blocks.{i}.'), 'backbone.net.', 'backbone.'),
                ('backbone.simfp_{i}.', 'neck.simfp_{i}.'),
                ('proposal_generator.rpn_head.conv.conv{i}.', 'rpn_head.rpn_conv.{i}.conv.'),
                ('proposal_generator.rpn_head.objectness_logits.', 'rpn_head.rpn_cls.'),
                ('proposal_generator.rpn_head.anchor_deltas.', 'rpn_head.rpn_reg.'),
                *(
                    (f'roi_heads.{theirs}', f'roi_head.bbox_head.{ours}')
                    for stage in ('', '{s}.')
                    for theirs, ours in (
                        (f'box_head.{stage}conv{{i+1}}.norm.', f'{stage}shared_convs.{{i}}.ln.'),
                        (f'box_head.{stage}conv{{i+1}}.', f'{stage}shared_convs.{{i}}.conv.'),
                        (f'box_head.{stage}fc{{i+1}}.', f'{stage}shared_fcs.{{i}}.'),
                        (f'box_predictor.{stage}cls_score.', f'{stage}fc_cls.'),
                        (f'box_predictor.{stage}bbox_pred.', f'{stage}fc_reg.'),
                    )
                ),
                *nest(
                    (
                        ('mask_fcn{i+1}.norm.', 'convs.{i}.ln.'),
                        ('mask_fcn{i+1}.', 'convs.{i}.conv.'),
                        ('deconv.', 'upsample.'),
                        ('predictor.', 'conv_logits.'),
                    ),
                    'roi_heads.mask_head.',
                    MASK_HEAD,
                ),
            ),
            tensors=lambda state: _mask_head_of_each_stage(drop_class_entry(state, POSITIONS)),
            inverse=lambda state: _one_mask_head(add_class_entry(state, POSITIONS)),
            targets=('official', 'detectron2'),
            wrapper='model',
        ),
    ),
)
