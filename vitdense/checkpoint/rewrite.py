"""Rewriting a checkpoint file in another layout."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

from vitdense.checkpoint.convert import backbone_of, recognise, to_ours, to_theirs, unwrap
from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.layouts.family import Layout, State
from vitdense.checkpoint.read import read
from vitdense.checkpoint.report import summary
from vitdense.names import unknown

OURS = 'vitdense'


@dataclass
class Weights:
    """The weights of a checkpoint under our names.

    Attributes:
        state: parameters; those of the backbone of a whole model begin with ``backbone.``.
        model: family of the whole model, None if it is a backbone or another model around a backbone.
        backbone: family of the backbone, None if it is not one of ours.
        sources: names of the layouts that the file had.
        dropped: its keys that our models do not use.
    """

    state: State
    model: str | None = None
    backbone: str | None = None
    sources: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def weights_of(checkpoint: Mapping) -> Weights:
    """Recognise the layout of a checkpoint by its keys, and bring it into ours.

    Raises:
        ValueError: no tensors, or no layout that is known.
    """
    weights = Weights(unwrap(checkpoint))
    known = recognise(weights.state)
    if known and FAMILIES[known[0]].whole:
        weights.model = known[0]
        weights.state = _renamed(weights.state, known[1], weights)
    is_whole = any(key.startswith('backbone.') for key in weights.state)
    known = recognise(backbone_of(weights.state))
    if known and not FAMILIES[known[0]].whole:
        weights.backbone = known[0]
        part = _renamed(backbone_of(weights.state), known[1], weights)
        weights.state = _with_backbone(weights.state, part) if is_whole else part
    if weights.model is None and weights.backbone is None:
        raise ValueError(
            f'no known layout of {", ".join(FAMILIES)}; the first keys are {list(weights.state)[:5]} and the last '
            f'{list(weights.state)[-3:]}'
        )
    return weights


def written(weights: Weights, target: str) -> tuple[State, str]:
    """Weights in the layout ``target``, and the key of a file that holds them.

    A backbone in a model that is not ours is written alone where the layout is of backbones only.

    Raises:
        ValueError: the layout does not exist for this model, or has no place for some of the weights.
    """
    state = weights.state
    if target == OURS:
        return state, 'state_dict'
    wrapper, is_whole = 'state_dict', any(key.startswith('backbone.') for key in state)
    whole = _layouts(weights.model, target) if weights.model else []
    if weights.backbone and not any(layout.names_backbone for layout in whole):
        part, wrapper = _first_with_place(backbone_of(state), _layouts(weights.backbone, target))
        if not is_whole or target in ALONE:
            return part, wrapper
        state = _with_backbone(state, part)
    return _first_with_place(state, whole) if whole else (state, wrapper)


def _layouts(family: str, target: str) -> list[Layout]:
    """The layouts of a family that are called ``target``.

    Raises:
        ValueError: there is none.
    """
    layouts = FAMILIES[family].layouts
    found = [layout for layout in layouts if target in layout.targets]
    if not found:
        known = dict.fromkeys(name for layout in layouts for name in layout.targets)
        raise ValueError(f'{family}: ' + unknown('layout', target, [OURS, *known]))
    return found


def _first_with_place(state: State, layouts: list[Layout]) -> tuple[State, str]:
    """``state`` in the first of several layouts of one name that has a place for all of it, and its wrapper.

    Raises:
        ValueError: none has; the message says what the first one lacks.
    """
    reasons = []
    for layout in layouts:
        try:
            return to_theirs(state, layout), layout.wrapper
        except ValueError as error:
            reasons.append(f'{layout.name}: {error}')
    raise ValueError('; '.join(reasons))


ALONE = ('timm', 'transformers', 'detectron2')
"""Layouts in which there are backbones, and no detectors of mmdet around them."""


def rewrite(source: Path, target: Path, to: str = OURS, overwrite: bool = False) -> list[str]:
    """Write the weights in ``source`` to ``target`` in the layout ``to``, and read them back.

    Args:
        source: a file that :func:`read` reads.
        target: ``.safetensors``, or anything else for a file of ``torch.save``.
        to: ``vitdense``, or a target of a layout of the model's family.
        overwrite: replace ``target`` if it is there.

    Returns:
        Lines about what was found and written.

    Raises:
        FileExistsError: ``target`` is there.
        ValueError: ``source`` is not known, or ``to`` has no place for some of it. Nothing is written.
    """
    if target.exists() and not overwrite:
        raise FileExistsError(f'{target} is there already; --overwrite replaces it')
    content = read(source)
    try:
        weights = weights_of(content)
        state, wrapper = written(weights, to)
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from error
    part = target.with_name(f'.{target.name}.part')
    try:
        _save(part, state, wrapper, content.get('meta'), target.suffix == '.safetensors')
        _check(weights, read(part), f'{source} in the layout {to!r}')
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    family = ' with '.join(filter(None, [weights.model, weights.backbone]))
    lines = [f'{source}: {family} in the layout of {", ".join(dict.fromkeys(weights.sources)) or OURS}']
    if weights.dropped:
        lines.append(f'left out {len(weights.dropped)} ({summary(weights.dropped)})')
    return [*lines, f'written: {target} with {len(state)} tensors in the layout {to!r}, read back and found equal']


def _renamed(state: State, layout: Layout | None, weights: Weights) -> State:
    if layout is None:
        return state
    renamed, dropped = to_ours(state, layout)
    weights.sources.append(layout.name)
    weights.dropped += dropped
    return renamed


def _with_backbone(state: State, part: State) -> State:
    rest = {key: value for key, value in state.items() if not key.startswith('backbone.')}
    return {f'backbone.{key}': value for key, value in part.items()} | rest


def _save(path: Path, state: State, wrapper: str, meta: object, safe: bool) -> None:
    if safe:
        save_file({key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}, path)
    elif wrapper == 'state_dict':
        torch.save(dict(meta=meta or {}, state_dict=state), path)
    else:
        torch.save({wrapper: state} if wrapper else state, path)


def _check(weights: Weights, content: Mapping, what: str) -> None:
    """Compare ``weights`` with those of a file, which may have buffers besides.

    Raises:
        ValueError: they are not the same, bit for bit.
    """
    back = weights_of(content).state
    own = weights.state if back.keys() & weights.state.keys() else backbone_of(weights.state)
    differ = [key for key, value in own.items() if key not in back or not torch.equal(value, back[key])]
    if differ:
        raise ValueError(f'{what} does not keep {differ[:5]}: this is an error of vitdense')
