"""Drawing of labels and predictions on one image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import max_pool2d
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import draw_segmentation_masks

from .fonts import DEFAULT, font_for, legible
from .labels import IGNORED, Labels
from .palette import OTHER, RGB, text_color

CROWD = 20
"""From this number of boxes on, lines are thin, and detections of the class that most of them have show only scores."""

Rectangle = tuple[int, int, int, int]


def font(size: int, text: str = '') -> ImageFont.FreeTypeFont:
    """A font that has the letters of ``text``, if there is one, else DejaVu Sans."""
    return _font(font_for(text) or DEFAULT, size)


@lru_cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def rgb_image(data: Tensor | np.ndarray, bgr: bool = True, norm: Mapping | None = None) -> Tensor:
    """A (3, H, W) uint8 RGB image of what a pipeline gives.

    Args:
        data: Tensor (C, H, W) or array (H, W, C) or (H, W); one channel is grey, of more than three the first three
            are taken. Floats are in [0, 1], in [0, 255], or normalised; otherwise they are stretched to their range.
        bgr: the channels are in the order blue, green, red.
        norm: ``mean``, ``std`` (in the order of the channels) and ``to_rgb`` of a normalisation to undo.
    """
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(np.ascontiguousarray(data if data.ndim == 3 else data[..., None])).permute(2, 0, 1)
    data = data.detach().cpu()
    data = data.expand(3, -1, -1) if data.shape[0] == 1 else data[:3]
    if norm is not None:
        mean, std = (torch.as_tensor(np.array(norm[key], np.float32)).reshape(-1, 1, 1) for key in ('mean', 'std'))
        data = data * std + mean
        bgr = not norm.get('to_rgb', not bgr)
    if data.dtype != torch.uint8:
        low, high = data.min(), data.max()
        if norm is None and (low < 0 or high > 255):
            data = (data - low) / (high - low) * 255
        elif norm is None and high <= 1 and data.is_floating_point():
            data = data * 255
        data = data.float().round().clamp(0, 255).to(torch.uint8)
    return data.flip(0) if bgr else data


def draw(
    image: Tensor, labels: Labels, names: Sequence[str], colors: Sequence[RGB], side: int | None = 640
) -> Image.Image:
    """Draw masks, boxes and names on an image that is first enlarged or reduced.

    Args:
        image: (3, H, W) uint8, RGB.
        labels: what to draw, in pixels of the image; masks may have another resolution.
        names: class names; a class without one is drawn as its number, in grey.
        colors: one for each name, see ``palette.class_colors``.
        side: pixels of the picture's longer side; None leaves the image as it is.

    Returns:
        The picture. Pixels that no mask, box or name covers are those of the resized image.
    """
    h, w = image.shape[1:]
    picture = resize(image, side)
    width, height = picture.size
    line = line_width(picture)
    if labels.semantic is not None:
        picture = _picture(_paint(pil_to_tensor(picture), nearest(labels.semantic, height, width), colors))
    if labels.masks is not None and labels.classes is not None and len(labels.masks):
        picture = _picture(_paint_objects(pil_to_tensor(picture), labels.masks, labels.classes, colors, line))
    if labels.boxes is None or labels.classes is None or not len(labels.boxes):
        return picture
    scale = torch.tensor([width / w, height / h, width / w, height / h])
    limit = torch.tensor([width - 1, height - 1, width - 1, height - 1])
    boxes = labels.boxes * scale
    drawn = (boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)).nonzero().flatten()
    boxes = torch.minimum(boxes.nan_to_num().clamp(min=0), limit).round().long()
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    order = drawn[(-area if labels.scores is None else labels.scores)[drawn].argsort(stable=True)]
    if not len(order):
        return picture
    line = line if len(order) < CROWD else line * 2 // 3
    numbers = labels.classes.tolist()
    line_colors = [color_of(colors, numbers[i]) for i in order.tolist()]
    pen = ImageDraw.Draw(picture)
    for box, color in zip(boxes[order].tolist(), line_colors, strict=True):
        pen.rectangle(box, width=line, outline=color)
    counts = labels.present()
    weight = area if labels.scores is None else labels.scores
    important = sorted(order.tolist(), key=lambda i: (counts[numbers[i]], -float(weight[i])))
    scores = None if labels.scores is None else labels.scores[important].tolist()
    _write_names(picture, boxes[important].tolist(), [numbers[i] for i in important], scores, names, colors)
    return picture


def color_of(colors: Sequence[RGB], number: int) -> RGB:
    """Colour of a class number, grey outside the classes."""
    return colors[number] if 0 <= number < len(colors) else OTHER


def name_of(names: Sequence[str], number: int) -> str:
    """Name of a class number; the number outside the classes, or where no font has the letters."""
    return legible(names[number], str(number)) if 0 <= number < len(names) else str(number)


def line_width(picture: Image.Image) -> int:
    """Pixels of a line that can be seen on a picture as a whole."""
    return max(2, round(max(picture.size) / 400))


def resize(image: Tensor, side: int | None) -> Image.Image:
    """A (3, H, W) uint8 image as a picture whose longer side has ``side`` pixels."""
    picture = _picture(image)
    scale = 1 if side is None else side / max(picture.size)
    if scale == 1:
        return picture
    width, height = (max(1, round(scale * length)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)


def _picture(image: Tensor) -> Image.Image:
    """A (3, H, W) uint8 image; in the order of Pillow, which copies others pixel by pixel and lets no thread run."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def nearest(maps: Tensor, height: int, width: int) -> Tensor:
    """(..., H, W) to (..., height, width), each pixel the one whose centre is nearest."""
    h, w = maps.shape[-2:]
    rows = ((torch.arange(height) + 0.5) * h / height).long().clamp(max=h - 1)
    columns = ((torch.arange(width) + 0.5) * w / width).long().clamp(max=w - 1)
    return maps[..., rows, :][..., columns]


