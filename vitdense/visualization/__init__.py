"""Pictures of samples: boxes, masks and semantic maps on images, and sheets of them."""

from .drawing import draw, rgb_image
from .labels import Labels, loaded_labels, predicted_labels, true_labels
from .palette import class_colors, class_names
from .sheets import sheet

__all__ = [
    'Labels',
    'class_colors',
    'class_names',
    'draw',
    'loaded_labels',
    'predicted_labels',
    'rgb_image',
    'sheet',
    'true_labels',
]
