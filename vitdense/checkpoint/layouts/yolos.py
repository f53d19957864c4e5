"""YOLOS, as a backbone and as a whole detector, and the ImageNet weights of ViT and DeiT that it is trained from."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from . import vit
from .family import Family, Layout


def fit_positions(table: Tensor, shape: tuple[int, ...], hw: tuple[int, int], rule: str, det: Tensor) -> Tensor:
    """A position table (1, P + H*H, C) of a ViT to ``shape``: the class, a grid ``hw``, and ``det`` (1, Q, C).

    A distilled DeiT has P = 2 entries before the grid. As in the release, the class gets that of the distillation.

    Raises:
        ValueError: the table is not that of a ViT for square images.
    """
    found = table.shape[1] - math.isqrt(table.shape[1]) ** 2
    if found not in (1, 2):
        raise ValueError(
            f'pos_embed with {table.shape[1]} entries is neither that of a ViT for square images nor that of a YOLOS '
            f'with the img_size and the det_tokens of the model, which has {shape[1]}'
        )
    wanted = 1, shape[1] - det.shape[1], shape[2]
    return torch.cat([vit.fit_positions(table[:, found - 1 :], wanted, 1, hw, rule), det.to(table)], dim=1)


_VIT = {layout.name: layout for layout in vit.VIT.layouts}
_TIMM, _TRANSFORMERS = _VIT['timm, DeiT, MAE, BEiT'], _VIT['transformers, ViT and DeiT']

_OFFICIAL = replace(
    _TIMM,
    name='official, timm, DeiT, MAE',
    places=((r'(det_token|mid_pos_embed)\b', r'\1'), *_TIMM.places),
)
_HF = replace(
    _TRANSFORMERS,
    name='transformers',
    places=(
        (r'(?:vit\.)?embeddings\.detection_tokens', 'det_token'),
        (r'(?:vit\.)?encoder\.(?:interpolation\.)?mid_position_embeddings', 'mid_pos_embed'),
        (r'(class_labels_classifier|bbox_predictor)\.', None),
        *_TRANSFORMERS.places,
    ),
)

YOLOS = Family(tables=((r'^pos_embed$', fit_positions),), layouts=(_OFFICIAL, _HF, _VIT['JAX']))


def _of_detector(layout: Layout, prefix: str, probe: str, heads: tuple[tuple[str, str], ...]) -> Layout:
    """The layout of a detector whose backbone has that ``layout`` behind ``prefix``."""
    places = tuple((f'{prefix}(?:{old})', new and f'backbone.{new}') for old, new in layout.places)
    return replace(layout, probe=probe, places=(*heads, *places))


YOLOS_DETECTOR = Family(
    whole=True,
    class_head=r'bbox_head\.class_embed\.layers\.2\.(weight|bias)',
    layouts=(
        _of_detector(_OFFICIAL, r'backbone\.', r'class_embed\.', ((r'(?=(class|bbox)_embed\.)', 'bbox_head.'),)),
        _of_detector(
            _HF,
            '',
            r'vit\.embeddings\.detection_tokens',
            (
                (r'class_labels_classifier\.', 'bbox_head.class_embed.'),
                (r'bbox_predictor\.', 'bbox_head.bbox_embed.'),
            ),
        ),
    ),
)
