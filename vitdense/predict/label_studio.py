"""What was found, as pre-annotations of Label Studio: https://labelstud.io/guide/predictions."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from vitdense.version import __version__

LOCAL_FILES = '/data/local-files/?d='
"""Where Label Studio serves the files below its ``LOCAL_FILES_DOCUMENT_ROOT``."""

BOXES, MASKS = 'boxes', 'masks'
"""Names of the tags of :func:`interface` that results belong to."""

LONGEST = 2**16
"""Values that one run of a packed mask has at most."""


def task(image: str, wh: tuple[int, int], found: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> dict:
    """A task with its prediction.

    A mask becomes a brush region, which is exact; what has a box alone becomes a rectangle, in percent of the image.

    Args:
        image: its address as Label Studio opens it, see :func:`address`.
        wh: its width and height in pixels.
        found: annotations as of COCO, see :meth:`.Result.to_coco`.
        names: of the classes by category id.

    Raises:
        ImportError: there are masks, and pycocotools is not installed.
    """
    regions = [_region(one, f'{number:06}', wh, names[one['category_id']]) for number, one in enumerate(found, 1)]
    prediction: dict[str, Any] = dict(model_version=f'vitdense {__version__}', result=regions)
    scores = [one['score'] for one in found if 'score' in one]
    if scores:
        prediction['score'] = sum(scores) / len(scores)
    return dict(data=dict(image=image), predictions=[prediction])


def _region(one: Mapping[str, Any], key: str, wh: tuple[int, int], name: str) -> dict[str, Any]:
    width, height = wh
    kind, tag = ('brushlabels', MASKS) if 'segmentation' in one else ('rectanglelabels', BOXES)
    value: dict[str, Any] = {kind: [name]}
    if tag == MASKS:
        from pycocotools import mask as coco

        value |= dict(format='rle', rle=pack(coco.decode(one['segmentation'])))
    else:
        x, y, w, h = one['bbox']
        value |= dict(x=100 * x / width, y=100 * y / height, width=100 * w / width, height=100 * h / height, rotation=0)
    region: dict[str, Any] = dict(id=key, from_name=tag, to_name='image', type=kind, value=value)
    region |= dict(original_width=width, original_height=height, image_rotation=0)
    return region | ({'score': one['score']} if 'score' in one else {})


def address(path: str, prefix: str = LOCAL_FILES) -> str:
    """How Label Studio opens an image: a URL as it is, a file below what ``prefix`` stands for."""
    return path if '://' in path else prefix + quote(path)


def pack(mask: np.ndarray) -> list[int]:
    """A mask (H, W) as bytes of an RGBA picture packed as ``@thi.ng/rle-pack`` does, of 0 and 255.

    Head: the number of values (32 bits), bits of a value less one (5), and four lengths of the numbers of runs, each
    less one (4). A run: 1, which of the four lengths (2), its values less one, and the value.
    """
    flat = mask.ravel().astype(bool)
    starts = np.flatnonzero(np.diff(flat, prepend=not flat[0]))
    lengths = 4 * np.diff(starts, append=flat.size)
    pieces = -(-lengths // LONGEST)
    runs = np.full(pieces.sum(), LONGEST, np.int64)
    runs[pieces.cumsum() - 1] = lengths - (pieces - 1) * LONGEST
    words = (1 << 26) + ((runs - 1) << 8) + 255 * flat[starts].repeat(pieces)
    bits = (words[:, None] >> np.arange(26, -1, -1)) & 1
    head = f'{4 * flat.size:032b}{8 - 1:05b}{4 * f"{16 - 1:04b}"}'
    return np.packbits([*map(int, head), *bits.ravel().tolist()]).tolist()


def interface(names: Sequence[str], palette: Sequence[tuple[int, int, int]]) -> str:
    """The labelling interface, XML, whose labels the results have."""
    view = ElementTree.Element('View')
    ElementTree.SubElement(view, 'Image', name='image', value='$image', zoom='true')
    for kind, tag in (('RectangleLabels', BOXES), ('BrushLabels', MASKS)):
        labels = ElementTree.SubElement(view, kind, name=tag, toName='image')
        for name, color in zip(names, palette, strict=True):
            ElementTree.SubElement(labels, 'Label', value=name, background='#{:02x}{:02x}{:02x}'.format(*color))
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding='unicode') + '\n'
