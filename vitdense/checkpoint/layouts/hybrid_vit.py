"""Hybrids of a ResNet and a ViT: what follows the ResNet is published as that of a ViT."""

import re
from dataclasses import replace

from .family import Family, State
from .vit import VIT

_OF_VIT = {layout.name: layout for layout in VIT.layouts}
_JAX = _OF_VIT['JAX']


def _from_jax(state: State) -> State:
    """Flatten the group norms of the ResNet, which JAX stores as (1, 1, 1, C); all else as in a ViT."""
    flat = {key: value.flatten() if re.search(r'norm\d?\.\w+$', key) else value for key, value in state.items()}
    return _JAX.tensors(flat)


HYBRID_VIT = Family(
    releases={'vit_base_r50_s16': 'https://storage.googleapis.com/vit_models/imagenet21k/R50+ViT-B_16.npz'},
    tables=VIT.tables,
    layouts=(
        replace(_OF_VIT['timm, DeiT, MAE, BEiT'], name='timm'),
        replace(
            _JAX,
            places=(
                (r'conv_root/', 'patch_embed.backbone.stem.conv.'),
                (r'gn_root/', 'patch_embed.backbone.stem.norm.'),
                (r'block(\d)/unit(\d+)/', r'patch_embed.backbone.stages.{\1-1}.blocks.{\2-1}.'),
                *_JAX.places,
            ),
            parts=(
                *_JAX.parts,
                ('conv_proj/', 'downsample.conv.'),
                ('gn_proj/', 'downsample.norm.'),
                ('gn', 'norm'),
                ('/', '.'),
            ),
            tensors=_from_jax,
        ),
    ),
)
