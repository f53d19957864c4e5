"""Whole segmentors: SETR with its three decoders."""

import re
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from . import vit
from .family import Family, Layout, State, nest, same
from .tensors import add_biases, drop_biases

HEADS = ('decode_head.', 'auxiliary_head.{h}.')
HEAD = r'((?:decode_head|auxiliary_head\.\d+)\.)'
BACKBONE = same('backbone.cls_token', 'backbone.pos_embed', 'backbone.patch_embed.', 'backbone.blocks.{i}.')
UP_WEIGHTS = rf'{HEAD}convs\.\d+\.conv\.weight'
AUXILIARY_WEIGHTS = r'auxiliary_head\.\d+\.conv_seg\.weight'
PATCH_WEIGHT, PATCH_BIAS = r'backbone\.patch_embed\.proj\.weight', 'backbone.patch_embed.proj.bias'


def _name_classifiers(state: State) -> State:
    """Call the last convolution of a head, which is the one without a norm, ``conv_seg``."""
    named = {}
    for key, value in state.items():
        found = re.fullmatch(rf'{HEAD}(convs\.\d+)\.conv\.(\w+)', key)
        if found and f'{found[1]}{found[2]}.bn.weight' not in state:
            key = f'{found[1]}conv_seg.{found[3]}'
        named[key] = value
    return named


def _number_classifiers(state: State) -> State:
    """Undo :func:`_name_classifiers`."""

    def number(found: re.Match) -> str:
        count = sum(bool(re.fullmatch(rf'{re.escape(found[1])}convs\.\d+\.conv\.weight', key)) for key in state)
        return f'{found[1]}convs.{count}.conv.'

    return {re.sub(rf'^{HEAD}conv_seg\.', number, key): value for key, value in state.items()}


