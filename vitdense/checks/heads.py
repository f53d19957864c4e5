"""Neck and heads against the backbone and the classes of the data."""

from collections.abc import Iterator
from typing import Any

from vitdense.config.channels import misfits
from vitdense.config.class_counts import miscounts, place_of
from vitdense.models.backbones import Backbone
from vitdense.names import listed

from .rules import Case, rule
from .run import Run


@rule(
    'channels of other maps',
    looks_at='`in_channels` of the neck, or without one of the heads, where the backbone is one of vitdense',
    expected='the channels of the maps that the backbone returns',
    needs='model',
)
def channels(run: Run) -> Iterator[Case]:
    backbone = getattr(run.model, 'backbone', None)
    if isinstance(backbone, Backbone):
        for where, found, expected in misfits(run.model_cfg, backbone.out_channels):
            yield Case(where, found, expected)


OF_MMSEG = ('ResNet', 'SwinTransformer', 'MixVisionTransformer')
"""Backbones of mmseg whose `out_indices` are those of their maps; :func:`channels` looks at the maps of ours."""


@rule(
    'map that is not there',
    looks_at='`in_index` of the heads of a segmentor, and the maps that its backbone or neck gives',
    expected='the place of a map, counted from 0',
    needs='model',
)
def indices(run: Run) -> Iterator[Case]:
    number = _maps(run.model)
    for name, head in run.model.named_modules() if run.model is not None and number else []:
        given: Any = getattr(head, 'in_index', None)
        chosen = list(given) if isinstance(given, list | tuple) else [given]
        if not name.partition('.')[0].endswith('_head') or not all(isinstance(place, int) for place in chosen):
            continue
        absent = [place for place in chosen if not -number <= place < number]
        if absent:
            key = f'model.{place_of(name, run.model_cfg)}.in_index'
            yield Case(key, f'{given}, and there are {number} maps', f'places from 0 to {number - 1}')


def _maps(model: Any) -> int:
    """Maps that the heads of a segmentor get; 0 if that is not known."""
    neck: Any = getattr(model, 'neck', None)
    backbone: Any = getattr(model, 'backbone', None)
    if neck is not None:
        return getattr(neck, 'num_outs', 0) if type(neck).__name__ == 'FPN' else 0
    kinds = {kind.__name__ for kind in type(backbone).__mro__}
    return len(backbone.out_indices) if kinds & {*OF_MMSEG} else 0


@rule(
    'number of classes',
    looks_at='`num_classes` of all heads that classify into the classes of the data',
    expected='the number of classes of the data',
    remedy='--cfg-options model.HEAD.num_classes=NUMBER; the message has the option',
    needs='model',
)
def class_counts(run: Run) -> Iterator[Case]:
    if run.model is None:
        return
    keys: dict[tuple[str, ...], list[str]] = {}
    for report in run.reports:
        keys.setdefault(report.classes, []).append(report.key)
    for classes, where in keys.items():
        found, options = miscounts(run.model, len(classes), run.model_cfg) if classes else ([], [])
        if found:
            expected = f'the {len(classes)} classes of {" and ".join(where)} ({listed(classes, 5)})'
            yield Case('heads', '; '.join(found), expected, f'--cfg-options {" ".join(options)}')
