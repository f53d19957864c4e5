"""Has every head of a model as many classes as the data?"""

import re
from collections.abc import Iterator

from mmengine.config import ConfigDict
from torch import nn

from vitdense.config.tree import look_up

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


def miscounts(model: nn.Module, number: int, config: ConfigDict | None = None) -> tuple[list[str], list[str]]:
    """Heads whose classes are not ``number``, that of the data's classes, and the options that mend it.

    Left out: proposal networks, teachers, masks without classes, and ``OTHER_CLASSES``. A panoptic head must have the
    classes as the sum of things and stuff, and the box and mask heads beside it those of the things.

    Args:
        model: the built model, not wrapped.
        config: the model's config, to tell heads that it lists from one that it repeats for all stages.
    """
    heads = dict(classifying_heads(model))
    split = next((head for head in heads.values() if is_split(head)), None)
    problems, options = [], []
    for name, head in heads.items():
        place = f'model.{place_of(name, config)}'
        if is_split(head):
            things, stuff = (getattr(head, f'num_{kind}_classes') for kind in ('things', 'stuff'))
            if things + stuff != number:
                problems.append(
                    f'{place}.num_things_classes + num_stuff_classes is {things} + {stuff} = {things + stuff}'
                )
                options += [f'{place}.num_things_classes=THINGS', f'{place}.num_stuff_classes=STUFF']
            continue
        expected = split.num_things_classes if split else number
        if head.num_classes != expected:
            problems.append(f'{place}.num_classes is {head.num_classes}')
            options.append(f'{place}.num_classes={expected}')
            if split:
                problems[-1] += f', but there are {expected} classes of things'
    return list(dict.fromkeys(problems)), list(dict.fromkeys(options))


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


def is_split(head: nn.Module) -> bool:
    """Does it count things and stuff? Those of mmseg that come from mmdet have the numbers, but do not use them."""
    of_mmseg = any(kind.__module__.startswith('mmseg.') for kind in type(head).__mro__)
    return hasattr(head, 'num_things_classes') and not of_mmseg
