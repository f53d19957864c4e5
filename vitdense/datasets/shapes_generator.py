"""Drawing and writing of the generated shapes data set. Needs numpy, OpenCV, pycocotools, rich and filelock, no torch.

The files follow the folder layout of ADE20K, with COCO annotations beside the semantic maps::

    data_root/annotations/instances_{train,val}.json       COCO: boxes, RLE masks, area, iscrowd
    data_root/annotations/{training,validation}/*.png      uint8 semantic maps, 0 background, 1..K the classes
    data_root/images/{training,validation}/*.jpg           used by both

A COCO category id is the value of that class in the semantic maps.
"""

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
from filelock import FileLock
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.progress import track

CLASSES = ('circle', 'cross', 'square', 'star', 'triangle')
PALETTE = [(230, 85, 60), (60, 140, 230), (95, 190, 80), (240, 190, 50), (170, 90, 210)]

SIZES_HW = ((144, 192), (192, 144), (160, 200), (200, 160), (136, 180), (180, 150))
DIAMETER = (26.0, 80.0)  # of the circle around an object, pixels
OBJECT_COUNTS = (2, 9)
MIN_VISIBLE = 0.35  # share of an object, parts outside the image included, that has to stay visible
EMPTY_EVERY = 32  # one image in so many has no object
MIN_CONTRAST = 75.0  # RGB distance between an object and nearly all of the pixels along its outline
SUPERSAMPLING = 4
JPEG_QUALITY = 85


@dataclass(frozen=True)
class ShapesSpec:
    """What the files of a data set are a function of.

    Args:
        num_train: Images in the training split, at least 1.
        num_val: Images in the validation split, at least 1.
        seed: Non-negative integer.

    Raises:
        ValueError: A count or the seed is no integer or out of range.
    """

    num_train: int = 600
    num_val: int = 100
    seed: int = 0

    VERSION: ClassVar[int] = 1  # to be raised with every change of what is drawn or written

    def __post_init__(self) -> None:
        for name, minimum in (('num_train', 1), ('num_val', 1), ('seed', 0)):
            value = getattr(self, name)
            if type(value) is not int or value < minimum:
                raise ValueError(f'{name} of the shapes data set must be an integer >= {minimum}, got {value!r}')

    def record(self) -> dict:
        return dict(generator='vitdense.shapes', version=self.VERSION, **asdict(self))


@dataclass(frozen=True)
class Split:
    """One split: its folder names and its number in the seeds of its images."""

    name: str
    folder: str
    number: int

    @property
    def ann_file(self) -> str:
        return f'annotations/instances_{self.name}.json'

    @property
    def image_dir(self) -> str:
        return f'images/{self.folder}'

    @property
    def map_dir(self) -> str:
        return f'annotations/{self.folder}'


SPLITS = {'train': Split('train', 'training', 0), 'val': Split('val', 'validation', 1)}


def get_split(name: str | None) -> Split:
    if name not in SPLITS:
        raise ValueError(f'unknown split {name!r} of the shapes data set, expected one of {sorted(SPLITS)}')
    return SPLITS[name]


class Scene(NamedTuple):
    """One drawn image with G objects, in drawing order (later ones cover earlier ones).

    Attributes:
        image: (H, W, 3) uint8, RGB.
        labels: (G,) int64, index into ``CLASSES``.
        masks: (G, H, W) bool, the visible part of each object.
    """

    image: np.ndarray
    labels: np.ndarray
    masks: np.ndarray

    def semantic_map(self) -> np.ndarray:
        """(H, W) uint8, 0 background, label + 1 elsewhere."""
        values = (self.labels + 1).astype(np.uint8)
        return (self.masks * values[:, None, None]).sum(0, dtype=np.uint8)


def draw_scene(seed: int, split: str, index: int) -> Scene:
    """Draw image ``index`` of a split; a pure function of its arguments."""
    rng = np.random.default_rng([seed, get_split(split).number, index])
    hw = SIZES_HW[rng.integers(len(SIZES_HW))]
    is_empty = index % EMPTY_EVERY == EMPTY_EVERY - 1
    # The whole layout is drawn before any colour, so that no floating-point result of OpenCV can reach the annotations.
    labels, coverages, masks = ([], [], np.zeros((0, *hw), bool)) if is_empty else _place_objects(rng, hw)
    canvas = _paint_ground(rng, hw)
    for coverage in coverages:
        _paint_object(rng, canvas, coverage)
    canvas += rng.normal(0, 4, (*hw, 3)).astype(np.float32)
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, np.array(labels, np.int64), masks)


# ---------------------------------------------------------------- layout


def _regular(corners: int) -> np.ndarray:
    """(corners, 2) points on the unit circle."""
    angle = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _star() -> np.ndarray:
    points = _regular(10)
    points[1::2] *= 0.45
    return points


def _cross() -> np.ndarray:
    arm = 0.36
    reach = math.sqrt(1 - arm**2)
    quarter = np.array([[reach, -arm], [reach, arm], [arm, arm]])
    turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


OUTLINES = {'circle': _regular(72), 'cross': _cross(), 'square': _regular(4), 'star': _star(), 'triangle': _regular(3)}


