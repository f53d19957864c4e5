"""What a model found in one picture, whatever its task."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitdense.coco_ids import COCO_IDS

if TYPE_CHECKING:
    from PIL import Image

RGB = tuple[int, int, int]
IGNORED = 255
"""Number of a pixel of a semantic map that has no class."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a model found in one picture; ``None`` is what its task does not have.

    Attributes:
        image: (H, W, 3) uint8, BGR: what the model was given, upright and of 8 bits.
        path: file, URL, or what else it came from; ``image_0``, ``image_1``, ... for pictures in memory.
        names: names of all classes of the model; ``names[label]`` is that of a detection or a pixel.
        palette: their colours, RGB.
        boxes: (G, 4) float32, xyxy in pixels of ``image``; the highest score first.
        scores: (G,) float32, in [0, 1].
        labels: (G,) int64.
        masks: (G, H, W) bool.
        semantic_map: (H, W) uint8, or int32 of more than 255 classes: the class of each pixel, 255 (or -1) of none. A
            panoptic model has ``labels`` and ``masks`` of the things as well, neither boxes nor scores.
        number: of the frame of a video or camera, from 0.
    """

    image: np.ndarray
    path: str
    names: tuple[str, ...]
    palette: tuple[RGB, ...]
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    labels: np.ndarray | None = None
    masks: np.ndarray | None = None
    semantic_map: np.ndarray | None = None
    number: int | None = None

    def __len__(self) -> int:
        """The number of detections."""
        return 0 if self.labels is None else len(self.labels)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        h, w = self.image.shape[:2]
        found = []
        if self.labels is not None:
            labels, counts = np.unique(self.labels, return_counts=True)
            found += [f'{n} {self.name_of(k)}' for k, n in zip(labels.tolist(), counts.tolist(), strict=True)]
        if self.semantic_map is not None:
            found += [self.name_of(k) for k in self.present()]
        where = self.path if self.number is None else f'{self.path}, frame {self.number}'
        return f'Result({where}, {w} x {h}: {", ".join(found) or "nothing"})'

    def name_of(self, label: int) -> str:
        """Name of a class, its number where it has none."""
        return self.names[label] if 0 <= label < len(self.names) else str(label)

    def present(self) -> list[int]:
        """Classes of the semantic map."""
        if self.semantic_map is None:
            return []
        return [k for k in np.unique(self.semantic_map).tolist() if 0 <= k < len(self.names)]

    def keep(self, threshold: float = 0.0, classes: Collection[str] | None = None) -> Result:
        """The same with the detections of at least this score and of these classes alone; maps are left as they are."""
        if self.labels is None:
            return self
        chosen = np.ones(len(self), bool) if self.scores is None else self.scores >= threshold
        if classes is not None:
            chosen &= np.isin(self.labels, [k for k, name in enumerate(self.names) if name in classes])
        parts = {key: getattr(self, key) for key in ('boxes', 'scores', 'labels', 'masks')}
        return replace(self, **{key: value[chosen] for key, value in parts.items() if value is not None})

    def draw(self, side: int | None = None) -> Image.Image:
        """The picture with masks, boxes, names and scores, or with the classes of the pixels.

        Args:
            side: pixels of its longer side, by default those of ``image``.

        Raises:
            ImportError: PyTorch is not installed.
        """
        try:
            import torch

            from vitdense.visualization import Labels, draw
        except ImportError as error:
            raise ImportError(f'drawing needs PyTorch and torchvision ({error}): pip install torchvision') from error
        semantic = None if self.semantic_map is None else torch.from_numpy(self.semantic_map.astype(np.int64))
        values = (self.boxes, self.labels, self.scores, self.masks)
        boxes, labels, scores, masks = (
            None if semantic is not None or value is None else torch.from_numpy(value) for value in values
        )
        image = torch.from_numpy(np.ascontiguousarray(self.image[..., ::-1])).permute(2, 0, 1)
        return draw(image, Labels(boxes, labels, scores, masks, semantic), self.names, self.palette, side)

    def save(self, path: str | os.PathLike) -> Path:
        """Write what :meth:`draw` draws to a file, in the format that its suffix says.

        Raises:
            ValueError: Pillow does not know the suffix.
            OSError: it cannot be written.
        """
        path = Path(path)
        self.draw().save(path, quality=92)  # formats without a loss take no notice
        return path

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Detections, or the areas of the classes of a semantic map, as COCO has its results.

        Returns:
            A dict each with ``image_id``, ``category_id`` (see :func:`category_ids`), ``bbox`` (x, y, width and height
            in pixels), ``area``, ``score`` of a detection, and ``segmentation`` of a mask or an area (RLE, whose
            ``counts`` is a text).

        Raises:
            ImportError: there are masks, and pycocotools is not installed.
        """
        ids = category_ids(self.names)
        if self.labels is None:
            return [self._area(image_id, ids[k], np.asarray(self.semantic_map == k)) for k in self.present()]
        found = []
        for i, label in enumerate(self.labels.tolist()):
            one: dict[str, Any] = dict(image_id=image_id, category_id=ids[label])
            if self.masks is not None:
                one = self._area(image_id, ids[label], self.masks[i])
            if self.boxes is not None:
                x1, y1, x2, y2 = self.boxes[i].astype(float).tolist()
                one['bbox'] = [x1, y1, x2 - x1, y2 - y1]
                one.setdefault('area', (x2 - x1) * (y2 - y1))
            found.append(one if self.scores is None else one | {'score': float(self.scores[i])})
        return found

    @staticmethod
    def _area(image_id: int, category: int, mask: np.ndarray) -> dict[str, Any]:
        try:
            from pycocotools import mask as coco
        except ImportError:
            raise ImportError('masks as RLE need pycocotools: pip install pycocotools') from None
        rle = coco.encode(np.asfortranarray(mask, np.uint8))
        area, box = float(coco.area(rle)), coco.toBbox(rle).tolist()
        rle['counts'] = rle['counts'].decode()
        return dict(image_id=image_id, category_id=category, segmentation=rle, area=area, bbox=box)

    def to_label_studio(self, image: str | None = None) -> dict[str, Any]:
        """A task of Label Studio with the detections, or the areas of the classes, as its prediction.

        Args:
            image: the address of the image, by default ``path``, which Label Studio is taken to serve as local file.

        Raises:
            ImportError: there are masks, and pycocotools is not installed.
        """
        from .label_studio import address, task

        names = dict(zip(category_ids(self.names), self.names, strict=True))
        h, w = self.image.shape[:2]
        return task(image or address(self.path), (w, h), self.to_coco(), names)

    def to_supervision(self) -> Any:
        """``supervision.Detections``; of a semantic map, one of each class.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise ImportError('pip install supervision') from None
        labels, masks, boxes = self.labels, self.masks, self.boxes
        if labels is None:
            labels = np.array(self.present(), np.int64)
            masks = np.array([self.semantic_map == k for k in labels], bool).reshape(-1, *self.image.shape[:2])
        if boxes is None and masks is not None and len(masks):
            boxes = supervision.mask_to_xyxy(masks).astype(np.float32)
        if boxes is None:
            boxes = np.zeros((0, 4), np.float32)
        names = np.array([self.name_of(k) for k in labels.tolist()], str)
        return supervision.Detections(
            xyxy=boxes, mask=masks, confidence=self.scores, class_id=labels.astype(int), data={'class_name': names}
        )

    def to_data_sample(self) -> Any:
        """What models of mmdet or mmseg return: ``DetDataSample``, or ``SegDataSample`` of a semantic map alone.

        Raises:
            ImportError: the package is not installed.
        """
        import torch
        from mmengine.structures import InstanceData, PixelData

        meta = dict(ori_shape=self.image.shape[:2], img_shape=self.image.shape[:2], img_path=self.path)
        pixels = {}
        if self.semantic_map is not None:
            pixels = dict(pred_sem_seg=PixelData(data=torch.from_numpy(self.semantic_map.astype(np.int64))[None]))
        if self.labels is None:
            from mmseg.structures import SegDataSample

            return SegDataSample(metainfo=meta, **pixels)
        from mmdet.structures import DetDataSample

        parts = dict(bboxes=self.boxes, scores=self.scores, labels=self.labels, masks=self.masks)
        tensors = {key: torch.from_numpy(value) for key, value in parts.items() if value is not None}
        return DetDataSample(metainfo=meta, pred_instances=InstanceData(**tensors), **pixels)


def category_ids(names: Sequence[str]) -> list[int]:
    """Ids of classes in a COCO file: those of COCO for its 80 classes, else 1 to K in the order of the labels."""
    first, last = ('person', 'bicycle', 'car'), ('hair drier', 'toothbrush')
    is_coco = len(names) == len(COCO_IDS) and tuple(names[:3]) == first and tuple(names[-2:]) == last
    return list(COCO_IDS) if is_coco else list(range(1, len(names) + 1))
