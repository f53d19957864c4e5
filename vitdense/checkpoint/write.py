"""Rewriting a checkpoint file in another layout."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vitdense.checkpoint.fetch import fetch
from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.layouts.family import Layout, State
from vitdense.checkpoint.read import read
from vitdense.checkpoint.report import summary
from vitdense.checkpoint.translate import (
    WRAPPERS,
    divide,
    find_layout,
    joined,
    recognise,
    strangers,
    to_ours,
    to_theirs,
    unwrap,
)
from vitdense.files import replacing
from vitdense.names import unknown

OURS = 'vitdense'

OF_BACKBONES = ('timm', 'transformers', 'detectron2')
"""Targets that have no detectors of mmdet around their backbones: out of these, the backbone is written alone."""


@dataclass
class Weights:
    """The weights of a checkpoint under our names.

    Attributes:
        state: parameters; those of a backbone that is part of a model begin with ``backbone.``.
        model: family of the whole model, None if it is a backbone or another model around a backbone.
        backbone: family of the backbone, None if it is not one of ours.
        sources: names of the layouts that the file had.
        dropped: its keys that are not in ``state``.
        notes: what a config must say for the outputs to be equal.
    """

    state: State
    model: str | None = None
    backbone: str | None = None
    sources: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        """What the names of the backbone begin with: nothing if it is alone."""
        return 'backbone.' if any(key.startswith('backbone.') for key in self.state) else ''

    def rename(self, layout: Layout, prefix: str = '') -> None:
        """Bring what begins with ``prefix`` from ``layout`` into ours."""
        part, rest = divide(self.state, prefix)
        renamed, dropped = to_ours(part, layout)
        if not prefix or any(value is not part.get(key) for key, value in renamed.items()):
            self.sources.append(layout.name)
        self.notes += [f'{layout.name}: {layout.note}'] if layout.note else []
        self.dropped += [prefix + key for key in dropped]
        self.state = joined(renamed, rest, prefix)

    def __str__(self) -> str:
        parts = [self.model or ('a model' if self.prefix else None), self.backbone]
        return f'{" with ".join(filter(None, parts))} ({", ".join(dict.fromkeys(self.sources)) or OURS})'


def weights_of(checkpoint: Mapping) -> Weights:
    """Recognise the layout of a checkpoint by its keys, and bring it into ours.

    Raises:
        ValueError: no tensors, or no layout that is known.
    """
    weights = Weights(unwrap(checkpoint))
    family, layout = recognise(weights.state) or (None, None)
    if family and FAMILIES[family].whole:
        weights.model = family
        if layout:
            weights.rename(layout)
    part, _ = divide(weights.state, weights.prefix)
    family, layout = recognise(part) or (None, None)
    if family and layout and not FAMILIES[family].whole:
        weights.backbone = family
        weights.rename(layout, weights.prefix)
    if not weights.model and not weights.backbone:
        raise ValueError(_nearest([weights.state, part]))
    return weights


def written(weights: Weights, target: str) -> tuple[State, str]:
    """Weights in the layout ``target``, and the key of a file that holds them.

    Raises:
        ValueError: the layout does not exist for this model, or has no place for some of the weights.
    """
    state, prefix = weights.state, weights.prefix
    if target == OURS:
        return state, 'state_dict'
    layouts = _layouts(weights.model, target) if weights.model else []
    if weights.backbone and not any(layout.names_backbone for layout in layouts):
        part, rest = divide(state, prefix)
        part, wrapper = _first_with_place(part, _layouts(weights.backbone, target))
        state = joined(part, rest, prefix)
        if not weights.model:
            return state, 'state_dict' if prefix else wrapper
    return _first_with_place(state, layouts)


def rewrite(source: str | Path, target: Path, to: str = OURS, overwrite: bool = False) -> list[str]:
    """Write the weights in ``source`` to ``target`` in the layout ``to``, and read them back.

    A backbone in a model that ``to`` does not know is written alone where ``to`` is of backbones only.

    Args:
        source: what :func:`fetch` finds: a path, a URL, or the name of a release.
        target: ``.safetensors``, or anything else for a file of ``torch.save``.
        to: ``vitdense``, or a target of a layout of the model's family.
        overwrite: replace ``target`` if it is there.

    Returns:
        Lines about what was found and written.

    Raises:
        OSError: there is no ``source``, or ``target`` cannot be written or is there already.
        ValueError: ``source`` is not known, or ``to`` has no place for some of it. Nothing is written.
    """
    source = fetch(str(source))
    _check_target(target, source, overwrite)
    content = read(source)
    try:
        found = weights_of(content)
        weights = _part_for(found, to)
        state, wrapper = written(weights, to)
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from error
    is_safe = target.suffix == '.safetensors'
    kept = ('meta',) if wrapper and not is_safe else ()
    with replacing(target) as part:
        part.touch()  # the libraries have other exceptions than OSError for what is no place to write to
        if is_safe:
            copies = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
            save_file(copies, part, metadata=dict(format='pt'))
        else:
            torch.save({'meta': content.get('meta', {}), wrapper: state} if wrapper else state, part)
        counters = _missing_counters(weights.state, weights_of(read(part)).state)
    others = [key for key, value in content.items() if not isinstance(value, Tensor) and key not in WRAPPERS + kept]
    left_out = weights.dropped + others
    return [
        f'{source}: recognised as {found}',
        *([f'left out: {len(left_out)} ({summary(left_out)})'] if left_out else []),
        *([f'left out: {len(counters)} counters of batch norms'] if counters else []),
        *weights.notes,
        f'{target}: written {len(state)} tensors in the layout {to!r}, read back and found equal',
    ]


def _nearest(states: Iterable[State]) -> str:
    """Why none of ``states`` has a layout that is known: the keys that the nearest one does not have."""
    near = [
        (strangers(state, layout), layout.name)
        for state in states
        for family in FAMILIES
        if (layout := find_layout(state, family))
    ]
    if not near:
        first = list(next(iter(states)))[:5]
        return f'no layout of {", ".join(FAMILIES)}; the first keys are {first}'
    keys, name = min(near, key=lambda pair: len(pair[0]))
    return f'almost the {name} layout, which does not have {len(keys)} of the keys: {keys[:5]}'


def _part_for(weights: Weights, target: str) -> Weights:
    """The backbone alone where ``target`` knows backbones only, and not the model around this one."""
    layouts = FAMILIES[weights.model].layouts if weights.model else ()
    is_known = any(target in layout.targets for layout in layouts)
    if is_known or not weights.backbone or target not in OF_BACKBONES:
        return weights
    part, rest = divide(weights.state, weights.prefix)
    return replace(weights, state=part, model=None, dropped=[*weights.dropped, *rest])


def _layouts(family: str, target: str) -> list[Layout]:
    """The layouts of a family that are called ``target``, at least one."""
    layouts = FAMILIES[family].layouts
    found = [layout for layout in layouts if target in layout.targets]
    if not found:
        known = {name for layout in layouts for name in layout.targets}
        raise ValueError(f'{family}: {unknown("layout", target, [OURS, *known])}')
    return found


def _first_with_place(state: State, layouts: list[Layout]) -> tuple[State, str]:
    """``state`` in the first of ``layouts`` that has a place for all of it, and its wrapper."""
    reasons = []
    for layout in layouts:
        try:
            return to_theirs(state, layout), layout.wrapper
        except ValueError as error:
            reasons.append(f'{layout.name}: {error}')
    raise ValueError('; '.join(reasons))


def _check_target(target: Path, source: Path, overwrite: bool) -> None:
    """Refuse a ``target`` that cannot be written, or must not be."""
    if target.is_dir():
        raise IsADirectoryError(f'{target} is a folder, expected the path of a file')
    if not target.parent.is_dir():
        raise FileNotFoundError(f'there is no folder {target.parent} to write {target.name} to')
    if target.exists() and target.samefile(source):
        raise FileExistsError(f'{target} is the source itself, expected another path')
    if target.exists() and not overwrite:
        raise FileExistsError(f'{target} is there already; --overwrite replaces it')


def _missing_counters(state: State, back: State) -> list[str]:
    """Counters of batch norms, on which no output depends, may not be read back; all else must be, bit for bit."""
    missing = [key for key in state if key not in back]
    counters = [key for key in missing if key.endswith('.num_batches_tracked')]
    wrong = [key for key in missing if key not in counters] + [key for key in back if key not in state]
    wrong += [key for key, value in back.items() if key in state and not _is_same(value, state[key])]
    if wrong:
        raise RuntimeError(f'{len(wrong)} parameters are not read back as they were: {wrong[:5]}; nothing was written')
    return counters


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit: NaN is NaN, and 0 is not -0."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(*(value.contiguous().flatten().view(torch.uint8) for value in (a, b)))