def _paint(canvas: Tensor, classes: Tensor, colors: Sequence[RGB]) -> Tensor:
    """Blend each class of a (H, W) map with its colour, half and half; 255 and negative ones are left plain."""
    present = [number for number in classes.unique().tolist() if number >= 0 and number != IGNORED]
    if not present:
        return canvas
    masks = torch.stack([classes == number for number in present])
    return draw_segmentation_masks(canvas, masks, alpha=0.5, colors=[color_of(colors, n) for n in present])


def _paint_objects(canvas: Tensor, masks: Tensor, numbers: Tensor, colors: Sequence[RGB], line: int) -> Tensor:
    """Masks in the colour of their class, smaller over larger, with an outline."""
    masks = nearest(masks, *canvas.shape[1:])
    owner = torch.full(canvas.shape[1:], -1)
    for i in masks.sum((1, 2)).argsort(descending=True).tolist():
        owner[masks[i]] = i
    classes = torch.where(owner >= 0, numbers[owner], -1)
    canvas = _paint(canvas, classes, colors)
    edges = _grow(owner, line) != -_grow(-owner, line)
    edges &= owner >= 0
    palette = torch.tensor([color_of(colors, n) for n in range(-1, int(numbers.max()) + 1)], dtype=torch.uint8)
    canvas[:, edges] = palette[classes[edges] + 1].T
    return canvas


def _grow(numbers: Tensor, radius: int) -> Tensor:
    """The largest number within ``radius`` pixels of each pixel of a (H, W) map."""
    return max_pool2d(numbers[None].float(), 2 * radius + 1, 1, radius)[0].long()


def _write_names(
    picture: Image.Image,
    boxes: Sequence[Rectangle],
    numbers: Sequence[int],
    scores: Sequence[float] | None,
    names: Sequence[str],
    colors: Sequence[RGB],
) -> None:
    """Write the names of the boxes, in the given order, each where no other name is; where there is no room, none."""
    [(first, count)] = Counter(numbers).most_common(1)
    common = first if len(boxes) >= CROWD and 2 * count > len(boxes) else None
    pen = ImageDraw.Draw(picture)
    size = min(18, max(11, round(max(picture.size) / 40)))
    taken: list[Rectangle] = []
    for i, (box, number) in enumerate(zip(boxes, numbers, strict=True)):
        text = name_of(names, number)
        if scores is not None:
            score = f'{scores[i]:.2f}'
            text = score if number == common else f'{text} {score}'
        letters = font(size, text)
        width, height = round(letters.getlength(text)) + 4, sum(letters.getmetrics())
        place = _free_place(box, width, height, picture.size, taken)
        if place is None:
            continue
        taken.append(place)
        color = color_of(colors, number)
        pen.rectangle(place, fill=color)
        pen.text((place[0] + 2, place[1]), text, fill=text_color(color), font=letters)


def _free_place(
    box: Rectangle, width: int, height: int, size: tuple[int, int], taken: list[Rectangle]
) -> Rectangle | None:
    """Where a name fits: above its box, below it, or inside at the top or the bottom; always within the picture."""
    x1, y1, x2, y2 = box
    for left in dict.fromkeys((x1, x2 - width + 1)):
        left = min(max(left, 0), size[0] - width)
        for top in (y1 - height, y1, y2 - height + 1, y2 + 1):
            place = (left, top, left + width - 1, top + height - 1)
            inside = left >= 0 and top >= 0 and top + height <= size[1]
            if inside and not any(_overlap(place, other) for other in taken):
                return place
    return None


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
