"""The values of ``--cfg-options KEY=VALUE``, read as mmengine's ``DictAction`` does, without losing what names have.

=================  ==============================================================================================
``3``, ``-1e-4``   numbers, as Python reads them, also ``160_000``
``true``, ``None`` truth values in any case, and ``None``
``1,2``, ``[1,2]`` a list, ``[]`` an empty one
``(1,2)``, ``(1)`` a tuple
``[(1,2),[a]]``    what is nested
``"a, b"``         text, whatever is between the quotes, single or double; but ``"[a,b]"`` as a whole is ``[a,b]``
``{...}``          refused, and ``dict(...)``
everything else    text: blanks, quotes, ``=`` and brackets in it stay
=================  ==============================================================================================

Beyond mmengine: blanks within a text stay, a quoted element is a text and one thing, a bracket that does not enclose
the whole of a value belongs to a name, and so do digits with underscores that do not group thousands.
"""

import re
from collections.abc import Iterator
from typing import Any

PAIRS = {'(': ')', '[': ']'}


def read_value(text: str) -> Any:
    """The value that ``text`` stands for.

    Raises:
        ValueError: it is a dict or has one, or brackets in it do not match.
    """
    bare = text.strip()
    if _is_quoted(bare) and _is_enclosed(bare[1:-1].strip()):
        return _read(bare[1:-1])
    return _read(text)


def _read(text: str) -> Any:
    """A value, or an element of one."""
    bare = text.strip()
    if _is_quoted(bare):
        return bare[1:-1]
    if re.fullmatch(r'(?s)\{.*\}|dict\(.*\)', bare):
        raise ValueError(f'a dict: {bare}')
    if _is_enclosed(bare):
        elements = [_read(part) for part in _split(bare[1:-1])]
        return tuple(elements) if bare[0] == '(' else elements
    if ',' in bare and (parts := _split(bare)) != [bare]:
        return [_read(part) for part in parts]
    return _read_scalar(text)


def _read_scalar(text: str) -> Any:
    bare = text.strip()
    if '_' not in bare or re.fullmatch(r'[+-]?\d{1,3}(_\d{3})+', bare):
        for number in (int, float):
            try:
                return number(bare)
            except ValueError:
                continue
    if bare.lower() in ('true', 'false'):
        return bare.lower() == 'true'
    return None if bare == 'None' else text


def _split(text: str) -> list[str]:
    """The elements of a list without its brackets; a comma at its end adds none."""
    cuts = [place for place, sign, depth in _marks(text) if sign == ',' and depth == 0]
    parts = [text[start:end].strip() for start, end in zip([0, *(cut + 1 for cut in cuts)], [*cuts, None], strict=True)]
    return parts if parts[-1] else parts[:-1]


def _is_enclosed(text: str) -> bool:
    """Does the bracket at its beginning close at its end?"""
    if text[:1] not in ('(', '[') or text[-1] not in (')', ']'):
        return False
    return next(place for place, sign, depth in _marks(text) if sign in ')]' and depth == 0) == len(text) - 1


def _is_quoted(text: str) -> bool:
    """Is the whole of it one text between quotes?"""
    return len(text) > 1 and text[0] in ('"', "'") and _end_of_quote(text, 0) == len(text) - 1


def _end_of_quote(text: str, start: int) -> int | None:
    """Where the quote that begins at ``start`` ends: before a comma, a closing bracket or the end of the text."""
    end = re.compile(rf'{text[start]}(?=\s*([,)\]]|$))').search(text, start + 1)
    return end.start() if end else None


def _marks(text: str) -> Iterator[tuple[int, str, int]]:
    """Brackets and commas outside of quotes: the place, the sign, and how many brackets are around it.

    Raises:
        ValueError: brackets do not match, in what was iterated over.
    """
    closing: list[str] = []
    place, begins = 0, True  # an element, which alone may be quoted: other quotes are apostrophes
    while place < len(text):
        sign = text[place]
        if begins and sign in '\'"' and (end := _end_of_quote(text, place)):
            place = end
        elif sign in PAIRS:
            yield place, sign, len(closing)
            closing.append(PAIRS[sign])
        elif sign in PAIRS.values():
            if not closing or closing.pop() != sign:
                raise ValueError(f'brackets do not match: {text}')
            yield place, sign, len(closing)
        elif sign == ',':
            yield place, sign, len(closing)
        begins = sign in '([,' or (begins and sign.isspace())
        place += 1
    if closing:
        raise ValueError(f'brackets do not match: {text}')
