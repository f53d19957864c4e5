"""PVT and PVTv2."""

import math
import re
from functools import partial

from torch import Tensor

from vitdense.models.layers.pos_embed import resize_grid

from .family import Family, Layout, State, nest, same
from .tensors import Rows, add_class_entry, drop_class_entry

_KEY_VALUE = Rows('.attn.kv.', ('.attn.k.', '.attn.v.'))
_ALL = Rows('.attn.qkv.', ('.attn.q.', '.attn.k.', '.attn.v.'))


_drop_class_position, _add_class_position = (
    partial(change, key='pos_embed4') for change in (drop_class_entry, add_class_entry)
)


def _split_all(state: State) -> State:
    """Split the ``in_proj`` (3C, C) of ``nn.MultiheadAttention``; make 1 x 1 convolutions linear layers."""
    linear = {key: value.flatten(1) if _is_linear(key) else value for key, value in state.items()}
    return _KEY_VALUE.join(_ALL.split(linear))


def _join_all(state: State) -> State:
    """Undo :func:`_split_all`."""
    joined = _ALL.join(_KEY_VALUE.split(state))
    return {key: value[..., None, None] if _is_linear(key) else value for key, value in joined.items()}


def _is_linear(key: str) -> bool:
    return re.search(r'\.fc[12]\.weight$', key) is not None


_HEAD = ('norm', 'head', 'cls_token', 'mask_token')
_MMDET_PARTS = (
    ('attn.attn.in_proj_', 'attn.qkv.'),
    ('attn.attn.out_proj.', 'attn.proj.'),
    ('ffn.layers.0.', 'mlp.fc1.'),
)


def _transformers_parts(attention: str, reduction: str, projection: str) -> tuple[tuple[str, str], ...]:
    rows = tuple((f'{name}.', f'{name[0]}.') for name in ('query', 'key', 'value'))
    return (
        ('layer_norm_{i}.', 'norm{i}.'),
        ('mlp.dense{i}.', 'mlp.fc{i}.'),
        *nest((*rows, (f'{reduction}_reduction.', 'sr.'), ('layer_norm.', 'norm.')), attention, 'attn.'),
        (projection, 'attn.proj.'),
    )


def resize_square(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A position table (1, H*W, C) of a square image to another square one, bilinearly."""
    old, new = math.isqrt(table.shape[1]), math.isqrt(shape[1])
    return resize_grid(table, (old, old), (new, new))


PVT = Family(
    classes=('PVT',),
    tables=((r'pos_embed\d$', resize_square),),
    layouts=(
        Layout(
            'PVT release',
            probe=r'block1\.0\.attn\.q\.',
            places=same('patch_embed{i}.', 'pos_embed{i}', 'block{i}.'),
            dropped=_HEAD,
            tensors=_drop_class_position,
            inverse=_add_class_position,
            targets=('official',),
        ),
        Layout(
            'transformers',
            probe=r'(pvt\.)?encoder\.patch_embeddings\.0\.',
            places=(
                ('[pvt.|]encoder.patch_embeddings.{i}.position_embeddings', 'pos_embed{i+1}'),
                ('[pvt.|]encoder.patch_embeddings.{i}.projection.', 'patch_embed{i+1}.proj.'),
                ('[pvt.|]encoder.patch_embeddings.{i}.layer_norm.', 'patch_embed{i+1}.norm.'),
                ('[pvt.|]encoder.block.{i}.{j}.', 'block{i+1}.{j}.'),
            ),
            parts=_transformers_parts('attention.self.', 'sequence', 'attention.output.dense.'),
            dropped=(
                '[pvt.|]encoder.patch_embeddings.{i}.cls_token',
                '[pvt.|]encoder.layer_norm.',
                'classifier.',
            ),
            tensors=lambda state: _drop_class_position(_KEY_VALUE.join(state)),
            inverse=lambda state: _KEY_VALUE.split(_add_class_position(state)),
            targets=('transformers',),
        ),
        Layout(
            'mmdet',
            probe=r'layers\.0\.1\.0\.pos_embed',
            places=(
                ('layers.{i}.0.projection.', 'patch_embed{i+1}.proj.'),
                ('layers.{i}.0.norm.', 'patch_embed{i+1}.norm.'),
                ('layers.{i}.1.0.pos_embed', 'pos_embed{i+1}'),
                ('layers.{i}.1.{j+1}.', 'block{i+1}.{j}.'),
            ),
            parts=(*_MMDET_PARTS, ('ffn.layers.3.', 'mlp.fc2.')),
            tensors=_split_all,
            inverse=_join_all,
            targets=('mmdet',),
            wrapper='state_dict',
        ),
    ),
)

PVT_V2 = Family(
    classes=('PVTv2',),
    layouts=(
        Layout(
            'PVTv2 release',
            probe=r'block1\.0\.attn\.q\.',
            places=same('patch_embed{i}.', 'block{i}.', 'norm{i}.'),
            dropped=_HEAD,
            targets=('official',),
        ),
        Layout(
            'timm',
            probe=r'stages[._]0\.blocks\.0\.attn\.q\.',
            places=(
                ('patch_embed.', 'patch_embed1.'),
                ('stages[.|_]{i+1}.downsample.', 'patch_embed{i+2}.'),
                ('stages[.|_]{i}.blocks.{j}.', 'block{i+1}.{j}.'),
                ('stages[.|_]{i}.norm.', 'norm{i+1}.'),
            ),
            parts=(('mlp.dwconv.', 'mlp.dwconv.dwconv.'),),
            dropped=('head',),
            targets=('timm',),
        ),
        Layout(
            'transformers',
            probe=r'(pvt_v2\.)?encoder\.layers\.0\.patch_embedding\.',
            places=(
                ('[pvt_v2.|]encoder.layers.{i}.patch_embedding.proj.', 'patch_embed{i+1}.proj.'),
                ('[pvt_v2.|]encoder.layers.{i}.patch_embedding.layer_norm.', 'patch_embed{i+1}.norm.'),
                ('[pvt_v2.|]encoder.layers.{i}.blocks.{j}.', 'block{i+1}.{j}.'),
                ('[pvt_v2.|]encoder.layers.{i}.layer_norm.', 'norm{i+1}.'),
            ),
            parts=_transformers_parts('attention.', 'spatial', 'attention.proj.'),
            dropped=('classifier.',),
            tensors=_KEY_VALUE.join,
            inverse=_KEY_VALUE.split,
            targets=('transformers',),
        ),
        Layout(
            'mmdet',
            probe=r'layers\.0\.0\.projection\.',
            places=(
                ('layers.{i}.0.projection.', 'patch_embed{i+1}.proj.'),
                ('layers.{i}.0.norm.', 'patch_embed{i+1}.norm.'),
                ('layers.{i}.1.{j}.', 'block{i+1}.{j}.'),
                ('layers.{i}.2.', 'norm{i+1}.'),
            ),
            parts=(*_MMDET_PARTS, ('ffn.layers.1.', 'mlp.dwconv.dwconv.'), ('ffn.layers.4.', 'mlp.fc2.')),
            tensors=_split_all,
            inverse=_join_all,
            targets=('mmdet',),
            wrapper='state_dict',
        ),
    ),
)
