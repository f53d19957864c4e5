"""Whole detectors: Deformable DETR, whose levels come from a neck as mmdet's ``ChannelMapper``."""

import re

import torch

from .detr import (
    DECODER,
    ENCODER,
    HEAD,
    MMDET_2_PARTS,
    MMDET_PARTS,
    PROJECTIONS,
    TRANSFORMER,
    TRANSFORMERS_PARTS,
    resnet,
    without_counts,
)
from .family import Family, Layout, State, nest, same, under
from .tensors import add_biases, drop_biases

NECK = tuple(
    (f'input_proj.{level}.{i}.', f'neck.{convs}.{part}.')
    for level, convs in enumerate(('convs.0', 'convs.1', 'convs.2', 'extra_convs.0'))
    for i, part in enumerate(('conv', 'gn'))
)
"""Projections of the maps of a backbone with three, and of the level below them."""

NECK_WEIGHTS = r'neck\.(extra_)?convs\.\d\.conv\.weight'
"""Convolutions before a norm, which have a bias in the release and none in mmdet."""

MMDET_NORMS = ('norm2', 'norm1', 'norm3')
"""Those of a layer of the decoder, numbered as they follow each other; ours are named as in the release."""

MMDET_BRANCHES = (
    (f'{HEAD}cls_branches.{{i}}.', f'{HEAD}class_embed.{{i}}.'),
    *((f'{HEAD}reg_branches.{{i}}.{2 * n}.', f'{HEAD}bbox_embed.{{i}}.layers.{n}.') for n in range(3)),
)

QUERY_PARTS = ('reference_points.', 'enc_output.', 'enc_output_norm.', 'pos_trans.', 'pos_trans_norm.')
"""What makes queries of learned embeddings, and of proposals."""

TWO_STAGE = f'{TRANSFORMER}enc_output.weight'
REPEATED = rf'{re.escape(TRANSFORMER)}decoder\.(?=(class|bbox)_embed\.)'
"""With box refinement, the decoder of the release has the heads that it uses once more."""


def _heads_once(state: State) -> State:
    """Leave the heads of the decoder out, or take them where they are the only ones."""
    heads = {re.sub(REPEATED, HEAD, key): value for key, value in state.items() if re.match(REPEATED, key)}
    return heads | {key: value for key, value in state.items() if not re.match(REPEATED, key)}


def _heads_of_decoder(state: State) -> State:
    """The heads that the decoder of the release uses, under its names: none without box refinement."""
    boxes = _heads(state, 'bbox_embed')
    if TWO_STAGE not in state and all(_same_as_first(state, key) for key in boxes):
        return {}
    used = boxes + (_heads(state, 'class_embed') if TWO_STAGE in state else [])
    return {_in_decoder(key): state[key] for key in used}


def _in_decoder(key: str) -> str:
    return key.replace(HEAD, f'{TRANSFORMER}decoder.', 1)


def _heads(state: State, name: str) -> list[str]:
    return [key for key in state if key.startswith(f'{HEAD}{name}.')]


def _same_as_first(state: State, key: str) -> bool:
    """Whether a parameter of a layer's head equals the first layer's."""
    return torch.equal(state[key], state[re.sub(r'(_embed)\.\d+\.', r'\1.0.', key)])


def _proposal_classes(own: State) -> str | None:
    """The last of the layers that classify: those of the decoder come before it."""
    if TWO_STAGE not in own:
        return None
    return max(_heads(own, 'class_embed'), key=lambda name: int(name.split('.')[2])).rpartition('.')[0]


def _for_each_layer(state: State) -> State:
    """Give all layers the heads of the first where a file has only these."""
    pattern = rf'{re.escape(TRANSFORMER)}decoder\.layers\.(\d+)\.'
    layers = {found[1] for key in state if (found := re.match(pattern, key))}
    repeated: State = {}
    for key in _heads(state, 'class_embed.0') + _heads(state, 'bbox_embed.0'):
        names = {key.replace('_embed.0.', f'_embed.{layer}.') for layer in layers}
        if names & state.keys() == {key}:
            repeated |= dict.fromkeys(names, state[key])
    return state | repeated


def _to_transformers(state: State) -> State:
    """Leave out what transformers ties: heads that the decoder has, too, and those that all layers share."""
    decoder = _heads_of_decoder(state)
    kept = dict(state)
    for keys in (_heads(state, 'class_embed'), _heads(state, 'bbox_embed')):
        shared = all(_same_as_first(state, key) for key in keys)
        for key in keys:
            if _in_decoder(key) in decoder or (shared and '_embed.0.' not in key):
                del kept[key]
    return PROJECTIONS.split(without_counts(kept | decoder))


