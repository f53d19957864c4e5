"""COCO's average precision and recall, with the numbers of pycocotools.

The matching is done by faster-coco-eval; ids are numbered anew for it, because it wants integers, and because an
annotation with id 0 counts as missed there and in pycocotools.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as mask_api
from pycocotools.coco import COCO as AnnotationFile

from .matching import greedy_pairs, iou_matrix

STATS = (
    'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l',
    'AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000',
)  # fmt: skip


@dataclass
class GroundTruth:
    """Objects of a data set.

    Attributes:
        images: image id -> COCO's dict of it, with a number from 1 as its id.
        objects: dicts of id, image_id (a number), category_id (a class index), bbox (xywh), area, iscrowd and, when
            asked for, segmentation (RLE).
        labels: sorted indices of the classes to evaluate.
    """

    images: dict[Hashable, dict]
    objects: list[dict]
    labels: list[int]

    @classmethod
    def read(cls, coco: AnnotationFile, label_of: dict[Hashable, int], with_masks: bool) -> 'GroundTruth':
        """Objects of the categories in ``label_of`` (category id -> class index)."""
        images = {key: {**image, 'id': number} for number, (key, image) in enumerate(coco.imgs.items(), 1)}
        objects: list[dict] = []
        for ann in coco.anns.values():
            if ann['category_id'] not in label_of or ann['image_id'] not in images:
                continue
            new = dict(
                id=len(objects) + 1,
                image_id=images[ann['image_id']]['id'],
                category_id=label_of[ann['category_id']],
                bbox=ann['bbox'],
                area=ann['area'] if 'area' in ann else ann['bbox'][2] * ann['bbox'][3],
                iscrowd=int(ann.get('iscrowd', 0)),
            )
            if with_masks:
                new['segmentation'] = coco.annToRLE(ann)
            objects.append(new)
        return cls(images, objects, sorted(set(label_of.values())))


def predictions(results: Sequence[dict], truth: GroundTruth, with_masks: bool) -> list[dict]:
    """Detections of all images as COCO has them.

    Args:
        results: an image each: img_id, bboxes (Q, 4) xyxy in pixels, scores (Q,), labels (Q,), and with masks (RLEs)
            and perhaps mask_scores (Q,).
        truth: gives the images their numbers.
        with_masks: use masks, their areas and scores in the place of the boxes'.

    Raises:
        ValueError: an image that the ground truth does not have.
        KeyError: results without masks.
    """
    found: list[dict] = []
    for result in results:
        if result['img_id'] not in truth.images:
            raise ValueError(f'image {result["img_id"]!r} was predicted, but the ground truth has no such image')
        xyxy = np.asarray(result['bboxes'], np.float64).reshape(-1, 4)
        boxes = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
        scores, areas, masks = result['scores'], boxes[:, 2] * boxes[:, 3], None
        if with_masks:
            if 'masks' not in result:
                raise KeyError(f'segm is not in results: no masks were predicted for image {result["img_id"]!r}')
            masks, scores = result['masks'], result.get('mask_scores', scores)
            areas = np.asarray(mask_api.area(masks) if len(masks) else ())
        columns = zip(boxes.tolist(), areas.tolist(), scores.tolist(), result['labels'].tolist())  # noqa: B905
        for i, (box, area, score, label) in enumerate(columns):
            new = dict(
                id=len(found) + 1,
                image_id=truth.images[result['img_id']]['id'],
                category_id=label,
                bbox=box,
                area=area,
                score=score,
                iscrowd=0,
            )
            if masks is not None:
                new['segmentation'] = masks[i]
            found.append(new)
    return found


@dataclass
class CocoResult:
    """Accumulated result over T IoU thresholds, 101 recalls, K evaluated classes, 4 areas and M detections per image.

    Attributes:
        precision: (T, 101, K, 4, M), -1 where there are no objects.
        recall: (T, K, 4, M), likewise.
        score: (T, 101, K, 4, M).
        iou_thrs: (T,)
        max_dets: the M numbers, sorted.
    """

    precision: np.ndarray
    recall: np.ndarray
    score: np.ndarray
    iou_thrs: np.ndarray
    max_dets: list[int]
    recalls: np.ndarray = field(default_factory=lambda: np.linspace(0, 1, 101))

    def at_iou(self, iou: float) -> slice:
        """Index of an IoU threshold; an empty slice where it was not evaluated."""
        found = np.flatnonzero(self.iou_thrs == iou)
        return slice(found[0], found[0] + 1) if len(found) else slice(0)

    def stats(self) -> dict[str, float]:
        """The twelve numbers that ``COCOeval.summarize`` prints, -1 where undefined, under mmdet's names.

        As there, mAP counts 100 detections, whatever ``max_dets`` is. The first two AR count its first two numbers, and
        all others its third. The names say 100, 300 and 1000 for any three numbers.
        """
        hundred = [i for i, number in enumerate(self.max_dets) if number == 100]
        precisions = [self.precision[..., 0, hundred]]
        precisions += [self.precision[self.at_iou(iou), ..., 0, 2] for iou in (0.5, 0.75)]
        precisions += [self.precision[..., area, 2] for area in (1, 2, 3)]
        recalls = [self.recall[..., 0, i] for i in range(3)] + [self.recall[..., area, 2] for area in (1, 2, 3)]
        return {name: mean(values, -1.0) for name, values in zip(STATS, precisions + recalls, strict=True)}

    def per_class(self, k: int) -> dict[str, float]:
        """AP, AP50, AP75, by area, and AR of the ``k``-th evaluated class, NaN where undefined."""
        precision = self.precision[:, :, k, :, -1]
        values = {
            'AP': precision[..., 0],
            'AP50': precision[self.at_iou(0.5), :, 0],
            'AP75': precision[self.at_iou(0.75), :, 0],
            'APs': precision[..., 1],
            'APm': precision[..., 2],
            'APl': precision[..., 3],
            'AR': self.recall[:, k, 0, -1],
        }
        return {column: mean(value, np.nan) for column, value in values.items()}


def mean(values: np.ndarray, undefined: float) -> float:
    """Mean over what is not -1, or ``undefined``."""
    values = values[values > -1]
    return float(np.mean(values)) if values.size else undefined


def evaluate(
    truth: GroundTruth,
    found: list[dict],
    iou_type: str,
    iou_thrs: np.ndarray,
    max_dets: Sequence[int],
    use_classes: bool = True,
) -> CocoResult:
    """Match detections with objects.

    Args:
        truth: the objects.
        found: from :func:`predictions`; those of classes that are not evaluated do not count.
        iou_type: 'bbox' or 'segm'.
        iou_thrs: (T,) increasing.
        max_dets: numbers of best detections per image and class.
        use_classes: otherwise all classes are one (K = 1).
    """
    categories = [dict(id=label) for label in truth.labels]
    sides = []
    for annotations in (truth.objects, found):
        side = COCO()
        side.dataset = dict(images=list(truth.images.values()), annotations=annotations, categories=categories)
        side.createIndex()
        sides.append(side)
    evaluator = COCOeval_faster(*sides, iouType=iou_type)
    evaluator.params.maxDets = sorted(max_dets)
    evaluator.params.iouThrs = iou_thrs
    evaluator.params.useCats = int(use_classes)
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall, score = (np.asarray(evaluator.eval[key]) for key in ('precision', 'recall', 'scores'))
    return CocoResult(precision, recall, score, iou_thrs, sorted(max_dets))


def proposal_recall(
    coco: AnnotationFile, results: Sequence[dict], proposal_nums: Sequence[int], iou_thrs: np.ndarray
) -> list[float]:
    """Mean recall over the IoU thresholds, objects of all categories and proposals paired by IoU ('proposal_fast').

    Args:
        coco: the objects; crowd regions and those marked ignore do not count.
        results: as for :func:`predictions`, the best proposals first.
        proposal_nums: how many of them to use.
        iou_thrs: (T,)

    Returns:
        A recall for each of ``proposal_nums``, -1 without objects.
    """
    boxes = {result['img_id']: np.asarray(result['bboxes'], np.float64).reshape(-1, 4) for result in results}
    reached: list[list[float]] = [[] for _ in proposal_nums]
    total = 0
    for image in coco.imgs:
        objects = [a for a in coco.imgToAnns[image] if not (a.get('ignore') or a.get('iscrowd'))]
        total += len(objects)
        proposals = [dict(bbox=(*box[:2], *(box[2:] - box[:2]))) for box in boxes.get(image, ())]
        iou = iou_matrix(proposals, [dict(bbox=o['bbox']) for o in objects])
        for ious, number in zip(reached, proposal_nums, strict=True):
            few = iou[:number]
            ious.extend(few[pair] for pair in greedy_pairs(few, min(iou_thrs), np.zeros(len(few))))
    if not total:
        return [-1.0] * len(reached)
    return [float((np.array(ious)[:, None] >= iou_thrs).mean(1).sum() / total) for ious in reached]
