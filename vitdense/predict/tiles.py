"""Pictures that are larger than what a model was trained on, looked at tile by tile."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .results import Result
from .sources import Frame

if TYPE_CHECKING:
    from .predictor import Predictor


def predict_tiles(
    predictor: 'Predictor', frame: Frame, threshold: float, batch_size: int, tile: tuple[int, int], overlap: float
) -> Result:
    """What is in overlapping tiles: objects, or classes of pixels.

    Args:
        tile: height and width; a picture that is no larger is looked at as a whole.
        overlap: share of a tile that the next one covers again.

    Raises:
        ImportError: supervision, which merges objects, is not installed.
    """
    h, w = frame.image.shape[:2]
    if h <= tile[0] and w <= tile[1]:
        return predictor.infer_frames([frame], threshold)[0]
    if predictor.task == 'semantic segmentation':
        return _pixels(predictor, frame, batch_size, tile, overlap)
    return _objects(predictor, frame, threshold, batch_size, tile, overlap)


def _pixels(predictor: 'Predictor', frame: Frame, batch_size: int, tile: tuple[int, int], overlap: float) -> Result:
    """The class of each pixel that is the most certain of all tiles which have it."""
    h, w = frame.image.shape[:2]
    labels, best = np.zeros((h, w), predictor.map_type), np.full((h, w), -1.0, np.float32)
    places = [
        (slice(y, y + tile[0]), slice(x, x + tile[1]))
        for y in starts(h, tile[0], overlap)
        for x in starts(w, tile[1], overlap)
    ]
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        frames = [Frame(np.ascontiguousarray(frame.image[place]), frame.path) for place in batch]
        for place, (found, scores) in zip(batch, predictor.semantic_scores(frames), strict=True):
            better = scores > best[place]
            labels[place][better], best[place][better] = found[better], scores[better]
    image, path, number = frame.image, frame.path, frame.number
    return Result(image, path, predictor.names, predictor.palette, semantic_map=labels, number=number)


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where the tiles of a side begin; the last one ends with the side."""
    stride, last = max(1, round(tile * (1 - overlap))), max(0, length - tile)
    return [*range(0, last, stride), last]


def _objects(
    predictor: 'Predictor', frame: Frame, threshold: float, batch_size: int, tile: tuple[int, int], overlap: float
) -> Result:
    """Detections in all tiles, of which ``supervision`` keeps one of each object, by NMS of each class."""
    try:
        import supervision
    except ImportError:
        raise ImportError('tiles need supervision: pip install "vitdense[tiles]"') from None

    def detect(images: Any) -> Any:
        """Detections in tiles, or in one, where the slicer hands them over one by one."""
        several = isinstance(images, list)
        frames = [Frame(np.ascontiguousarray(image), frame.path) for image in (images if several else [images])]
        found = [result.to_supervision() for result in predictor.infer_frames(frames, threshold)]
        return found if several else found[0]

    height, width = tile
    slicer = supervision.InferenceSlicer(
        detect,
        slice_wh=(width, height),
        overlap_wh=(int(overlap * width), int(overlap * height)),
        iou_threshold=predictor.iou_threshold,
        batch_size=batch_size,
    )
    found = slicer(frame.image)
    scores = np.zeros(0) if found.confidence is None else found.confidence
    labels = np.zeros(0) if found.class_id is None else found.class_id
    masks = np.zeros((0, *frame.image.shape[:2]), bool) if found.mask is None else np.asarray(found.mask)
    order = np.argsort(-scores, kind='stable')
    return Result(
        frame.image,
        frame.path,
        predictor.names,
        predictor.palette,
        boxes=found.xyxy.astype(np.float32).reshape(-1, 4)[order],
        scores=scores.astype(np.float32)[order],
        labels=labels.astype(np.int64)[order],
        masks=None if predictor.task == 'detection' else masks[order],
        number=frame.number,
    )
