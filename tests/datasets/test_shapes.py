import hashlib
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from vitdense.datasets import shapes_generator
from vitdense.datasets.shapes_generator import CLASSES, MIN_VISIBLE, SPLITS, ShapesSpec, draw_scene, ensure_shapes

SPEC = ShapesSpec(num_train=64, num_val=12)
COUNTS = {'num_train': SPEC.num_train, 'num_val': SPEC.num_val}


def tree(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp('shapes') / 'data' / 'shapes', SPEC)


@pytest.fixture(scope='module')
def objects(root) -> list[dict]:
    """Every annotation of the set, with its image (RGB), semantic map and mask decoded from the files."""
    found = []
    for split in SPLITS.values():
        coco = COCO(root / split.ann_file)
        for image in coco.dataset['images']:
            pixels = cv2.imread(str(root / split.image_dir / image['file_name']))[..., ::-1]
            map_name = Path(image['file_name']).with_suffix('.png').name
            semantic = cv2.imread(str(root / split.map_dir / map_name), cv2.IMREAD_UNCHANGED)
            assert pixels.shape[:2] == semantic.shape == (image['height'], image['width'])
            for ann in coco.imgToAnns[image['id']]:
                mask = coco.annToMask(ann).astype(bool)
                found.append({**ann, 'mask': mask, 'pixels': pixels, 'semantic': semantic})
    return found


# ---------------------------------------------------------------- what is drawn


@pytest.mark.slow
def test_folders(root):
    files = tree(root)
    assert len(files) == 2 * (SPEC.num_train + SPEC.num_val) + 2
    for split, folder, count in (('train', 'training', SPEC.num_train), ('val', 'validation', SPEC.num_val)):
        assert f'annotations/instances_{split}.json' in files
        for i in range(count):
            assert f'images/{folder}/{split}_{i:06d}.jpg' in files
            assert f'annotations/{folder}/{split}_{i:06d}.png' in files


@pytest.mark.slow
def test_same_bytes_again_and_other_bytes_for_another_seed(root, tmp_path):
    assert tree(ensure_shapes(tmp_path / 'again', SPEC)) == tree(root)
    other = tree(ensure_shapes(tmp_path / 'other', ShapesSpec(**COUNTS, seed=1)))
    same = {name for name, digest in tree(root).items() if other[name] == digest}
    assert same <= {f'annotations/training/train_{i:06d}.png' for i in (31, 63)}  # the maps of empty images


def test_an_image_does_not_depend_on_the_counts(root, tmp_path):
    small = tree(ensure_shapes(tmp_path / 'small', ShapesSpec(num_train=3, num_val=2)))
    large = tree(root)
    assert all(large[name] == digest for name, digest in small.items() if not name.endswith('.json'))


def test_all_images_differ(root):
    images = [digest for name, digest in tree(root).items() if name.endswith('.jpg')]
    assert len(set(images)) == SPEC.num_train + SPEC.num_val


def test_box_and_area_are_those_of_the_mask(objects):
    for item in objects:
        y, x = np.nonzero(item['mask'])
        assert item['bbox'] == [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]
        assert item['bbox'] == coco_mask.toBbox(item['segmentation']).tolist()
        assert item['area'] == item['mask'].sum() > 0
        assert item['iscrowd'] == 0


def test_semantic_maps_are_the_union_of_the_masks(root):
    for split in SPLITS.values():
        coco = COCO(root / split.ann_file)
        for image in coco.dataset['images']:
            expected = np.zeros((image['height'], image['width']), int)
            for ann in coco.imgToAnns[image['id']]:
                expected += ann['category_id'] * coco.annToMask(ann)
            path = root / split.map_dir / Path(image['file_name']).with_suffix('.png').name
            semantic = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert semantic.dtype == np.uint8
            np.testing.assert_array_equal(semantic, expected)


def test_masks_do_not_overlap(root):
    for split in SPLITS.values():
        coco = COCO(root / split.ann_file)
        for anns in coco.imgToAnns.values():
            assert np.sum([coco.annToMask(ann) for ann in anns], axis=0).max() == 1


def test_empty_images_and_sizes(root):
    coco = COCO(root / 'annotations/instances_train.json')
    empty = [image['file_name'] for image in coco.dataset['images'] if not coco.imgToAnns[image['id']]]
    assert empty == ['train_000031.jpg', 'train_000063.jpg']
    sizes = {(image['height'], image['width']) for image in coco.dataset['images']}
    assert any(h > w for h, w in sizes)
    assert any(h < w for h, w in sizes)
    assert any(h % 32 and w % 32 for h, w in sizes)


def test_every_class_is_drawn(objects):
    share = np.bincount([item['category_id'] for item in objects], minlength=6)[1:] / len(objects)
    assert share.min() > 0.1


