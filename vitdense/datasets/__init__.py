"""Data sets, transforms, and what reads the data of users.

Nothing is imported before it is asked for: ``datasets.formats`` works without PyTorch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .coco import CocoDataset
    from .paired_maps import PairedMapsDataset
    from .shapes import ShapesDataset
    from .shapes_generator import ShapesSpec, ensure_shapes
    from .shapes_seg import ShapesSegDataset
    from .transforms import DETRResize

__all__ = [
    'CocoDataset',
    'DETRResize',
    'PairedMapsDataset',
    'ShapesDataset',
    'ShapesSegDataset',
    'ShapesSpec',
    'ensure_shapes',
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import registered

        if hasattr(registered, name):
            return getattr(registered, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
