"""Transforms of images and labels that the releases have and mmdet lacks."""

import numpy as np
from mmdet.datasets.transforms import Resize

from vitdense.registry import TRANSFORMS


def detr_size(width: int, height: int, scale: tuple[int, int]) -> tuple[int, int]:
    """Width and height of an image whose shorter side gets ``min(scale)`` pixels, the longer ``max(scale)`` at most.

    At that limit the shorter side is rounded; the longer side is always cut down to whole pixels. This is the rule of
    ``get_size_with_aspect_ratio`` in ``datasets/transforms.py`` of https://github.com/facebookresearch/detr.
    """
    short, long = np.sort(np.array([[width], [height]], float), axis=0)
    edge, other = (int(side[0]) for side in detr_sides(short, long, scale))
    return (edge, other) if width < height else (other, edge)


def detr_sides(short: np.ndarray, long: np.ndarray, scale: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """New shorter and longer sides (N,) of images with these, by the rule of :func:`detr_size`."""
    edge, limit = sorted(scale)
    new = np.where(long / short * edge > limit, np.rint(limit * short / long), edge)
    return new, np.floor(new * long / short)


@TRANSFORMS.register_module()
class DETRResize(Resize):
    """mmdet's ``Resize`` that keeps the aspect ratio, to the sizes of DETR's, Deformable DETR's and YOLOS' releases.

    mmcv rounds both sides and makes 800 x 1067 of 480 x 640, the releases 800 x 1066: see :func:`detr_size`.

    Args:
        scale: length of the shorter side and the most of the longer one, in any order. ``RandomChoiceResize`` sets it
            where it has ``resize_type='vitdense.DETRResize'``.
        clip_object_border, backend, interpolation: as in ``mmcv.transforms.Resize``.
    """

    def __init__(
        self,
        scale: tuple[int, int],
        clip_object_border: bool = True,
        backend: str = 'cv2',
        interpolation: str = 'bilinear',
    ) -> None:
        super().__init__(scale, None, False, clip_object_border, backend, interpolation)

    def _resize_img(self, results: dict) -> None:
        height, width = results['img'].shape[:2]
        results['scale'] = detr_size(width, height, results['scale'])
        super()._resize_img(results)
        results['keep_ratio'] = True
