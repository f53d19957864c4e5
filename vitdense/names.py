"""Names in sentences: lists that are not too long, and the nearest to a name that does not exist."""

from collections.abc import Collection, Iterable
from difflib import SequenceMatcher


def listed(items: Collection, most: int) -> str:
    """``a, b, c and 4 more``: the first ``most`` of them."""
    more = f' and {len(items) - most} more' if len(items) > most else ''
    return ', '.join(map(str, list(items)[:most])) + more


def counted(number: int, noun: str) -> str:
    """``1 epoch``, ``2 epochs``."""
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def nearest(name: str, valid: Iterable[str]) -> list[str]:
    """Return all ``valid`` names, the most similar to ``name`` first; case does not count, and the beginning most."""
    wanted = str(name).lower()

    def distance(candidate: str) -> tuple[float, str]:
        other = candidate.lower()
        begin = sum(wanted[:n] == other[:n] for n in range(1, 5))  # as Winkler weighs it
        return (1 - 0.1 * begin) * (1 - SequenceMatcher(None, wanted, other).ratio()), candidate

    return sorted(set(valid), key=distance)


def unknown(kind: str, name: str, valid: Iterable[str], most: int = 12) -> str:
    """Message for an unknown ``name`` of a ``kind``: at most ``most`` valid names, nearest first."""
    names = nearest(name, valid)
    if not names:
        return f'unknown {kind} {name!r}, and none are known'
    shown = listed([repr(name) for name in names], most)
    return f'unknown {kind} {name!r}: did you mean {names[0]!r}? Valid, nearest first: {shown}'


def brief(error: Exception) -> str:
    """The first line of an exception's message, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
