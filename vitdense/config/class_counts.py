"""Has every head of a model as many classes as the data?"""

import re
from collections.abc import Iterator, Sequence

from mmengine.config import ConfigDict
from torch import nn

from vitdense.config.tree import look_up
from vitdense.names import listed

OTHER_CLASSES = {
    'RPNHead': 'object or not',
    'GARPNHead': 'object or not',
    'CascadeRPNHead': 'object or not',
    'FusedSemanticHead': 'stuff, as a help for things',
    'STDCHead': 'boundary or not',
    'LinearReIDHead': 'persons',
    'GroundingDINOHead': 'words of a text',
    'ATSSVLFusionHead': 'words of a text',
}
"""Heads of mmdet and mmseg, subclasses included, whose ``num_classes`` does not count the data's classes."""


def check_class_counts(model: nn.Module, classes: Sequence[str], key: str, config: ConfigDict | None = None) -> None:
    """Compare ``num_classes`` of every head with the number of ``classes``.

    Left out: proposal networks, teachers, masks without classes, and ``OTHER_CLASSES``. A panoptic head must have the
    classes as the sum of things and stuff, and the box and mask heads beside it those of the things.

    Args:
        model: the built model, not wrapped.
        classes: names of the data's classes, in the order of their labels.
        key: where in the config the data are, e.g. ``train_dataloader.dataset``.
        config: the model's config, to tell heads that it lists from one that it repeats for all stages.

    Raises:
        ValueError: a head has more or fewer; the message has its config key, both numbers, the first class names, and
            the option that mends it.
        TypeError: ``classes`` is one string.
    """
    if isinstance(classes, str):
        raise TypeError(f'{key}: classes is the string {classes!r}, expected a tuple: ({classes!r},)')
    heads = dict(classifying_heads(model))
    split = next((head for head in heads.values() if _is_split(head)), None)
    problems, options = [], []
    for name, head in heads.items():
        place = f'model.{place_of(name, config)}'
        if _is_split(head):
            things, stuff = (getattr(head, f'num_{kind}_classes') for kind in ('things', 'stuff'))
            if things + stuff != len(classes):
                problems.append(
                    f'{place}.num_things_classes + num_stuff_classes is {things} + {stuff} = {things + stuff}'
                )
                options += [f'{place}.num_things_classes=THINGS', f'{place}.num_stuff_classes=STUFF']
            continue
        expected = split.num_things_classes if split else len(classes)
        if head.num_classes != expected:
            problems.append(f'{place}.num_classes is {head.num_classes}')
            options.append(f'{place}.num_classes={expected}')
            if split:
                problems[-1] += f', but there are {expected} classes of things'
    if problems:
        raise ValueError(
            f'{"; ".join(dict.fromkeys(problems))}; the data of {key} have {len(classes)} classes '
            f'({listed(classes, 5)}). Make them agree: --cfg-options {" ".join(dict.fromkeys(options))}'
        )


def classifying_heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Heads that classify into the data's classes, by their place in the config."""
    for name, module in model.named_modules():
        if not re.search(r'head(\.\d+)?$', name) or not isinstance(getattr(module, 'num_classes', None), int):
            continue
        kinds = {kind.__name__ for kind in type(module).__mro__}
        if kinds & OTHER_CLASSES.keys() or name.endswith('rpn_head') or getattr(module, 'class_agnostic', False):
            continue
        first, _, rest = name.partition('.')
        if first != 'teacher':
            yield (f'detector.{rest}' if first == 'student' else name), module


def place_of(name: str, config: ConfigDict | None) -> str:
    """Where the config has the head ``name``: cascades repeat a head that is not listed."""
    owner, _, stage = name.rpartition('.')
    repeated = config is not None and stage.isdigit() and isinstance(look_up(config, owner), dict)
    return owner if repeated else name


def _is_split(head: nn.Module) -> bool:
    """Does it count things and stuff? Those of mmseg that come from mmdet have the numbers, but do not use them."""
    of_mmseg = any(kind.__module__.startswith('mmseg.') for kind in type(head).__mro__)
    return hasattr(head, 'num_things_classes') and not of_mmseg
