"""Backbones: one file each, with the table of its variants."""

from .base import Backbone
from .hybrid_vit import HybridViT
from .pvt import PVT
from .pvt_v2 import PVTv2
from .swin import Swin
from .swin_v2 import SwinV2
from .vit import ViT
from .vit_adapter import ViTAdapter
from .yolos import YOLOS

__all__ = ['PVT', 'YOLOS', 'Backbone', 'HybridViT', 'PVTv2', 'Swin', 'SwinV2', 'ViT', 'ViTAdapter']