DEFORMABLE_DETR = Family(
    classes=('DeformableDETRHead',),
    whole=True,
    own=r'bbox_head\.transformer\.level_embed$',
    class_head=r'bbox_head\.class_embed\.\d+\.(weight|bias)',
    proposals=_proposal_classes,
    layouts=(
        Layout(
            'fundamentalvision/Deformable-DETR',
            probe=r'transformer\.decoder\.layers\.0\.cross_attn\.sampling_offsets\.',
            places=(
                *resnet('backbone.0.body.'),
                *NECK,
                *under(HEAD, 'transformer.', 'class_embed.', 'bbox_embed.', 'query_embed.'),
            ),
            tensors=_heads_once,
            inverse=lambda state: without_counts(state) | _heads_of_decoder(state),
            targets=('official',),
            wrapper='model',
        ),
        Layout(
            'transformers',
            probe=r'model\.decoder\.layers\.0\.encoder_attn\.sampling_offsets\.',
            places=(
                *resnet('model.backbone.[conv_encoder.|]model.'),
                *((f'model.{theirs}', ours) for theirs, ours in NECK),
                ('model.query_position_embeddings.', f'{HEAD}query_embed.'),
                *nest(
                    same('level_embed', *QUERY_PARTS, 'decoder.class_embed.', 'decoder.bbox_embed.'),
                    'model.',
                    TRANSFORMER,
                ),
                ('model.encoder.layers.{i}.self_attn_layer_norm.', f'{ENCODER}norm1.'),
                ('model.encoder.layers.{i}.final_layer_norm.', f'{ENCODER}norm2.'),
                ('model.decoder.layers.{i}.encoder_attn_layer_norm.', f'{DECODER}norm1.'),
                ('model.decoder.layers.{i}.self_attn_layer_norm.', f'{DECODER}norm2.'),
                ('model.decoder.layers.{i}.final_layer_norm.', f'{DECODER}norm3.'),
                ('model.encoder.layers.{i}.', ENCODER),
                ('model.decoder.layers.{i}.', DECODER),
                *under(HEAD, 'class_embed.', 'bbox_embed.'),
            ),
            parts=(('encoder_attn.', 'cross_attn.'), *TRANSFORMERS_PARTS),
            tensors=lambda state: _for_each_layer(_heads_once(PROJECTIONS.join(state))),
            inverse=_to_transformers,
            targets=('transformers',),
        ),
        Layout(
            'mmdet',
            probe=r'decoder\.layers\.0\.cross_attn\.sampling_offsets\.',
            places=(
                *same('backbone.', 'neck.'),
                ('query_embedding.', f'{HEAD}query_embed.'),
                ('level_embed', f'{TRANSFORMER}level_embed'),
                ('reference_points_fc.', f'{TRANSFORMER}reference_points.'),
                ('memory_trans_fc.', f'{TRANSFORMER}enc_output.'),
                ('memory_trans_norm.', f'{TRANSFORMER}enc_output_norm.'),
                ('pos_trans_fc.', f'{TRANSFORMER}pos_trans.'),
                ('pos_trans_norm.', f'{TRANSFORMER}pos_trans_norm.'),
                *MMDET_BRANCHES,
                ('encoder.layers.{i}.norms.{n}.', f'{ENCODER}norm{{n+1}}.'),
                *((f'decoder.layers.{{i}}.norms.{n}.', f'{DECODER}{norm}.') for n, norm in enumerate(MMDET_NORMS)),
                ('decoder.layers.{i}.self_attn.attn.', f'{DECODER}self_attn.'),
                ('encoder.layers.{i}.', ENCODER),
                ('decoder.layers.{i}.', DECODER),
            ),
            parts=MMDET_PARTS,
            tensors=lambda state: add_biases(state, NECK_WEIGHTS),
            inverse=lambda state: drop_biases(state, NECK_WEIGHTS, 'mmdet'),
            targets=('mmdet',),
            wrapper='state_dict',
        ),
        Layout(
            'mmdet 2',
            probe=r'bbox_head\.transformer\.decoder\.layers\.0\.attentions\.1\.sampling_offsets\.',
            places=(
                *same('backbone.', 'neck.'),
                (f'{HEAD}query_embedding.', f'{HEAD}query_embed.'),
                (f'{TRANSFORMER}level_embeds', f'{TRANSFORMER}level_embed'),
                *nest(same(*QUERY_PARTS), TRANSFORMER, TRANSFORMER),
                *MMDET_BRANCHES,
                (f'{ENCODER}norms.{{n}}.', f'{ENCODER}norm{{n+1}}.'),
                (f'{ENCODER}attentions.0.', f'{ENCODER}self_attn.'),
                *((f'{DECODER}norms.{n}.', f'{DECODER}{norm}.') for n, norm in enumerate(MMDET_NORMS)),
                (f'{DECODER}attentions.0.attn.', f'{DECODER}self_attn.'),
                (f'{DECODER}attentions.1.', f'{DECODER}cross_attn.'),
                *same(ENCODER, DECODER),
            ),
            parts=MMDET_2_PARTS,
            tensors=lambda state: add_biases(state, NECK_WEIGHTS),
        ),
    ),
)
