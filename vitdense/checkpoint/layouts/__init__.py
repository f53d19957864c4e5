"""Published checkpoints, family by family."""

from . import deformable_detr, detr, hybrid_vit, pvt, setr, swin, trans2seg, vit, vitdet, yolos
from .family import Family

FAMILIES: dict[str, Family] = {
    'pvt': pvt.PVT,
    'pvt_v2': pvt.PVT_V2,
    'vit': vit.VIT,
    'vit_adapter': vit.VIT_ADAPTER,
    'hybrid_vit': hybrid_vit.HYBRID_VIT,
    'yolos': yolos.YOLOS,
    'swin': swin.SWIN,
    'swin_v2': swin.SWIN_V2,
    'detr': detr.DETR,
    'deformable_detr': deformable_detr.DEFORMABLE_DETR,
    'yolos_detector': yolos.YOLOS_DETECTOR,
    'vitdet_detector': vitdet.VITDET_DETECTOR,
    'setr': setr.SETR,
    'trans2seg': trans2seg.TRANS2SEG,
}
"""By :attr:`Backbone.family`, and by that of the head or the neck of a whole model."""

RELEASES: dict[str, str] = {name: url for family in FAMILIES.values() for name, url in family.releases.items()}
"""URLs of the official ImageNet releases by the name that a config gives."""

__all__ = ['FAMILIES', 'RELEASES']
