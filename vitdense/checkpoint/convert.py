"""Foreign checkpoint layouts to ours: pure functions from a state dict to a state dict."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]

WRAPPERS = ('state_dict', 'model', 'module')


@dataclass(frozen=True)
class Layout:
    """One way in which a backbone's parameters are published.

    Attributes:
        name: who publishes them so.
        probe: pattern of a key that only this layout has.
        places: patterns of key beginnings and what replaces them, or None for keys that a backbone does not use. Every
            key must match one. ``{n+1}`` and ``{n-1}`` in a replacement are computed.
        parts: plain replacements in the rest of the key.
        tensors: last step, on the renamed tensors.
    """

    name: str
    probe: str
    places: tuple[tuple[str, str | None], ...]
    parts: tuple[tuple[str, str], ...] = ()
    tensors: Callable[[State], State] = dict

    def rename(self, key: str) -> str | None:
        """Our name of ``key``, or None if a backbone does not use it."""
        for pattern, replacement in self.places:
            found = re.match(pattern, key)
            if not found:
                continue
            if replacement is None:
                return None
            place = re.sub(r'\{(\d+)([+-]1)\}', lambda m: str(int(m[1]) + int(m[2])), found.expand(replacement))
            rest = key[found.end() :]
            for old, new in self.parts:
                rest = rest.replace(old, new)
            return place + rest
        raise ValueError(f'key {key!r} does not belong to the {self.name} layout')


def unwrap(checkpoint: Mapping) -> State:
    """The state dict inside a checkpoint file: wrappers, ``module.`` and a detector's ``backbone.`` prefix removed.

    Raises:
        ValueError: no tensors inside.
    """
    state = checkpoint
    for wrapper in WRAPPERS:
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    state = {key.removeprefix('module.'): value for key, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f'no tensors in the checkpoint, its keys are {sorted(map(str, checkpoint))[:10]}')
    if any(key.startswith('backbone.') for key in state):
        state = {key.removeprefix('backbone.'): v for key, v in state.items() if key.startswith('backbone.')}
    return state


def convert(checkpoint: Mapping, family: str) -> tuple[State, list[str]]:
    """Bring a checkpoint of any known layout into ours.

    Args:
        checkpoint: what the file holds, wrappers included.
        family: a key of ``LAYOUTS``, :attr:`Backbone.family`.

    Returns:
        The state dict under our names, and the foreign keys that a backbone does not use.

    Raises:
        ValueError: no layout of the family fits, or a key that the layout does not know.
    """
    state = unwrap(checkpoint)
    for layout in LAYOUTS[family]:
        if any(re.match(layout.probe, key) for key in state):
            names = {key: layout.rename(key) for key in state}
            kept = {new: state[old] for old, new in names.items() if new is not None}
            return layout.tensors(kept), [old for old, new in names.items() if new is None]
    known = ', '.join(layout.name for layout in LAYOUTS[family])
    raise ValueError(f'not a checkpoint of {family} (known layouts: {known}); its first keys are {list(state)[:5]}')


def _drop_class_position(state: State) -> State:
    """Drop the class entry of a position table (1, 1 + H*W, C) of a square image."""

    def drop(table: Tensor) -> Tensor:
        return table if math.isqrt(table.shape[1]) ** 2 == table.shape[1] else table[:, 1:]

    return {key: drop(value) if key.startswith('pos_embed') else value for key, value in state.items()}


def _join_key_value(state: State) -> State:
    """Join ``attn.k`` and ``attn.v`` (C, C) to ``attn.kv`` (2C, C), keys first."""
    joined = {}
    for key, value in state.items():
        if '.attn.k.' in key:
            joined[key.replace('.attn.k.', '.attn.kv.')] = torch.cat(
                [value, state[key.replace('.attn.k.', '.attn.v.')]]
            )
        elif '.attn.v.' not in key:
            joined[key] = value
    return joined


def _split_in_proj(state: State) -> State:
    """Split the ``in_proj`` (3C, C) of ``nn.MultiheadAttention``; make 1 x 1 convolutions linear layers."""
    split = {}
    for key, value in state.items():
        if '.attn.in_proj_' in key:
            channels = value.shape[0] // 3
            split[key.replace('in_proj_', 'q.')] = value[:channels]
            split[key.replace('in_proj_', 'kv.')] = value[channels:]
        else:
            split[key] = value.flatten(1) if re.search(r'\.fc[12]\.weight$', key) else value
    return split


_HEAD = (r'(norm|head|cls_token|mask_token)\b', None)
_TRANSFORMERS_PARTS = (
    ('layer_norm_', 'norm'),
    ('attention.self.', 'attn.'),
    ('attention.output.dense.', 'attn.proj.'),
    ('attention.', 'attn.'),
    ('query.', 'q.'),
    ('key.', 'k.'),
    ('value.', 'v.'),
    ('sequence_reduction.', 'sr.'),
    ('spatial_reduction.', 'sr.'),
    ('layer_norm.', 'norm.'),
    ('dense', 'fc'),
)
_MMDET_ATTENTION = (('attn.attn.', 'attn.'), ('out_proj.', 'proj.'), ('ffn.layers.0.', 'mlp.fc1.'))

LAYOUTS: dict[str, tuple[Layout, ...]] = {
    'pvt': (
        Layout(
            'official',
            probe=r'block1\.0\.attn\.q\.',
            places=((r'(patch_embed|pos_embed|block)(\d)', r'\1\2'), _HEAD),
            tensors=_drop_class_position,
        ),
        Layout(
            'transformers',
            probe=r'(pvt\.)?encoder\.patch_embeddings\.0\.',
            places=(
                (r'(?:pvt\.)?encoder\.patch_embeddings\.\d\.cls_token', None),
                (r'(?:pvt\.)?encoder\.patch_embeddings\.(\d)\.position_embeddings', r'pos_embed{\1+1}'),
                (r'(?:pvt\.)?encoder\.patch_embeddings\.(\d)\.projection\.', r'patch_embed{\1+1}.proj.'),
                (r'(?:pvt\.)?encoder\.patch_embeddings\.(\d)\.layer_norm\.', r'patch_embed{\1+1}.norm.'),
                (r'(?:pvt\.)?encoder\.block\.(\d)\.(\d+)\.', r'block{\1+1}.\2.'),
                (r'(?:pvt\.)?encoder\.layer_norm\.|classifier\.', None),
            ),
            parts=_TRANSFORMERS_PARTS,
            tensors=lambda state: _drop_class_position(_join_key_value(state)),
        ),
        Layout(
            'mmdet',
            probe=r'layers\.0\.1\.0\.pos_embed',
            places=(
                (r'layers\.(\d)\.0\.projection\.', r'patch_embed{\1+1}.proj.'),
                (r'layers\.(\d)\.0\.norm\.', r'patch_embed{\1+1}.norm.'),
                (r'layers\.(\d)\.1\.0\.pos_embed', r'pos_embed{\1+1}'),
                (r'layers\.(\d)\.1\.(\d+)\.', r'block{\1+1}.{\2-1}.'),
            ),
            parts=(*_MMDET_ATTENTION, ('ffn.layers.3.', 'mlp.fc2.')),
            tensors=_split_in_proj,
        ),
    ),
    'pvt_v2': (
        Layout(
            'official',
            probe=r'block1\.0\.attn\.q\.',
            places=((r'(patch_embed|block|norm)(\d)', r'\1\2'), _HEAD),
        ),
        Layout(
            'timm',
            probe=r'stages\.0\.blocks\.0\.attn\.q\.',
            places=(
                (r'patch_embed\.', 'patch_embed1.'),
                (r'stages\.(\d)\.downsample\.', r'patch_embed{\1+1}.'),
                (r'stages\.(\d)\.blocks\.', r'block{\1+1}.'),
                (r'stages\.(\d)\.norm\.', r'norm{\1+1}.'),
                _HEAD,
            ),
            parts=(('mlp.dwconv.', 'mlp.dwconv.dwconv.'),),
        ),
        Layout(
            'transformers',
            probe=r'(pvt_v2\.)?encoder\.layers\.0\.patch_embedding\.',
            places=(
                (r'(?:pvt_v2\.)?encoder\.layers\.(\d)\.patch_embedding\.', r'patch_embed{\1+1}.'),
                (r'(?:pvt_v2\.)?encoder\.layers\.(\d)\.blocks\.', r'block{\1+1}.'),
                (r'(?:pvt_v2\.)?encoder\.layers\.(\d)\.layer_norm\.', r'norm{\1+1}.'),
                (r'classifier\.', None),
            ),
            parts=_TRANSFORMERS_PARTS,
            tensors=_join_key_value,
        ),
        Layout(
            'mmdet',
            probe=r'layers\.0\.0\.projection\.',
            places=(
                (r'layers\.(\d)\.0\.projection\.', r'patch_embed{\1+1}.proj.'),
                (r'layers\.(\d)\.0\.norm\.', r'patch_embed{\1+1}.norm.'),
                (r'layers\.(\d)\.1\.(\d+)\.', r'block{\1+1}.\2.'),
                (r'layers\.(\d)\.2\.', r'norm{\1+1}.'),
            ),
            parts=(*_MMDET_ATTENTION, ('ffn.layers.1.', 'mlp.dwconv.dwconv.'), ('ffn.layers.4.', 'mlp.fc2.')),
            tensors=_split_in_proj,
        ),
    ),
}
