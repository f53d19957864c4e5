"""Published checkpoints, family by family."""

from . import deformable_detr, detr, hybrid_vit, pvt, setr, swin, trans2seg, vit, vitdet, yolos
from .family import Family
from .releases import RELEASES, RELEASES_OF

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


def family_of(kind: type) -> str:
    """The family whose files a class of ours loads, by itself or by the nearest of its bases; empty for others."""
    bases = [base.__name__ for base in kind.__mro__ if base.__module__.startswith('vitdense.models.')]
    return next((name for base in bases for name, family in FAMILIES.items() if base in family.classes), '')


__all__ = ['FAMILIES', 'RELEASES', 'RELEASES_OF', 'family_of']
