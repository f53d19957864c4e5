"""Heads: from maps to detections."""

from .detr import DETRHead
from .yolos import YOLOSHead

__all__ = ['DETRHead', 'YOLOSHead']