def _polygon_area(points: np.ndarray) -> float:
    x, y = points.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def _coverage(points: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 share of each pixel that a polygon covers; pixel (0, 0) spans [0, 1] x [0, 1]."""
    out = np.zeros(hw, np.float32)
    low = np.maximum(np.floor(points.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int), hw[::-1])
    if (high <= low).any():
        return out
    w, h = high - low
    fine = np.zeros((h * SUPERSAMPLING, w * SUPERSAMPLING), np.uint8)
    fraction_bits = 4
    corners = ((points - low) * SUPERSAMPLING - 0.5) * 2**fraction_bits
    cv2.fillPoly(fine, [np.rint(corners).astype(np.int32)], 1, shift=fraction_bits)
    blocks = fine.reshape(h, SUPERSAMPLING, w, SUPERSAMPLING)
    out[low[1] : high[1], low[0] : high[0]] = blocks.mean((1, 3), dtype=np.float32)
    return out


def _place_objects(rng: np.random.Generator, hw: tuple[int, int]) -> tuple[list[int], list[np.ndarray], np.ndarray]:
    """Place objects one above the other; what would hide too much of itself or of another one is tried elsewhere.

    Returns:
        Labels, coverages (H, W) and visible masks (G, H, W), in drawing order.
    """
    labels: list[int] = []
    coverages: list[np.ndarray] = []
    areas: list[float] = []
    masks: np.ndarray = np.zeros((0, *hw), bool)
    largest = min(DIAMETER[1], 0.6 * min(hw))
    for _ in range(rng.integers(OBJECT_COUNTS[0], OBJECT_COUNTS[1], endpoint=True)):
        label = int(rng.integers(len(CLASSES)))
        may_cover = rng.random() < 0.4
        for _ in range(20):
            diameter = rng.uniform(DIAMETER[0], largest)
            angle = rng.uniform(0, 2 * math.pi)
            centre_xy = np.array([rng.uniform(0.25 * diameter, side - 0.25 * diameter) for side in hw[::-1]])
            turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            points = OUTLINES[CLASSES[label]] @ turn * (diameter / 2) + centre_xy
            area = _polygon_area(points)
            coverage = _coverage(points, hw)
            mask = coverage >= 0.5
            left = masks & ~mask
            if not may_cover and (left != masks).any():
                continue
            new_masks = np.concatenate([left, mask[None]])
            if (new_masks.sum((1, 2)) >= MIN_VISIBLE * np.array([*areas, area])).all():
                labels.append(label)
                coverages.append(coverage)
                areas.append(area)
                masks = new_masks
                break
    return labels, coverages, masks


# ---------------------------------------------------------------- paint (RGB, float32, 0 to 255)


def _smooth_noise(rng: np.random.Generator, hw: tuple[int, int], cell: int) -> np.ndarray:
    """(H, W, 3) noise in about [-1, 1] that varies over ``cell`` pixels."""
    coarse = rng.uniform(-1, 1, (hw[0] // cell + 2, hw[1] // cell + 2, 3)).astype(np.float32)
    return cv2.resize(coarse, hw[::-1], interpolation=cv2.INTER_CUBIC)


def _ramp(rng: np.random.Generator, hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 1) plane through the image in a random direction, from -1 to 1."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : hw[0] * 1j, -1 : 1 : hw[1] * 1j].astype(np.float32)
    plane = x * math.cos(angle) + y * math.sin(angle)
    return (plane / (abs(math.cos(angle)) + abs(math.sin(angle))))[..., None]


def _paint_ground(rng: np.random.Generator, hw: tuple[int, int]) -> np.ndarray:
    middle = rng.uniform(50, 205, 3)
    slope = rng.uniform(-40, 40, 3)
    canvas = middle + slope * _ramp(rng, hw)
    for cell, strength in ((48, 18), (12, 9)):
        canvas = canvas + strength * _smooth_noise(rng, hw, cell)
    return canvas.astype(np.float32)


def _paint_object(rng: np.random.Generator, canvas: np.ndarray, coverage: np.ndarray) -> None:
    """Blend one object into ``canvas``, in a colour that stands out from what is along its outline so far."""
    hw = coverage.shape
    candidates = rng.uniform(10, 245, (32, 3)).astype(np.float32)
    inside = (coverage >= 0.5).astype(np.uint8)
    ring = cv2.dilate(inside, np.ones((5, 5), np.uint8)) > inside
    distance = np.linalg.norm(canvas[ring][None] - candidates[:, None], axis=-1)  # (candidates, pixels of the ring)
    contrast = np.percentile(distance, 5, axis=1)
    enough = np.flatnonzero(contrast >= MIN_CONTRAST)
    colour = candidates[enough[0] if len(enough) else contrast.argmax()]
    fill = colour + 12 * _ramp(rng, hw) + 6 * _smooth_noise(rng, hw, 10)
    canvas += coverage[..., None] * (fill - canvas)


# ---------------------------------------------------------------- files


def _annotation(annotation_id: int, image_id: int, label: int, mask: np.ndarray) -> dict:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {
        'id': annotation_id,
        'image_id': image_id,
        'category_id': int(label) + 1,
        'bbox': [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        'area': int(mask.sum()),
        'iscrowd': 0,
        'segmentation': {'size': list(mask.shape), 'counts': rle['counts'].decode()},
    }


def _encode(suffix: str, image: np.ndarray, *options: int) -> bytes:
    ok, data = cv2.imencode(suffix, image, options)
    if not ok:
        raise RuntimeError(f'this build of OpenCV ({cv2.__version__}) cannot write {suffix} files')
    return data.tobytes()


def write_shapes(root: Path, spec: ShapesSpec) -> None:
    """Write a whole data set into ``root``, with a progress bar if standard output is a terminal."""
    console = Console()
    show = console.is_interactive and os.environ.get('RANK', '0') == '0'
    for split in SPLITS.values():
        (root / split.image_dir).mkdir(parents=True)
        (root / split.map_dir).mkdir(parents=True)
        images: list[dict] = []
        annotations: list[dict] = []
        indices = range(spec.num_train if split.name == 'train' else spec.num_val)
        for index in track(indices, f'Drawing shapes, {split.name}', console=console, disable=not show):
            scene = draw_scene(spec.seed, split.name, index)
            stem = f'{split.name}_{index:06d}'
            jpeg = _encode('.jpg', scene.image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
            (root / split.image_dir / f'{stem}.jpg').write_bytes(jpeg)
            (root / split.map_dir / f'{stem}.png').write_bytes(_encode('.png', scene.semantic_map()))
            height, width = scene.image.shape[:2]
            images.append({'id': index + 1, 'file_name': f'{stem}.jpg', 'height': height, 'width': width})
            for label, mask in zip(scene.labels, scene.masks, strict=True):
                annotations.append(_annotation(len(annotations) + 1, index + 1, label, mask))
        content = {
            'info': dict(description='Generated shapes: detection and segmentation', split=split.name, **spec.record()),
            'licenses': [],
            'categories': [{'id': i, 'name': name} for i, name in enumerate(CLASSES, 1)],
            'images': images,
            'annotations': annotations,
        }
        (root / split.ann_file).write_text(json.dumps(content, separators=(',', ':')))


def check_shapes(root: Path, spec: ShapesSpec) -> None:
    """Check that ``root`` holds the whole data set of ``spec``; opens no image.

    Raises:
        FileExistsError: There is something else in ``root``, or a data set of another specification.
        FileNotFoundError: Images or semantic maps of the data set are missing.
    """
    advice = 'Choose another data_root, or move or delete this folder and it will be generated again.'
    wanted = spec.record()
    for split in SPLITS.values():
        try:
            content = json.loads((root / split.ann_file).read_text())
            found = {key: content['info'].get(key) for key in wanted}
            stems = [Path(image['file_name']).stem for image in content['images']]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError) as error:
            held = sorted(entry.name for entry in root.iterdir())[:5] if root.is_dir() else 'a file'
            raise FileExistsError(
                f'{root} exists, but is no generated shapes data set: expected a readable {split.ann_file} in it '
                f'({type(error).__name__}: {error}), found {held}. Nothing was changed. {advice}'
            ) from error
        if found != wanted:
            raise FileExistsError(
                f'{root} holds a shapes data set of another specification: expected {wanted}, found {found}. '
                f'Nothing was changed. {advice}'
            )
        for folder, suffix in ((split.image_dir, '.jpg'), (split.map_dir, '.png')):
            there = set(os.listdir(root / folder)) if (root / folder).is_dir() else set()
            missing = [stem + suffix for stem in stems if stem + suffix not in there]
            if missing:
                raise FileNotFoundError(
                    f'{root / folder}: {len(missing)} of {len(stems)} files of the shapes data set are missing, '
                    f'first {missing[0]}. {advice}'
                )


def _holds_something(root: Path) -> bool:
    return root.exists() and not (root.is_dir() and not any(root.iterdir()))


def ensure_shapes(data_root: str | os.PathLike, spec: ShapesSpec | None = None) -> Path:
    """Make sure that ``data_root`` holds the data set of ``spec``; generate it if there is nothing yet.

    Any number of processes may call this at once. The files are written to a hidden folder beside ``data_root`` that is
    renamed at the end, so that ``data_root`` is either absent or whole, and existing files are never changed. A whole
    data set is only read, without a lock. An empty lock file stays beside ``data_root``.

    Returns:
        The absolute folder.

    Raises:
        FileExistsError, FileNotFoundError: As ``check_shapes``.
    """
    spec = spec or ShapesSpec()
    root = Path(data_root).resolve()
    if not _holds_something(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        partial = root.with_name(f'.{root.name}.partial')
        with FileLock(root.with_name(f'.{root.name}.lock')):
            if partial.exists():  # of a killed process: whoever writes to it holds the lock
                shutil.rmtree(partial)
            if not _holds_something(root):
                partial.mkdir()
                try:
                    write_shapes(partial, spec)
                    partial.rename(root)
                except BaseException:
                    shutil.rmtree(partial, ignore_errors=True)
                    raise
    check_shapes(root, spec)
    return root
