from importlib.util import find_spec

from .shapes_generator import ShapesSpec, ensure_shapes

__all__ = ['ShapesSpec', 'ensure_shapes']

if find_spec('mmdet'):
    from .coco import CocoDataset as CocoDataset
    from .shapes import ShapesDataset as ShapesDataset
    from .transforms import ResizeShortestEdge as ResizeShortestEdge

    __all__ += ['CocoDataset', 'ResizeShortestEdge', 'ShapesDataset']
if find_spec('mmseg'):
    from .shapes_seg import ShapesSegDataset as ShapesSegDataset

    __all__.append('ShapesSegDataset')
