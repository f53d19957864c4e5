"""Sheets of many pictures with titles, a heading and a legend."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from .drawing import font
from .palette import RGB

INK: RGB = (25, 25, 25)
PAPER: RGB = (255, 255, 255)
GAP = 12
TITLE, HEADING = 13, 17

Cell = Sequence[tuple[str, Image.Image]]


def sheet(cells: Sequence[Cell], heading: str = '', legend: Sequence[tuple[str, RGB]] = ()) -> Image.Image:
    """Arrange pictures in rows, so that the sheet is about 1.6 times as wide as high.

    Args:
        cells: each the titled pictures that belong side by side, e.g. labels and predictions of an image.
        heading: line at the top.
        legend: names and colours, at the bottom.

    Raises:
        ValueError: no cells.
    """
    if not cells:
        raise ValueError('a sheet needs at least one picture, got none')
    blocks = [_block(cell) for cell in cells]
    widest = max(block.width for block in blocks) + GAP
    layouts = [_rows(blocks, count * widest) for count in range(1, len(blocks) + 1)]
    rows = min(layouts, key=lambda rows: abs(math.log(_width(rows) / _height(rows) / 1.6)))
    width = _width(rows)
    top = 2 * HEADING if heading else GAP
    bottom = _legend(legend, width)
    paper = Image.new('RGB', (width, top + _height(rows) + (bottom.height if bottom else 0)), PAPER)
    pen = ImageDraw.Draw(paper)
    pen.text((GAP, HEADING // 2), shorten(heading, HEADING, width - 2 * GAP), INK, font(HEADING, heading))
    for row in rows:
        left = GAP
        for block in row:
            paper.paste(block, (left, top))
            left += block.width + GAP
        top += _height([row])
    if bottom:
        paper.paste(bottom, (0, top))
    return paper


def shorten(text: str, size: int, width: int) -> str:
    """``text`` in at most ``width`` pixels, its middle left out where it is longer: names differ at their ends."""
    letters = font(size, text)
    kept = len(text)
    short = text
    while kept > 1 and letters.getlength(short) > width:
        kept -= 1
        short = f'{text[: kept // 2]}…{text[len(text) - (kept + 1) // 2 :]}'
    return short


def _block(cell: Cell) -> Image.Image:
    """The pictures of a cell side by side, each under its title."""
    strip = TITLE + 7
    width = sum(picture.width for _, picture in cell) + 2 * (len(cell) - 1)
    block = Image.new('RGB', (width, strip + max(picture.height for _, picture in cell)), PAPER)
    pen = ImageDraw.Draw(block)
    left = 0
    for title, picture in cell:
        pen.text((left, 2), shorten(title, TITLE, picture.width), INK, font(TITLE, title))
        block.paste(picture, (left, strip))
        left += picture.width + 2
    return block


def _rows(blocks: Sequence[Image.Image], limit: int) -> list[list[Image.Image]]:
    """Fill rows of at most ``limit`` pixels in the given order."""
    rows: list[list[Image.Image]] = [[]]
    for block in blocks:
        if rows[-1] and _width([[*rows[-1], block]]) > limit + GAP:
            rows.append([])
        rows[-1].append(block)
    return rows


def _width(rows: Sequence[Sequence[Image.Image]]) -> int:
    return GAP + max(sum(block.width + GAP for block in row) for row in rows)


def _height(rows: Sequence[Sequence[Image.Image]]) -> int:
    return sum(max(block.height for block in row) + GAP for row in rows)


def _legend(entries: Sequence[tuple[str, RGB]], width: int) -> Image.Image | None:
    """Swatches with names, in as many lines as they need."""
    if not entries:
        return None
    line, swatch = TITLE + 9, TITLE
    places, x, y = [], GAP, 0
    for name, color in entries:
        text = shorten(name, TITLE, width - 2 * GAP - swatch - 5)
        step = swatch + 5 + round(font(TITLE, text).getlength(text)) + 16
        if x > GAP and x + step - 16 > width - GAP:
            x, y = GAP, y + line
        places.append((x, y, text, color))
        x += step
    strip = Image.new('RGB', (width, y + line + GAP // 2), PAPER)
    pen = ImageDraw.Draw(strip)
    for x, y, text, color in places:
        pen.rectangle((x, y + 3, x + swatch - 1, y + 2 + swatch), fill=color, outline=INK)
        pen.text((x + swatch + 5, y + 1), text, INK, font(TITLE, text))
    return strip