def test_drawn_shape_belongs_to_its_class(objects):
    """Area against the smallest enclosing circle and the convex hull, with the values that geometry gives."""
    arm = 0.36
    reach = math.sqrt(1 - arm**2)
    area = {
        'circle': math.pi,
        'cross': 4 * (2 * arm * reach - arm**2),
        'square': 2,
        'star': 5 * 0.45 * math.sin(math.pi / 5),
        'triangle': 3 * math.sqrt(3) / 4,
    }
    hull = area | {'cross': (2 * reach) ** 2 - 2 * (reach - arm) ** 2, 'star': 2.5 * math.sin(0.4 * math.pi)}
    measured = {name: [] for name in CLASSES}
    for item in objects:
        mask = item['mask']
        (contour, *_), _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        radius = cv2.minEnclosingCircle(contour)[1] + 0.5  # the contour runs through pixel centres
        is_cut = mask[[0, -1]].any() or mask[:, [0, -1]].any()
        around = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~mask
        if radius > 28 and not is_cut and not item['semantic'][around].any():  # nothing covers it
            corners = np.add(contour, [[0, 0], [0, 1], [1, 0], [1, 1]]).reshape(-1, 1, 2)
            hull_area = cv2.contourArea(cv2.convexHull(corners))
            shares = item['area'] / (math.pi * radius**2), item['area'] / hull_area
            measured[CLASSES[item['category_id'] - 1]].append(shares)
    for name, shares in measured.items():
        assert len(shares) >= 3, name
        expected = area[name] / math.pi, area[name] / hull[name]
        assert np.median(shares, axis=0) == pytest.approx(expected, rel=0.06), name


def test_objects_cover_each_other_but_not_too_much():
    partly_hidden = total = 0
    for index in range(60):
        rng = np.random.default_rng(index)
        _, coverages, masks = shapes_generator._place_objects(rng, (144, 192))
        visible = masks.sum((1, 2)) / np.sum(coverages, axis=(1, 2))
        assert visible.min() >= MIN_VISIBLE
        partly_hidden += (visible < 0.9).sum()
        total += len(visible)
    assert 0.05 * total < partly_hidden < 0.4 * total


def test_objects_stand_out(objects):
    for item in objects:
        mask = item['mask'].astype(np.uint8)
        near, far = (cv2.dilate(mask, np.ones((k, k), np.uint8)) for k in (5, 9))
        ring = (far > near) & (item['semantic'] == 0)
        if ring.sum() < 20:
            continue
        colour = np.median(item['pixels'][item['mask']], axis=0)
        distance = np.linalg.norm(item['pixels'][ring] - colour, axis=1)
        assert np.median(distance) > 60


@given(
    centre=st.tuples(st.floats(20, 60), st.floats(20, 40)),
    radius=st.floats(8, 18),
    angle=st.floats(0, 6.3),
    name=st.sampled_from(CLASSES),
)
@settings(max_examples=60, deadline=None)
def test_coverage_has_the_area_and_centre_of_the_polygon(centre, radius, angle, name):
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    points = shapes_generator.OUTLINES[name] @ turn * radius + centre
    coverage = shapes_generator._coverage(points, (60, 80))
    area = cv2.contourArea(points.astype(np.float32))
    outline = cv2.arcLength(points.astype(np.float32), True)
    sub_pixel = 1 / shapes_generator.SUPERSAMPLING
    assert abs(coverage.sum() - area) < sub_pixel * outline
    y, x = np.mgrid[:60, :80] + 0.5
    assert np.average(x, weights=coverage) == pytest.approx(centre[0], abs=sub_pixel)
    assert np.average(y, weights=coverage) == pytest.approx(centre[1], abs=sub_pixel)


