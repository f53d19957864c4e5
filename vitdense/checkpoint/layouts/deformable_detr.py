"""Whole detectors: Deformable DETR, whose levels come from a neck as mmdet's ``ChannelMapper``."""

import re

from .detr import HEAD, MMDET_LAYERS, TRANSFORMER, TRANSFORMERS_PARTS, join_projections
from .family import Family, Layout, State

NECK = (
    (r'input_proj\.([012])\.0\.', r'neck.convs.\1.conv.'),
    (r'input_proj\.([012])\.1\.', r'neck.convs.\1.gn.'),
    (r'input_proj\.3\.0\.', 'neck.extra_convs.0.conv.'),
    (r'input_proj\.3\.1\.', 'neck.extra_convs.0.gn.'),
)
"""Projections of the maps of a backbone with three, and of the level below them."""


def _with_neck_biases(state: State) -> State:
    """Add the biases that convolutions before a norm have in the release and not in mmdet, zeros."""
    for key in list(state):
        if re.fullmatch(r'neck\.(extra_)?convs\.\d\.conv\.weight', key):
            state.setdefault(key.replace('weight', 'bias'), state[key].new_zeros(len(state[key])))
    return state


DEFORMABLE_DETR = Family(
    whole=True,
    class_head=r'bbox_head\.class_embed\.\d+\.(weight|bias)',
    layouts=(
        Layout(
            'fundamentalvision/Deformable-DETR',
            probe=r'transformer\.decoder\.layers\.0\.cross_attn\.sampling_offsets\.',
            places=(
                (r'backbone\.0\.body\.', 'backbone.'),
                *NECK,
                (r'transformer\.decoder\.(class|bbox)_embed\.', None),  # the heads once more
                (r'(?=(transformer|class_embed|bbox_embed|query_embed)\.)', HEAD),
            ),
        ),
        Layout(
            'transformers',
            probe=r'model\.decoder\.layers\.0\.encoder_attn\.sampling_offsets\.',
            places=(
                (r'model\.backbone\.(conv_encoder\.)?model\.', 'backbone.'),
                *((rf'model\.{pattern}', place) for pattern, place in NECK),
                (r'model\.query_position_embeddings\.', f'{HEAD}query_embed.'),
                (r'model\.(encoder\.layers\.\d+)\.self_attn_layer_norm\.', rf'{TRANSFORMER}\1.norm1.'),
                (r'model\.(encoder\.layers\.\d+)\.final_layer_norm\.', rf'{TRANSFORMER}\1.norm2.'),
                (r'model\.(decoder\.layers\.\d+)\.encoder_attn_layer_norm\.', rf'{TRANSFORMER}\1.norm1.'),
                (r'model\.(decoder\.layers\.\d+)\.self_attn_layer_norm\.', rf'{TRANSFORMER}\1.norm2.'),
                (r'model\.(decoder\.layers\.\d+)\.final_layer_norm\.', rf'{TRANSFORMER}\1.norm3.'),
                (r'model\.decoder\.(class|bbox)_embed\.', None),
                (r'model\.(?=(encoder|decoder)\.layers\.)', TRANSFORMER),
                (r'model\.(?=level_embed$|(reference_points|enc_output|pos_trans)(_norm)?\.)', TRANSFORMER),
                (r'(?=(class_embed|bbox_embed)\.)', HEAD),
            ),
            parts=(('encoder_attn.', 'cross_attn.'), *TRANSFORMERS_PARTS),
            tensors=join_projections,
        ),
        Layout(
            'mmdet',
            probe=r'decoder\.layers\.0\.cross_attn\.sampling_offsets\.',
            places=(
                (r'(?=(backbone|neck)\.)', ''),
                (r'query_embedding\.', f'{HEAD}query_embed.'),
                (r'level_embed$', f'{TRANSFORMER}level_embed'),
                (r'reference_points_fc\.', f'{TRANSFORMER}reference_points.'),
                (r'memory_trans_fc\.', f'{TRANSFORMER}enc_output.'),
                (r'memory_trans_norm\.', f'{TRANSFORMER}enc_output_norm.'),
                (r'pos_trans_fc\.', f'{TRANSFORMER}pos_trans.'),
                (r'pos_trans_norm\.', f'{TRANSFORMER}pos_trans_norm.'),
                (r'bbox_head\.cls_branches\.(\d+)\.', rf'{HEAD}class_embed.\1.'),
                (r'bbox_head\.reg_branches\.(\d+)\.0\.', rf'{HEAD}bbox_embed.\1.layers.0.'),
                (r'bbox_head\.reg_branches\.(\d+)\.2\.', rf'{HEAD}bbox_embed.\1.layers.1.'),
                (r'bbox_head\.reg_branches\.(\d+)\.4\.', rf'{HEAD}bbox_embed.\1.layers.2.'),
                (r'(encoder\.layers\.\d+)\.norms\.(\d)\.', rf'{TRANSFORMER}\1.norm{{\2+1}}.'),
                (r'(decoder\.layers\.\d+)\.norms\.0\.', rf'{TRANSFORMER}\1.norm2.'),
                (r'(decoder\.layers\.\d+)\.norms\.1\.', rf'{TRANSFORMER}\1.norm1.'),
                (r'(decoder\.layers\.\d+)\.norms\.2\.', rf'{TRANSFORMER}\1.norm3.'),
                *MMDET_LAYERS,
            ),
            parts=(('self_attn.attn.', 'self_attn.'),),
            tensors=_with_neck_biases,
        ),
    ),
)
