"""Random COCO files with predictions, as mmdet hands them to metrics."""

import copy

import numpy as np
import torch
from pycocotools import mask as mask_api

HEIGHT, WIDTH = 120, 160


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) xyxy, of all of COCO's area ranges but the largest."""
    corner = rng.uniform(0, [WIDTH * 0.8, HEIGHT * 0.8], (count, 2))
    size = rng.uniform(2, rng.choice([12, 60, 120], (count, 1)), (count, 2))
    return np.concatenate([corner, np.minimum(corner + size, [WIDTH, HEIGHT])], axis=1)


def ellipse(box) -> dict:
    """RLE of the ellipse in a box."""
    x1, y1, x2, y2 = box
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
    rle = mask_api.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {**rle, 'counts': rle['counts'].decode()}


def make(seed: int, images: int, names: list[str], crowd: float = 0.2, masks: bool = False) -> tuple[dict, list[dict]]:
    """A COCO file and predictions: objects moved, dropped, doubled, mislabelled; scores have ties."""
    rng = np.random.default_rng(seed)
    coco = dict(
        images=[dict(id=10 * i + 3, file_name=f'{i}.jpg', height=HEIGHT, width=WIDTH) for i in range(images)],
        categories=[dict(id=2 * k + 1, name=name) for k, name in enumerate(names)],
        annotations=[],
    )
    samples = []
    for image in coco['images']:
        boxes = random_boxes(rng, rng.integers(0, 7))
        labels = rng.integers(0, len(names), len(boxes))
        for box, label in zip(boxes, labels, strict=True):
            x1, y1, x2, y2 = box.tolist()
            new = dict(id=len(coco['annotations']) + 1, image_id=image['id'], category_id=2 * int(label) + 1)
            new |= dict(bbox=[x1, y1, x2 - x1, y2 - y1], iscrowd=int(rng.random() < crowd))
            new['segmentation'] = ellipse(box) if masks else []
            new['area'] = float(mask_api.area(new['segmentation'])) if masks else (x2 - x1) * (y2 - y1)
            coco['annotations'].append(new)
        copies = rng.integers(0, 3, len(boxes))
        moved = np.repeat(boxes, copies, axis=0) + rng.normal(0, 2, (copies.sum(), 4))
        found = np.concatenate([moved, random_boxes(rng, 2)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        classes = np.concatenate([np.repeat(labels, copies), rng.integers(0, len(names), 2)])
        wrong = rng.random(len(classes)) < 0.1
        classes[wrong] = rng.integers(0, len(names), wrong.sum())
        samples.append(sample(image['id'], found, classes, rng.integers(1, 10, len(found)) / 10, masks))
    return coco, samples


def sample(image, boxes, labels, scores, masks: bool = False) -> dict:
    """What a detector of mmdet returns for an image, as metrics get it."""
    pred = dict(
        bboxes=torch.as_tensor(np.asarray(boxes), dtype=torch.float32).reshape(-1, 4),
        labels=torch.as_tensor(np.asarray(labels), dtype=torch.long),
        scores=torch.as_tensor(np.asarray(scores), dtype=torch.float32),
    )
    if masks:
        pred['masks'] = [ellipse(box) for box in pred['bboxes'].double().numpy()]
    return dict(img_id=image, ori_shape=(HEIGHT, WIDTH), pred_instances=pred)


def run(metric, samples: list[dict], classes) -> dict[str, float]:
    metric.dataset_meta = dict(classes=tuple(classes))
    metric.process({}, copy.deepcopy(samples))
    return metric.evaluate(len(samples))


def perfect(coco: dict, names: list[str]) -> list[dict]:
    """Predictions that equal the truth, labelled by the index in ``names``."""
    name_of = {category['id']: category['name'] for category in coco['categories']}
    samples = []
    for image in coco['images']:
        mine = [a for a in coco['annotations'] if a['image_id'] == image['id'] and name_of[a['category_id']] in names]
        boxes = np.array([a['bbox'] for a in mine], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        samples.append(
            sample(image['id'], boxes, [names.index(name_of[a['category_id']]) for a in mine], [0.9] * len(mine))
        )
    return samples
