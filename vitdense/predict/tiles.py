"""Detection in pictures that are larger than what a model was trained on, tile by tile."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .results import Result
from .sources import Frame

if TYPE_CHECKING:
    from .predictor import Predictor


def predict_tiles(
    predictor: 'Predictor', frame: Frame, threshold: float, batch_size: int, tile: tuple[int, int], overlap: float
) -> Result:
    """Detections in overlapping tiles, of which ``supervision`` keeps one of each object by NMS of each class.

    Args:
        tile: height and width; a picture that is no larger is looked at as a whole.
        overlap: share of a tile that the next one covers again.

    Raises:
        ImportError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError:
        raise ImportError('tiles need supervision: pip install "vitdense[tiles]"') from None

    def detect(images: Any) -> Any:
        """Detections in tiles, or in one, where the slicer hands them over one by one."""
        several = isinstance(images, list)
        frames = [Frame(image, frame.path) for image in (images if several else [images])]
        found = [result.to_supervision() for result in predictor.infer_frames(frames, threshold)]
        return found if several else found[0]

    height, width = tile
    if frame.image.shape[0] <= height and frame.image.shape[1] <= width:
        return predictor.infer_frames([frame], threshold)[0]
    slicer = supervision.InferenceSlicer(
        detect,
        slice_wh=(width, height),
        overlap_wh=(int(overlap * width), int(overlap * height)),
        iou_threshold=predictor.iou_threshold,
        batch_size=batch_size,
    )
    return _result(predictor.names, frame, slicer(frame.image), 'instance' in predictor.task)


def _result(names: Sequence[str], frame: Frame, found: Any, with_masks: bool) -> Result:
    h, w = frame.image.shape[:2]
    number = len(found)
    scores = np.zeros(0, np.float32) if found.confidence is None else found.confidence.astype(np.float32)
    order = np.argsort(-scores, kind='stable')
    labels = np.zeros(0, np.int64) if found.class_id is None else found.class_id.astype(np.int64)
    masks = found.mask if number else np.zeros((0, h, w), bool)
    return Result(
        frame.image,
        frame.path,
        tuple(names),
        boxes=found.xyxy.astype(np.float32).reshape(-1, 4)[order],
        scores=scores[order],
        labels=labels[order],
        masks=masks[order] if with_masks and masks is not None else None,
        number=frame.number,
    )
