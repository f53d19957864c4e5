"""Heads: from maps to detections."""

from .deformable_detr import DeformableDETRHead
from .detr import DETRHead
from .yolos import YOLOSHead

__all__ = ['DETRHead', 'DeformableDETRHead', 'YOLOSHead']