@pytest.mark.slow
@given(seed=st.integers(0, 2**40), split=st.sampled_from(['train', 'val']), index=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_scene_shapes_and_types(seed, split, index):
    scene = draw_scene(seed, split, index)
    h, w, _ = scene.image.shape
    assert scene.image.dtype == np.uint8
    assert scene.labels.dtype == np.int64
    assert scene.masks.dtype == bool
    assert scene.masks.shape == (len(scene.labels), h, w)
    assert (len(scene.labels) == 0) == (index % 32 == 31)
    assert set(np.unique(scene.semantic_map())) - {0} == set(scene.labels + 1)


# ---------------------------------------------------------------- writing

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from shapes_generator import ShapesSpec, ensure_shapes
print('ready', flush=True)
sys.stdin.readline()
ensure_shapes(sys.argv[2], ShapesSpec(num_train=int(sys.argv[3]), num_val=int(sys.argv[4])))
assert 'torch' not in sys.modules
"""


def start(data_root: Path, spec: ShapesSpec) -> subprocess.Popen:
    folder = Path(shapes_generator.__file__).parent
    process = subprocess.Popen(
        [sys.executable, '-c', SCRIPT, str(folder), str(data_root), str(spec.num_train), str(spec.num_val)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'ready\n'
    return process


def go(process: subprocess.Popen) -> None:
    process.stdin.write('\n')
    process.stdin.flush()


@pytest.mark.slow
def test_two_processes_at_once(root, tmp_path):
    processes = [start(tmp_path / 'shapes', SPEC) for _ in range(2)]
    for process in processes:
        go(process)
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert output == ''  # no progress bar where there is no terminal
    assert tree(tmp_path / 'shapes') == tree(root)
    assert {path.name for path in tmp_path.iterdir()} - {'.shapes.lock'} == {'shapes'}


@pytest.mark.slow
def test_killed_half_way(root, tmp_path):
    long = start(tmp_path / 'shapes', ShapesSpec(num_train=5000))
    go(long)
    images = tmp_path / '.shapes.partial' / 'images' / 'training'
    deadline = time.monotonic() + 30
    while not (images.is_dir() and len(list(images.iterdir())) > 10):
        assert time.monotonic() < deadline
        assert long.poll() is None
        time.sleep(0.02)
    long.send_signal(signal.SIGKILL)
    long.communicate(timeout=30)
    assert images.is_dir()
    assert not (tmp_path / 'shapes').exists()
    assert tree(ensure_shapes(tmp_path / 'shapes', SPEC)) == tree(root)
    assert {path.name for path in tmp_path.iterdir()} - {'.shapes.lock'} == {'shapes'}


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(root, spec):
        (root / 'images').mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes_generator, 'write_shapes', interrupt)
    with pytest.raises(KeyboardInterrupt):
        ensure_shapes(tmp_path / 'shapes', SPEC)
    assert {path.name for path in tmp_path.iterdir()} <= {'.shapes.lock'}


def test_whole_set_is_only_read(root):
    (root.parent / '.shapes.lock').unlink(missing_ok=True)
    before = {path: path.stat().st_mtime_ns for path in root.parent.rglob('*')}
    folders = [root.parent, *(path for path in root.rglob('*') if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert ensure_shapes(root, SPEC) == root
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in root.parent.rglob('*')} == before


@pytest.mark.slow
def test_empty_folder_and_link_are_filled(root, tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'shapes').symlink_to(tmp_path / 'disk')
    assert ensure_shapes(tmp_path / 'shapes', SPEC) == tmp_path / 'disk'
    assert tree(tmp_path / 'shapes') == tree(root)


FOREIGN = {
    'folder': ('notes.txt', 'mine', 'notes.txt'),
    'other coco': ('annotations/instances_train.json', '{"info": {"year": 2017}, "images": []}', 'year|generator'),
    'no info': ('annotations/instances_train.json', '{"images": []}', "KeyError: 'info'"),
    'no json': ('annotations/instances_train.json', '{"info": ', 'JSONDecodeError'),
    'a list': ('annotations/instances_train.json', '[1]', 'TypeError'),
}


@pytest.mark.parametrize('name', FOREIGN)
def test_foreign_content_is_refused_and_untouched(name, tmp_path):
    file, content, words = FOREIGN[name]
    path = tmp_path / 'shapes' / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=words) as caught:
        ensure_shapes(tmp_path / 'shapes', SPEC)
    assert str(tmp_path / 'shapes') in str(caught.value)
    assert 'Choose another data_root' in str(caught.value)
    assert tree(tmp_path) == before


def test_a_file_as_data_root_is_refused(tmp_path):
    (tmp_path / 'shapes').write_text('mine')
    with pytest.raises(FileExistsError, match='a file'):
        ensure_shapes(tmp_path / 'shapes', SPEC)
    assert (tmp_path / 'shapes').read_text() == 'mine'


@pytest.mark.parametrize('change', [{'seed': 1}, {'num_train': 65}, {'num_val': 11}])
def test_another_specification_is_refused(root, change):
    before = tree(root)
    with pytest.raises(FileExistsError, match=f"expected .*'{next(iter(change))}': {next(iter(change.values()))}"):
        ensure_shapes(root, ShapesSpec(**{**COUNTS, **change}))
    assert tree(root) == before


def test_another_version_is_refused(root, monkeypatch):
    monkeypatch.setattr(ShapesSpec, 'VERSION', ShapesSpec.VERSION + 1)
    with pytest.raises(FileExistsError, match=r"found .*'version': 1"):
        ensure_shapes(root, SPEC)


@pytest.mark.parametrize('file', ['images/training/train_000002.jpg', 'annotations/validation/val_000001.png'])
def test_missing_file_is_named(file, tmp_path):
    spec = ShapesSpec(num_train=3, num_val=2)
    root = ensure_shapes(tmp_path / 'shapes', spec)
    (root / file).unlink()
    with pytest.raises(FileNotFoundError, match=f'{Path(file).parent}: 1 of . files .* first {Path(file).name}'):
        ensure_shapes(root, spec)


@pytest.mark.parametrize('bad', [{'num_train': 0}, {'num_val': -1}, {'seed': -1}, {'seed': 1.0}, {'num_val': True}])
def test_bad_specification(bad):
    with pytest.raises(ValueError, match=f'{next(iter(bad))} .* must be an integer'):
        ShapesSpec(**bad)
