"""Published checkpoints, family by family."""

from . import pvt, swin, vit
from .family import Family

FAMILIES: dict[str, Family] = {
    'pvt': pvt.PVT,
    'pvt_v2': pvt.PVT_V2,
    'vit': vit.VIT,
    'swin': swin.SWIN,
    'swin_v2': swin.SWIN_V2,
}
"""By :attr:`Backbone.family`."""

RELEASES: dict[str, str] = {name: url for family in FAMILIES.values() for name, url in family.releases.items()}
"""URLs of the official ImageNet releases by the name that a config gives."""

__all__ = ['FAMILIES', 'RELEASES']
