"""Beginnings of parameter names as templates that are read and written.

``{i}`` stands for a number, and ``{i+1}`` or ``{i-1}`` for its neighbours. ``[a|b]`` stands for any of these texts when
it is read, for the first one when it is written; there are no numbers in it. A template ends at the end of a word.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache

Pairs = Iterable[tuple[str, str]]

_PIECE = re.compile(r'\{(?P<number>\w)(?P<offset>[+-]\d)?\}|\[(?P<choice>[^\]]*)\]|[^{\[]+')


def translate(name: str, pairs: Pairs) -> tuple[str, str] | None:
    """Write the beginning of ``name`` by the first of ``pairs`` (read, written) that fits.

    Returns:
        What is written, and the rest of ``name``; None if no pair fits.
    """
    for source, target in pairs:
        found = _pattern(source).match(name)
        if found:
            numbers = {key: int(text) - _offsets(source)[key] for key, text in found.groupdict().items()}
            if min(numbers.values(), default=0) >= 0:
                return _write(target, numbers), name[found.end() :]
    return None


def begins(name: str, templates: Iterable[str]) -> bool:
    """Whether one of ``templates`` fits the beginning of ``name``."""
    return any(_pattern(template).match(name) for template in templates)


@cache
def _pattern(template: str) -> re.Pattern:
    def piece(found: re.Match) -> str:
        if found['number']:
            return rf'(?P<{found["number"]}>\d+)'
        return '(?:' + '|'.join(map(re.escape, (found['choice'] or found[0]).split('|'))) + ')'

    return re.compile(_PIECE.sub(piece, template) + ('' if template[-1:] in '._/' else r'(?!\w)'))


@cache
def _offsets(template: str) -> dict[str, int]:
    return {found['number']: int(found['offset'] or 0) for found in _PIECE.finditer(template) if found['number']}


def _write(template: str, numbers: Mapping[str, int]) -> str:
    def piece(found: re.Match) -> str:
        if found['number']:
            return str(numbers[found['number']] + int(found['offset'] or 0))
        return (found[0] if found['choice'] is None else found['choice']).split('|')[0]

    return _PIECE.sub(piece, template)
