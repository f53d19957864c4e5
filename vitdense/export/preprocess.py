"""From a picture to what an exported model takes. Needs NumPy, and Pillow or OpenCV."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitdense.untrusted.pictures import check_pixels


@dataclass(frozen=True)
class Preprocess:
    """How pictures are resized and normalised.

    Attributes:
        rule: of the new size: 'fit' (within ``size``, aspect kept), 'stretch' (exactly ``size``), 'shortest' (the
            shorter side gets the smaller number of ``size``, the longer one at most the larger), 'detr' (the same with
            DETR's rounding), 'factor' (times ``size``), or 'none'.
        size: two numbers, those of the config's ``scale`` or ``scale_factor``.
        mean, std: of the channels as the model takes them.
        rgb: whether the model takes red first.
        pad: width and height that the resized picture is padded to, right and below, (0, 0) for none,
            (-1, -1) for a square of its longer side.
        pad_value: of the three channels before they are normalised, blue first.
        multiple: of which the sides are to be; the picture is then enlarged once more, whatever its aspect.
    """

    rule: str = 'none'
    size: tuple[float, float] = (0, 0)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    rgb: bool = False
    pad: tuple[int, int] = (0, 0)
    pad_value: tuple[float, ...] = (0.0, 0.0, 0.0)
    multiple: int = 1

    def new_wh(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the resized picture."""
        short, long = sorted(self.size)
        if self.rule == 'none':
            return width, height
        if self.rule == 'stretch':
            return int(self.size[0]), int(self.size[1])
        if self.rule == 'factor':
            return int(width * self.size[0] + 0.5), int(height * self.size[1] + 0.5)
        if self.rule == 'fit':
            factor = min(long / max(height, width), short / min(height, width))
            return int(width * factor + 0.5), int(height * factor + 0.5)
        if self.rule == 'shortest':
            new_w, new_h = (short, short / width * height) if width < height else (short / height * width, short)
            if max(new_w, new_h) > long:
                factor = long / max(new_w, new_h)
                new_w, new_h = new_w * factor, new_h * factor
            return int(new_w + 0.5), int(new_h + 0.5)
        least, most = min(width, height), max(width, height)
        edge = round(long * least / most) if most / least * short > long else int(short)
        other = math.floor(edge * most / least)
        return (edge, other) if width < height else (other, edge)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """A picture (H, W, 3) uint8 BGR as the model takes it: (3, H', W') float32.

        Raises:
            TooLargeError: the file asks for a size that no picture has.
        """
        wh = self.new_wh(image.shape[1], image.shape[0])
        check_pixels(*wh)
        image = resize(image, wh)
        height, width = (-(-side // self.multiple) * self.multiple for side in image.shape[:2])
        check_pixels(width, height)
        image = resize(image, (width, height))
        sides = (max(image.shape[:2]),) * 2 if self.pad[0] < 0 else self.pad[::-1]
        check_pixels(*sides)
        below, right = (max(side - length, 0) for side, length in zip(sides, image.shape[:2], strict=True))
        if below or right:
            padded = np.empty((image.shape[0] + below, image.shape[1] + right, 3), image.dtype)
            padded[...] = np.array(self.pad_value)
            padded[: image.shape[0], : image.shape[1]] = image
            image = padded
        image = image[..., ::-1] if self.rgb else image
        normal = (image.astype(np.float32) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))

    def to_json(self) -> dict[str, Any]:
        """A dict of plain lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> 'Preprocess':
        """What :meth:`to_json` gave."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        return cls(**values)


def resize(image: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    """Bilinear, as OpenCV does it; without OpenCV a level may differ by one."""
    if image.shape[1::-1] == tuple(wh):
        return image
    try:
        import cv2
    except ImportError:
        return _bilinear(image, wh)
    return cv2.resize(image, wh, interpolation=cv2.INTER_LINEAR)


def _bilinear(image: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    value = image.astype(np.float32)
    for axis, new in ((0, wh[1]), (1, wh[0])):
        old = value.shape[axis]
        place = ((np.arange(new, dtype=np.float64) + 0.5) * old / new - 0.5).clip(0, old - 1)
        low = np.floor(place).astype(int)
        share = (
            (place - low).astype(np.float32).reshape(-1, 1, 1)
            if axis == 0
            else (place - low).astype(np.float32)[:, None]
        )
        after = np.minimum(low + 1, old - 1)
        value = value.take(low, axis) * (1 - share) + value.take(after, axis) * share
    return (value + 0.5).astype(np.uint8)


def preprocess_of(steps: Sequence[Mapping[str, Any]], preprocessor: Any) -> Preprocess:
    """Of the steps of a test pipeline that follow the loading, and of the built data preprocessor.

    Raises:
        ValueError: a step is none that a file can describe.
    """
    steps = steps[:-1]
    pad: tuple[int, int] = (0, 0)
    pad_value: tuple[float, ...] = (0.0,) * 3
    if steps and _name(steps[-1]) == 'Pad' and not hasattr(preprocessor, 'size'):
        *steps, last = steps
        pad, pad_value = _padding(last)
    multiple = 1
    if steps and _name(steps[-1]) == 'ResizeToMultiple' and not steps[-1].get('interpolation'):
        *steps, last = steps
        multiple = int(last.get('size_divisor', 32))
    rules = [_rule(step) for step in steps]
    if len(rules) > 1:
        raise ValueError(f'the test resizes pictures {len(rules)} times, a file describes one resizing')
    rule, size = rules[0] if rules else ('none', (0, 0))
    channels = 3
    mean = (
        preprocessor.mean.flatten().tolist() if getattr(preprocessor, '_enable_normalize', False) else [0.0] * channels
    )
    std = preprocessor.std.flatten().tolist() if getattr(preprocessor, '_enable_normalize', False) else [1.0] * channels
    rgb = bool(
        getattr(preprocessor, '_channel_conversion', False) or getattr(preprocessor, 'channel_conversion', False)
    )
    return Preprocess(rule, (float(size[0]), float(size[1])), tuple(mean), tuple(std), rgb, pad, pad_value, multiple)


def _name(step: Mapping[str, Any]) -> str:
    kind = step.get('type')
    return getattr(kind, '__name__', None) or str(kind).rpartition('.')[2]


def _rule(step: Mapping[str, Any]) -> tuple[str, tuple[float, float]]:
    name, scale = _name(step), step.get('scale')
    if name == 'DETRResize':
        return 'detr', _pair(scale)
    if name == 'ResizeShortestEdge':
        return 'shortest', (min(_pair(scale)), step.get('max_size', max(_pair(scale))))
    if name == 'Resize' and step.get('interpolation', 'bilinear') == 'bilinear':
        if scale is None:
            return 'factor', _pair(step['scale_factor'])
        return ('fit' if step.get('keep_ratio') else 'stretch'), _pair(scale)
    raise ValueError(f'the test pipeline has {name}, which an exported file cannot describe: known are Resize, '
                     'ResizeShortestEdge, ResizeToMultiple and DETRResize')  # fmt: skip


def _padding(step: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[float, ...]]:
    """Size and value of a ``Pad`` of mmdet.

    Raises:
        ValueError: it pads to another size for each picture, or not with one value.
    """
    size, value = step.get('size'), step.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, Mapping) else value
    if step.get('pad_to_square'):
        size = (-1, -1)
    if size is None or step.get('size_divisor') or step.get('padding_mode', 'constant') != 'constant':
        raise ValueError(
            'the test pipeline has Pad without one size for all pictures, which an exported file cannot describe: '
            'known are size=(width, height) and pad_to_square=True'
        )
    values = (value,) * 3 if isinstance(value, int | float) else tuple(value)
    return (int(size[0]), int(size[1])), tuple(float(one) for one in values)


def _pair(value: Any) -> tuple[float, float]:
    return (value, value) if isinstance(value, int | float) else (value[0], value[1])
