"""Backbones: one file each, with the table of its variants."""

from .base import Backbone
from .pvt import PVT
from .pvt_v2 import PVTv2

__all__ = ['PVT', 'Backbone', 'PVTv2']
