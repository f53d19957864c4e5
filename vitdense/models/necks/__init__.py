"""Necks: between the maps of a backbone and the heads. FPN and its relatives come from mmdet and mmseg."""

from .mla import MLANeck
from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['MLANeck', 'SimpleFeaturePyramid']
