"""Data sets and transforms that configs name; importing them needs PyTorch and the packages that they extend."""

from importlib.util import find_spec

from vitdense.console import silent_imports

from .shapes_generator import ShapesSpec, ensure_shapes

__all__ = ['ShapesSpec', 'ensure_shapes']

with silent_imports():
    if find_spec('mmdet'):
        from .coco import CocoDataset as CocoDataset
        from .shapes import ShapesDataset as ShapesDataset
        from .transforms import DETRResize as DETRResize

        __all__ += ['CocoDataset', 'DETRResize', 'ShapesDataset']
    if find_spec('mmseg'):
        from .paired_maps import PairedMapsDataset as PairedMapsDataset
        from .shapes_seg import ShapesSegDataset as ShapesSegDataset

        __all__ += ['PairedMapsDataset', 'ShapesSegDataset']
