"""Fonts for names in any script: DejaVu Sans, which comes with matplotlib, and what the system has beyond it."""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import ParamSpec

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

P = ParamSpec('P')
DEFAULT = str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'))
PLACEHOLDERS = 'Last Resort'
"""Beginning of the name of a font that has a box for every letter."""


@cache
def letters_of(path: str) -> frozenset[int]:
    """Code points that a font file has; none if it cannot be read."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def font_for(text: str) -> str | None:
    """Path of the first font that has all letters of a text, ``None`` if none has."""
    needed = {ord(letter) for letter in text if not letter.isspace()}
    if needed <= letters_of(DEFAULT):
        return DEFAULT
    return next((path for path in _system() if needed <= letters_of(path)), None)


def legible(name: str, otherwise: str) -> str:
    """A name if there is a font for it."""
    return name if font_for(name) else otherwise


def legible_letters(text: str) -> str:
    """A text with a question mark for each letter that no font has."""
    return text if font_for(text) else ''.join(legible(letter, '?') for letter in text)


def legible_names(names: Sequence[str]) -> list[str]:
    """Class names, each without a font as its number."""
    return [legible(str(name), f'class {number}') for number, name in enumerate(names)]


def with_fonts(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """``draw``, whose texts have a font for all of their letters."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        figure = draw(*args, **kwargs)
        for text in figure.findobj(Text):
            path = font_for(text.get_text())
            if path not in (DEFAULT, None):
                text.set_fontfamily(['DejaVu Sans', fontManager.ttflist[_system()[path]].name])
        return figure

    return drawn


def _system() -> dict[str, int]:
    """Paths of upright fonts of normal weight, and their places in matplotlib's list."""
    return {entry.fname: i for i, entry in enumerate(fontManager.ttflist) if _is_plain(entry)}


def _is_plain(entry: FontEntry) -> bool:
    normal = entry.style == 'normal' and str(entry.weight) in ('400', 'normal', 'regular', 'book')
    return normal and not entry.name.startswith((PLACEHOLDERS, 'STIX', 'cm'))
