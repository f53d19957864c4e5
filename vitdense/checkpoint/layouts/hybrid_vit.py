"""Hybrids of a ResNet and a ViT: what follows the ResNet is published in the layout of a ViT."""

import re
from dataclasses import replace

from .family import Family, State, same
from .vit import JAX, RELEASE, VIT, nest


def _from_jax(state: State) -> State:
    """Flatten the group norms of the ResNet, which JAX stores as (1, 1, 1, C); all else as in a ViT."""
    flat = {key: value.flatten() if re.search(r'norm\d?\.\w+$', key) else value for key, value in state.items()}
    return JAX.tensors(flat)


HYBRID_VIT = Family(
    classes=('HybridViT',),
    fresh=VIT.fresh,
    tables=VIT.tables,
    layouts=(
        replace(
            RELEASE,
            name='timm',
            places=(*RELEASE.places, *same('patch_embed.backbone')),
            targets=('timm',),
            wrapper='',
        ),
        replace(
            JAX,
            places=(
                *JAX.places,
                ('conv_root/', 'patch_embed.backbone.stem.conv.'),
                ('gn_root/', 'patch_embed.backbone.stem.norm.'),
                *nest(
                    (
                        ('conv_proj/', 'downsample.conv.'),
                        ('gn_proj/', 'downsample.norm.'),
                        ('conv{k}/', 'conv{k}.'),
                        ('gn{k}/', 'norm{k}.'),
                    ),
                    'block{i+1}/unit{j+1}/',
                    'patch_embed.backbone.stages.{i}.blocks.{j}.',
                ),
            ),
            tensors=_from_jax,
        ),
    ),
)
