"""What loading a checkpoint says: one line, or what does not fit."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Size

from vitdense.names import listed

Remarks = Mapping[str, Collection[str]]


@dataclass
class Differences:
    """Keys that a model and a checkpoint do not share, or share in different shapes.

    Attributes:
        missing: keys of the model only.
        unexpected: keys of the checkpoint only.
        shapes: keys in both with different shapes: first the model's shape, then the checkpoint's.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[Size, Size]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any((self.missing, self.unexpected, self.shapes))

    def keys(self) -> dict[str, list[str]]:
        """By kind."""
        return {'missing': self.missing, 'unexpected': self.unexpected, 'other shape': list(self.shapes)}

    def described(self) -> dict[str, list[str]]:
        """By kind, with the shapes."""
        shapes = (f'{key}: the model has {tuple(own)}, the file {tuple(it)}' for key, (own, it) in self.shapes.items())
        return self.keys() | {'other shape': list(shapes)}


def report(share: float, what: str, path: str | Path, sources: Iterable[str], remarks: Remarks) -> str:
    """``loaded 98.7 % of backbone parameters from FILE (PVTv2 release), resized 1 (pos_embed), fresh 2 (det_token)``.

    Args:
        share: of the parameters of ``what``, those that come from the file.
        what: what was filled, e.g. ``backbone parameters``.
        path: the file.
        sources: names of the layouts that it was converted from.
        remarks: keys by what became of them.
    """
    source = ', '.join(dict.fromkeys(sources))
    parts = [f'loaded {percent(share)} of {what} from {path}' + (f' ({source})' if source else '')]
    parts += [f'{verb} {len(keys)} ({summary(keys)})' for verb, keys in remarks.items() if keys]
    return ', '.join(parts)


def percent(share: float) -> str:
    """``share`` with one decimal; only all of it is 100 %."""
    rounded = f'{100 * share:.1f}'.removesuffix('.0')
    return ('99.9' if rounded == '100' and share < 1 else rounded) + ' %'


def summary(keys: Iterable[str]) -> str:
    """Keys shortened to their first parts, with the last where there are few: ``head.*, blocks.*.rel_pos_h``."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        first, dot, rest = key.partition('.')
        groups.setdefault(first + dot, []).append(rest)
    return ', '.join(name for first, rests in groups.items() for name in _short(first, rests))


def _short(first: str, rests: list[str]) -> list[str]:
    last = dict.fromkeys(rest.rpartition('.')[2] for rest in rests)
    if not first.endswith('.'):
        return [first]
    if len(last) > 3 or not all('.' in rest for rest in rests) or last.keys() & {'weight', 'bias'}:
        return [f'{first}*']
    return [f'{first}*.{name}' for name in last]


def listing(differences: Mapping[str, Collection[str]], most: int = 5) -> str:
    """A line for each kind of difference, with its first keys."""
    return ''.join(f'\n  {kind}: {listed(keys, most)}' for kind, keys in differences.items() if keys)
