"""YOLOS, as a backbone and as a whole detector, and the ImageNet weights of ViT and DeiT that it is trained from."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from . import vit
from .family import Family, Layout, nest, same, under


def fit_positions(table: Tensor, shape: tuple[int, ...], hw: tuple[int, int], rule: str, det: Tensor) -> Tensor:
    """A position table (1, P + H*H, C) of a ViT to ``shape``: the class, a grid ``hw``, and ``det`` (1, Q, C).

    A distilled DeiT has P = 2 entries before the grid. As in the release, the class gets that of the distillation.

    Raises:
        ValueError: the table is not that of a ViT for square images.
    """
    found = table.shape[1] - math.isqrt(table.shape[1]) ** 2
    if found not in (1, 2):
        raise ValueError(
            f'pos_embed with {table.shape[1]} entries fits neither a ViT for square images nor a YOLOS '
            f'with the img_size and the det_tokens of the model, which has {shape[1]}'
        )
    wanted = 1, shape[1] - det.shape[1], shape[2]
    return torch.cat([vit.fit_positions(table[:, found - 1 :], wanted, 1, hw, rule), det.to(table)], dim=1)


_PLACES = same('cls_token', 'det_token', 'pos_embed', 'mid_pos_embed', 'patch_embed.proj', 'blocks.{i}.', 'norm')
_TRANSFORMERS_PLACES = (
    ('embeddings.detection_tokens', 'det_token'),
    ('encoder.[|interpolation.]mid_position_embeddings', 'mid_pos_embed'),
    *vit.TRANSFORMERS_PLACES,
)

_RELEASE = Layout('YOLOS release', probe='det_token', places=_PLACES, targets=('official',), wrapper='model')
_TRANSFORMERS = replace(
    vit.TRANSFORMERS,
    name='transformers',
    probe=r'(vit\.)?embeddings\.detection_tokens',
    places=nest(_TRANSFORMERS_PLACES, '[|vit.]'),
    dropped=('[|vit.]pooler.', '[class_labels_classifier|bbox_predictor].'),
)

YOLOS = Family(
    classes=('YOLOS',),
    fresh=(r'(det|mid_pos)_',),
    tables=((r'^pos_embed$', fit_positions),),
    layouts=(_RELEASE, _TRANSFORMERS, *vit.STARTS),
)

YOLOS_DETECTOR = Family(
    classes=('YOLOSHead',),
    whole=True,
    own=r'bbox_head\.class_embed\.layers\.',
    class_head=r'bbox_head\.class_embed\.layers\.2\.(weight|bias)',
    layouts=(
        replace(
            _RELEASE,
            probe=r'class_embed\.layers\.',
            places=(*nest(_PLACES, 'backbone.', 'backbone.'), *under('bbox_head.', 'class_embed', 'bbox_embed')),
        ),
        replace(
            _TRANSFORMERS,
            probe=r'vit\.embeddings\.detection_tokens',
            places=(
                *nest(_TRANSFORMERS_PLACES, 'vit.', 'backbone.'),
                ('class_labels_classifier', 'bbox_head.class_embed'),
                ('bbox_predictor', 'bbox_head.bbox_embed'),
            ),
            dropped=(),
        ),
    ),
)
