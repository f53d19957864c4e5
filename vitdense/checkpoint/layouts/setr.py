"""Whole segmentors: SETR with its three decoders."""

import re

import torch
from torch import Tensor
from torch.nn import functional as F

from .family import Family, Layout, State

HEADS = r'((?:decode_head|auxiliary_head\.\d+)\.)'


def _name_classifiers(state: State) -> State:
    """Call the last convolution of a head, which is the one without a norm, ``conv_seg``."""
    named = {}
    for key, value in state.items():
        found = re.fullmatch(rf'{HEADS}(convs\.\d+)\.conv\.(\w+)', key)
        classifies = found and f'{found[1]}{found[2]}.bn.weight' not in state
        named[f'{found[1]}conv_seg.{found[3]}' if classifies else key] = value
    return named


def _add_biases(state: State, pattern: str) -> State:
    """Give the convolutions whose weights match ``pattern`` a bias of zeros."""
    weights = [key for key in state if re.fullmatch(pattern, key)]
    return state | {key.replace('.weight', '.bias'): torch.zeros_like(state[key][:, 0, 0, 0]) for key in weights}


def _shallowest_first(state: State) -> State:
    """Turn around the order of mmseg's aggregation, which begins at the deepest map; its classifier becomes 3 x 3."""
    numbers = [int(match[1]) for key in state if (match := re.match(r'neck\.extract\.(\d+)\.', key))]
    last = max(numbers)

    def turn(key: str) -> str:
        pattern = r'(neck\.extract|decode_head\.convs|auxiliary_head)\.(\d+)\.'
        return re.sub(pattern, lambda match: f'{match[1]}.{last - int(match[2])}.', key)

    def fit(key: str, value: Tensor) -> Tensor:
        if key != 'decode_head.conv_seg.weight':
            return value
        parts = value.split(value.shape[1] // (last + 1), dim=1)
        return F.pad(torch.cat(parts[::-1], dim=1), (1, 1, 1, 1))

    return {turn(key): fit(key, value) for key, value in state.items()}


def _without_class_position(state: State) -> State:
    """Drop the first entry of the table of positions: the class token is taken off before the first block."""
    return {key: value[:, 1:] if key == 'backbone.pos_embed' else value for key, value in state.items()}


_UNUSED = (rf'{HEADS}conv_seg\.', None)
_CLASS_TOKEN = (r'backbone\.cls_token$', None)

SETR = Family(
    whole=True,
    class_head=rf'{HEADS}conv_seg\.(weight|bias)',
    layouts=(
        Layout(
            'fudan-zvg/SETR, naive and PUP',
            probe=r'decode_head\.syncbn_fc_0\.',
            places=(
                _UNUSED,
                (rf'{HEADS}conv_(\d+)\.', r'\1convs.\2.conv.'),
                (rf'{HEADS}syncbn_fc_(\d+)\.', r'\1convs.\2.bn.'),
                (rf'(?=backbone\.|{HEADS}norm\.)', ''),
            ),
            tensors=_name_classifiers,
        ),
        Layout(
            'fudan-zvg/SETR, MLA',
            probe=r'backbone\.mla\.',
            places=(
                _UNUSED,
                _CLASS_TOKEN,
                (r'backbone\.norm_(\d)\.', r'neck.norm.\1.'),
                *(
                    (rf'backbone\.mla\.mla_p{map + 2}{old}\.{i}\.', f'neck.{new}.{map}.{part}.')
                    for map in range(4)
                    for old, new in (('_1x1', 'project'), ('', 'extract'))
                    for i, part in enumerate(('conv', 'bn'))
                ),
                *(
                    (rf'decode_head\.mlahead\.head{map + 2}\.{i}\.', f'decode_head.convs.{map}.{part}.')
                    for map in range(4)
                    for i, part in ((0, '0.conv'), (1, '0.bn'), (3, '1.conv'), (4, '1.bn'))
                ),
                (rf'{HEADS}(?:cls|aux)\.', r'\1conv_seg.'),
                (r'(?=backbone\.)', ''),
            ),
            tensors=lambda state: _add_biases(_without_class_position(state), r'auxiliary_head\.\d+\.conv_seg\.weight'),
        ),
        Layout(
            'mmseg, MLA',
            probe=r'neck\.mla\.',
            places=(
                _CLASS_TOKEN,
                (r'neck\.mla\.channel_proj\.', 'neck.project.'),
                (r'neck\.mla\.feat_extract\.', 'neck.extract.'),
                (r'decode_head\.up_convs\.', 'decode_head.convs.'),
                (rf'(?=backbone\.|neck\.norm\.|{HEADS}conv_seg\.)', ''),
            ),
            tensors=lambda state: _shallowest_first(_without_class_position(state)),
            note='; its outputs are those of model.decode_head.up_align_corners=False',
        ),
        Layout(
            'mmseg, naive and PUP',
            probe=r'decode_head\.up_convs\.',
            places=(
                (rf'{HEADS}up_convs\.(\d+)\.0\.', r'\1convs.\2.'),
                (rf'(?=backbone\.|{HEADS}(norm|conv_seg)\.)', ''),
            ),
            tensors=lambda state: _add_biases(state, rf'{HEADS}convs\.\d+\.conv\.weight'),
        ),
    ),
)
