"""Whole detectors: DETR."""

import re

import torch

from .family import Family, Layout, State

HEAD = 'bbox_head.'
TRANSFORMER = HEAD + 'transformer.'


def join_projections(state: State) -> State:
    """Join ``q_proj``, ``k_proj`` and ``v_proj`` (C, C) to ``in_proj_weight`` (3C, C), and so their biases."""
    joined = {}
    for key, value in state.items():
        found = re.fullmatch(r'(.*)\.([qkv])_proj\.(weight|bias)', key)
        if not found:
            joined[key] = value
        elif found[2] == 'q':
            parts = [value, *(state[f'{found[1]}.{part}_proj.{found[3]}'] for part in 'kv')]
            joined[f'{found[1]}.in_proj_{found[3]}'] = torch.cat(parts)
    return joined


TRANSFORMERS_PARTS = (('.o_proj.', '.out_proj.'), ('.mlp.fc', '.linear'), ('.fc', '.linear'))
MMDET_LAYERS = (
    (r'((?:en|de)coder\.layers\.\d+)\.ffn\.layers\.(\d)\.(0\.)?', rf'{TRANSFORMER}\1.linear{{\2+1}}.'),
    (r'(?=(encoder|decoder)\.layers\.)', TRANSFORMER),
)
"""What all layers of encoders and decoders have in these layouts."""

DETR = Family(
    whole=True,
    class_head=r'bbox_head\.class_embed\.(weight|bias)',
    layouts=(
        Layout(
            'facebookresearch/detr',
            probe=r'transformer\.decoder\.layers\.0\.multihead_attn\.in_proj_weight',
            places=(
                (r'backbone\.0\.body\.', 'backbone.'),
                (r'(?=(transformer|class_embed|bbox_embed|query_embed|input_proj)\.)', HEAD),
            ),
        ),
        Layout(
            'transformers',
            probe=r'model\.decoder\.layers\.0\.encoder_attn\.q_proj\.weight',
            places=(
                (r'model\.backbone\.(conv_encoder\.)?model\.', 'backbone.'),
                (r'model\.query_position_embeddings\.', f'{HEAD}query_embed.'),
                (r'model\.input_projection\.', f'{HEAD}input_proj.'),
                (r'class_labels_classifier\.', f'{HEAD}class_embed.'),
                (r'bbox_predictor\.', f'{HEAD}bbox_embed.'),
                (r'model\.decoder\.layernorm\.', f'{TRANSFORMER}decoder.norm.'),
                (r'model\.encoder\.layers\.(\d+)\.final_layer_norm\.', rf'{TRANSFORMER}encoder.layers.\1.norm2.'),
                (r'model\.decoder\.layers\.(\d+)\.final_layer_norm\.', rf'{TRANSFORMER}decoder.layers.\1.norm3.'),
                (r'model\.(?=(encoder|decoder)\.layers\.)', TRANSFORMER),
            ),
            parts=(
                ('encoder_attn_layer_norm', 'norm2'),
                ('self_attn_layer_norm', 'norm1'),
                ('encoder_attn', 'multihead_attn'),
                *TRANSFORMERS_PARTS,
            ),
            tensors=join_projections,
        ),
        Layout(
            'mmdet',
            probe=r'decoder\.layers\.0\.cross_attn\.attn\.in_proj_weight',
            places=(
                (r'(?=backbone\.)', ''),
                (r'neck\.convs\.0\.conv\.', f'{HEAD}input_proj.'),
                (r'query_embedding\.', f'{HEAD}query_embed.'),
                (r'bbox_head\.fc_cls\.', f'{HEAD}class_embed.'),
                (r'bbox_head\.reg_ffn\.layers\.(\d)\.(0\.)?', rf'{HEAD}bbox_embed.layers.\1.'),
                (r'bbox_head\.fc_reg\.', f'{HEAD}bbox_embed.layers.2.'),
                (r'decoder\.post_norm\.', f'{TRANSFORMER}decoder.norm.'),
                (r'((?:en|de)coder\.layers\.\d+)\.norms\.(\d)\.', rf'{TRANSFORMER}\1.norm{{\2+1}}.'),
                *MMDET_LAYERS,
            ),
            parts=(('self_attn.attn.', 'self_attn.'), ('cross_attn.attn.', 'multihead_attn.')),
        ),
    ),
)
