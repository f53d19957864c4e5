"""Answers to a name that does not exist: the valid names, nearest first."""

from collections.abc import Iterable
from difflib import SequenceMatcher


def nearest(name: str, valid: Iterable[str]) -> list[str]:
    """Return all ``valid`` names, the most similar to ``name`` first (case does not count)."""
    wanted = str(name).lower()

    def distance(candidate: str) -> tuple[float, str]:
        return -SequenceMatcher(None, wanted, candidate.lower()).ratio(), candidate

    return sorted(set(valid), key=distance)


def unknown(kind: str, name: str, valid: Iterable[str], most: int = 12) -> str:
    """Message for an unknown ``name`` of a ``kind``: at most ``most`` valid names, nearest first."""
    names = nearest(name, valid)
    if not names:
        return f'unknown {kind} {name!r}, and none are known'
    shown = ', '.join(repr(n) for n in names[:most])
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return f'unknown {kind} {name!r}: did you mean {names[0]!r}? Valid, nearest first: {shown}{more}'
