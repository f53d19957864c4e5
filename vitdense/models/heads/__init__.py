"""Heads: from maps to detections, and to maps of classes."""

from importlib.util import find_spec

from .deformable_detr import DeformableDETRHead
from .detr import DETRHead
from .yolos import YOLOSHead

__all__ = ['DETRHead', 'DeformableDETRHead', 'YOLOSHead']

if find_spec('mmseg'):
    from .cascaded_upsampler import CascadedUpsamplerHead as CascadedUpsamplerHead
    from .setr import SETRMLAHead as SETRMLAHead
    from .setr import SETRUPHead as SETRUPHead
    from .trans2seg import Trans2SegHead as Trans2SegHead

    __all__ += ['CascadedUpsamplerHead', 'SETRMLAHead', 'SETRUPHead', 'Trans2SegHead']
