"""Whole detectors: DETR."""

import re

from .family import Family, Layout, State, same, under
from .tensors import Rows

HEAD = 'bbox_head.'
TRANSFORMER = f'{HEAD}transformer.'
ENCODER, DECODER = (f'{TRANSFORMER}{part}.layers.{{i}}.' for part in ('encoder', 'decoder'))
PROJECTIONS = Rows('.in_proj_', ('.q_proj.', '.k_proj.', '.v_proj.'))
RESNET = ('conv1.', 'bn1.', 'layer{i}.{j}.')


def resnet(prefix: str) -> tuple[tuple[str, str], ...]:
    """Places of a ResNet whose names begin with ``prefix``."""
    return tuple((prefix + part, f'backbone.{part}') for part in RESNET)


def without_counts(state: State) -> State:
    """Without the numbers of batches of the backbone, whose batch norms are frozen in the release and count nothing."""
    return {key: value for key, value in state.items() if not re.fullmatch(r'backbone\..*num_batches_tracked', key)}


TRANSFORMERS_PARTS = (
    ('self_attn.[out_proj|o_proj].', 'self_attn.out_proj.'),
    ('[|mlp.]fc{n}.', 'linear{n}.'),
)
"""What all layers of encoders and decoders have in transformers: its files, and since version 5 its modules."""

MMDET_PARTS = (('ffn.layers.0.0.', 'linear1.'), ('ffn.layers.1.', 'linear2.'))
MMDET_2_PARTS = tuple((f'[ffns.0|ffn].{theirs.removeprefix("ffn.")}', ours) for theirs, ours in MMDET_PARTS)
MMDET_BRANCHES = (
    (f'{HEAD}fc_cls.', f'{HEAD}class_embed.'),
    (f'{HEAD}reg_ffn.layers.0.0.', f'{HEAD}bbox_embed.layers.0.'),
    (f'{HEAD}reg_ffn.layers.1.', f'{HEAD}bbox_embed.layers.1.'),
    (f'{HEAD}fc_reg.', f'{HEAD}bbox_embed.layers.2.'),
)

DETR = Family(
    classes=('DETRHead',),
    whole=True,
    own=r'bbox_head\.transformer\.decoder\.layers\.0\.multihead_attn\.',
    class_head=r'bbox_head\.class_embed\.(weight|bias)',
    layouts=(
        Layout(
            'facebookresearch/detr',
            probe=r'transformer\.decoder\.layers\.0\.multihead_attn\.in_proj_weight',
            places=(
                *resnet('backbone.0.body.'),
                *under(HEAD, 'transformer.', 'class_embed.', 'bbox_embed.', 'query_embed.', 'input_proj.'),
            ),
            inverse=without_counts,
            targets=('official',),
            wrapper='model',
        ),
        Layout(
            'transformers',
            probe=r'model\.decoder\.layers\.0\.encoder_attn\.q_proj\.weight',
            places=(
                *resnet('model.backbone.[conv_encoder.|]model.'),
                ('model.query_position_embeddings.', f'{HEAD}query_embed.'),
                ('model.input_projection.', f'{HEAD}input_proj.'),
                ('class_labels_classifier.', f'{HEAD}class_embed.'),
                ('bbox_predictor.', f'{HEAD}bbox_embed.'),
                ('model.decoder.layernorm.', f'{TRANSFORMER}decoder.norm.'),
                ('model.encoder.layers.{i}.final_layer_norm.', f'{ENCODER}norm2.'),
                ('model.decoder.layers.{i}.final_layer_norm.', f'{DECODER}norm3.'),
                ('model.encoder.layers.{i}.', ENCODER),
                ('model.decoder.layers.{i}.', DECODER),
            ),
            parts=(
                ('self_attn_layer_norm.', 'norm1.'),
                ('encoder_attn_layer_norm.', 'norm2.'),
                ('encoder_attn.[out_proj|o_proj].', 'multihead_attn.out_proj.'),
                ('encoder_attn.', 'multihead_attn.'),
                *TRANSFORMERS_PARTS,
            ),
            tensors=PROJECTIONS.join,
            inverse=lambda state: PROJECTIONS.split(without_counts(state)),
            targets=('transformers',),
        ),
        Layout(
            'mmdet',
            probe=r'decoder\.layers\.0\.cross_attn\.attn\.in_proj_weight',
            places=(
                *same('backbone.'),
                ('neck.convs.0.conv.', f'{HEAD}input_proj.'),
                ('query_embedding.', f'{HEAD}query_embed.'),
                *MMDET_BRANCHES,
                ('decoder.post_norm.', f'{TRANSFORMER}decoder.norm.'),
                ('encoder.layers.{i}.', ENCODER),
                ('decoder.layers.{i}.', DECODER),
            ),
            parts=(
                ('self_attn.attn.', 'self_attn.'),
                ('cross_attn.attn.', 'multihead_attn.'),
                ('norms.{n}.', 'norm{n+1}.'),
                *MMDET_PARTS,
            ),
            targets=('mmdet',),
            wrapper='state_dict',
        ),
        Layout(
            'mmdet 2',
            probe=r'bbox_head\.transformer\.decoder\.layers\.0\.(attentions\.1|multihead_attn)\.attn\.',
            places=(
                *same('backbone.', f'{HEAD}input_proj.'),
                (f'{HEAD}query_embedding.', f'{HEAD}query_embed.'),
                *MMDET_BRANCHES,
                (f'{TRANSFORMER}decoder.[post_norm|norm].', f'{TRANSFORMER}decoder.norm.'),
                *same(ENCODER, DECODER),
            ),
            parts=(
                ('[attentions.0|self_attn].attn.', 'self_attn.'),
                ('[attentions.1|multihead_attn].attn.', 'multihead_attn.'),
                ('norms.{n}.', 'norm{n+1}.'),
                *MMDET_2_PARTS,
            ),
        ),
    ),
)
