"""The same boxes and polygons as supervision reads from the same files.

Side and corner are rounded to a hundredth of a pixel each, so that edges are equal to two of these.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import supervision
from support.own_data import write_tree, xml

from vitdense.datasets.formats import read_data


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


def ours(root: Path, **kwargs) -> dict[str, list[tuple]]:
    """Class and corners by the name of the image."""
    found: dict[str, list[tuple]] = {}
    for part in read_data(root, 'detection', **kwargs).parts.values():
        file = json.loads(Path(part.ann_file).read_text())
        names = {image['id']: Path(image['file_name']).name for image in file['images']}
        classes = {one['id']: one['name'] for one in file['categories']}
        for one in file['annotations']:
            x, y, w, h = one['bbox']
            row = (classes[one['category_id']], x, y, x + w, y + h)
            found.setdefault(names[one['image_id']], []).append(row)
    return found


def theirs(dataset: supervision.DetectionDataset) -> dict[str, list[tuple]]:
    found = {}
    for path, detections in dataset.annotations.items():
        labels = [dataset.classes[label] for label in detections.class_id]
        boxes = detections.xyxy.tolist()
        found[Path(path).name] = [(label, *box) for label, box in zip(labels, boxes, strict=True)]
    return found


def same(found: dict[str, list[tuple]], right: dict[str, list[tuple]]) -> None:
    assert found.keys() == right.keys()
    for name, rows in found.items():
        assert [row[0] for row in rows] == [row[0] for row in right[name]]
        np.testing.assert_allclose([row[1:] for row in rows], [row[1:] for row in right[name]], atol=0.0101, rtol=0)


@pytest.fixture
def boxes() -> dict[str, list[tuple[int, list[float]]]]:
    """Label, and x, y, width and height in shares of the image, of each image."""
    rng = np.random.default_rng(0)
    found = {}
    for name in ('a', 'b [2]', 'c'):
        size = rng.uniform(0.05, 0.4, (5, 2))
        centre = rng.uniform(size / 2, 1 - size / 2)
        found[name] = [(int(rng.integers(3)), [*c, *s]) for c, s in zip(centre.tolist(), size.tolist(), strict=True)]
    return found


def yolo(root: Path, lines: dict[str, str]) -> supervision.DetectionDataset:
    files = {'data.yaml': "path: .\ntrain: images\nnames: ['x', 'y', 'z']\n"}
    for name, text in lines.items():
        files |= {f'images/{name}.jpg': '', f'labels/{name}.txt': text}
    write_tree(root, files)
    return supervision.DetectionDataset.from_yolo(str(root / 'images'), str(root / 'labels'), str(root / 'data.yaml'))


def test_boxes_of_yolo(tmp_path, boxes):
    lines = {name: '\n'.join(f'{k} {" ".join(map(str, box))}' for k, box in rows) for name, rows in boxes.items()}
    dataset = yolo(tmp_path / 'data', lines)
    same(ours(tmp_path / 'data'), theirs(dataset))


def test_polygons_of_yolo(tmp_path):
    rng = np.random.default_rng(1)
    lines = {name: f'1 {" ".join(map(str, rng.uniform(0, 1, 10).tolist()))}' for name in 'ab'}
    dataset = yolo(tmp_path / 'data', lines)
    same(ours(tmp_path / 'data'), theirs(dataset))


def test_boxes_of_pascal(tmp_path):
    """Pixels from 1, the last one included."""
    rng = np.random.default_rng(2)
    files = {}
    for name in ('a', 'b [2]', 'c'):
        things = [(f'class {k}', (*rng.integers(1, 40, 2), *rng.integers(1, 20, 2))) for k in rng.integers(3, size=5)]
        files |= {f'{name}.jpg': '', f'{name}.xml': xml(*things, source='The VOC2012 Database')}
    root = str(write_tree(tmp_path / 'data', files))
    same(ours(tmp_path / 'data'), theirs(supervision.DetectionDataset.from_pascal_voc(root, root)))


def test_boxes_of_coco(tmp_path, boxes):
    lines = {name: '\n'.join(f'{k} {" ".join(map(str, box))}' for k, box in rows) for name, rows in boxes.items()}
    dataset = yolo(tmp_path / 'yolo', lines)
    dataset.as_coco(str(tmp_path / 'data'), str(tmp_path / 'data/all.json'))
    same(ours(tmp_path / 'data'), theirs(dataset))
