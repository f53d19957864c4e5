"""Neck and heads against the backbone and the classes of the data."""

from collections.abc import Iterator

from vitdense.config.channels import misfits
from vitdense.config.class_counts import miscounts
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
