"""Published checkpoints, family by family."""

from . import deformable_detr, detr, pvt, swin, vit, yolos
from .family import Family

FAMILIES: dict[str, Family] = {
    'pvt': pvt.PVT,
    'pvt_v2': pvt.PVT_V2,
    'vit': vit.VIT,
    'yolos': yolos.YOLOS,
    'swin': swin.SWIN,
    'swin_v2': swin.SWIN_V2,
    'detr': detr.DETR,
    'deformable_detr': deformable_detr.DEFORMABLE_DETR,
    'yolos_detector': yolos.YOLOS_DETECTOR,
}
"""By :attr:`Backbone.family`, and by name of a detector."""

RELEASES: dict[str, str] = {name: url for family in FAMILIES.values() for name, url in family.releases.items()}
"""URLs of the official ImageNet releases by the name that a config gives."""

__all__ = ['FAMILIES', 'RELEASES']