def _turn(state: State) -> State:
    """Turn around the order of mmseg's aggregation, which begins at the deepest map."""
    numbers = [int(found[1]) for key in state if (found := re.match(r'neck\.extract\.(\d+)\.', key))]
    last = max(numbers, default=0)

    def turn(key: str) -> str:
        pattern = r'^(neck\.extract|decode_head\.convs|auxiliary_head)\.(\d+)\.'
        return re.sub(pattern, lambda found: f'{found[1]}.{last - int(found[2])}.', key)

    def turn_inputs(key: str, value: Tensor) -> Tensor:
        if key != 'decode_head.conv_seg.weight':
            return value
        return torch.cat(value.split(value.shape[1] // (last + 1), dim=1)[::-1], dim=1)

    return {turn(key): turn_inputs(key, value) for key, value in state.items()}


def _widen_classifier(state: State) -> State:
    """mmseg's classifier behind the aggregation is 1 x 1; the release has 3 x 3."""
    key = 'decode_head.conv_seg.weight'
    return {name: F.pad(value, (1, 1, 1, 1)) if name == key else value for name, value in state.items()}


def _narrow_classifier(state: State) -> State:
    """Undo :func:`_widen_classifier` where the classifier sees no more than the pixel itself."""
    key = 'decode_head.conv_seg.weight'
    narrow = state | {key: state[key][:, :, 1:2, 1:2].contiguous()} if key in state else state
    if key in state and not torch.equal(_widen_classifier(narrow)[key], state[key]):
        raise ValueError(f'{key} is not zero around its middle, and the mmseg layout has a 1 x 1 convolution for it')
    return narrow


def _without_class(state: State) -> State:
    """Drop the entry of the class token in the table of positions: it is taken off before the first block."""
    return {key: value[:, 1:] if key == 'backbone.pos_embed' else value for key, value in state.items()}


def _with_class(state: State) -> State:
    """Undo :func:`_without_class` where there is no class token, with one and an entry of zeros."""
    if 'backbone.cls_token' in state:
        raise ValueError(
            'backbone.cls_token has no place: models of this layout take theirs off before the first block'
        )
    if 'backbone.pos_embed' not in state:
        return state
    table = state['backbone.pos_embed']
    token = torch.zeros_like(table[:, :1])
    return {'backbone.cls_token': token} | state | {'backbone.pos_embed': torch.cat([token, table], dim=1)}


def _without_zero_patch_bias(state: State) -> State:
    """The patch embedding of mmseg has a bias only with ``patch_bias=True``, which its configs of SETR do not say."""
    bias = state.get(PATCH_BIAS)
    return state if bias is None or bias.any() else {key: state[key] for key in state if key != PATCH_BIAS}


_OF_MMSEG = nest(vit.MMSEG.places, 'backbone.', 'backbone.')

_UP = Layout(
    'mmseg, PUP',
    probe=r'decode_head\.up_convs\.1\.',
    places=(
        *_OF_MMSEG,
        *((f'{head}up_convs.{{i}}.0.', f'{head}convs.{{i}}.') for head in HEADS),
        *same(*(f'{head}{part}.' for head in HEADS for part in ('norm', 'conv_seg'))),
    ),
    tensors=lambda state: add_biases(state, f'{UP_WEIGHTS}|{PATCH_WEIGHT}'),
    inverse=lambda state: drop_biases(_without_zero_patch_bias(state), UP_WEIGHTS, 'mmseg'),
    targets=('mmseg',),
    wrapper='state_dict',
)

SETR = Family(
    classes=('SETRUPHead', 'SETRMLAHead'),
    whole=True,
    own=r'decode_head\.convs\.0\.conv\.bias|neck\.extract\.',
    class_head=rf'{HEAD}conv_seg\.(weight|bias)',
    layouts=(
        Layout(
            'fudan-zvg/SETR, naive and PUP',
            probe=r'decode_head\.syncbn_fc_0\.',
            dropped=tuple(f'{head}conv_seg.' for head in HEADS),
            places=(
                *BACKBONE,
                *same(*(f'{head}norm.' for head in HEADS)),
                *((f'{head}conv_{{i}}.', f'{head}convs.{{i}}.conv.') for head in HEADS),
                *((f'{head}syncbn_fc_{{i}}.', f'{head}convs.{{i}}.bn.') for head in HEADS),
            ),
            tensors=_name_classifiers,
            inverse=_number_classifiers,
            targets=('official',),
            wrapper='state_dict',
        ),
        Layout(
            'fudan-zvg/SETR, MLA',
            probe=r'backbone\.mla\.',
            dropped=('backbone.cls_token', *(f'{head}conv_seg.' for head in HEADS)),
            places=(
                *BACKBONE,
                ('backbone.norm_{i}.', 'neck.norm.{i}.'),
                *(
                    (f'backbone.mla.mla_p{{i+2}}{theirs}.{n}.', f'neck.{ours}.{{i}}.{part}.')
                    for theirs, ours in (('_1x1', 'project'), ('', 'extract'))
                    for n, part in enumerate(('conv', 'bn'))
                ),
                *(
                    (f'decode_head.mlahead.head{{i+2}}.{n}.', f'decode_head.convs.{{i}}.{part}.')
                    for n, part in ((0, '0.conv'), (1, '0.bn'), (3, '1.conv'), (4, '1.bn'))
                ),
                ('decode_head.cls.', 'decode_head.conv_seg.'),
                ('auxiliary_head.{h}.aux.', 'auxiliary_head.{h}.conv_seg.'),
            ),
            tensors=lambda state: add_biases(_without_class(state), AUXILIARY_WEIGHTS),
            inverse=lambda state: drop_biases(_with_class(state), AUXILIARY_WEIGHTS, 'fudan-zvg/SETR'),
            targets=('official',),
            wrapper='state_dict',
        ),
        Layout(
            'mmseg, MLA',
            probe=r'neck\.mla\.',
            dropped=('backbone.cls_token',),
            places=(
                *_OF_MMSEG,
                ('neck.mla.channel_proj.', 'neck.project.'),
                ('neck.mla.feat_extract.', 'neck.extract.'),
                ('decode_head.up_convs.', 'decode_head.convs.'),
                *same('neck.norm.', *(f'{head}conv_seg.' for head in HEADS)),
            ),
            tensors=lambda state: add_biases(_widen_classifier(_turn(_without_class(state))), PATCH_WEIGHT),
            inverse=lambda state: _without_zero_patch_bias(_turn(_narrow_classifier(_with_class(state)))),
            targets=('mmseg',),
            wrapper='state_dict',
            note='its outputs are those of model.decode_head.up_align_corners=False',
        ),
        _UP,
        replace(
            _UP,
            name='mmseg, naive',
            probe=r'decode_head\.up_convs\.0\.',
            note='its outputs are those of model.decode_head.up_scale=4',
        ),
    ),
)
