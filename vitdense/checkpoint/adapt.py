"""Loading published weights into a whole detector: foreign layouts, and classes that differ."""

import re
from collections.abc import Mapping

import torch
from torch import nn

from vitdense.checkpoint.convert import find_layout, rename, unwrap
from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.layouts.family import State
from vitdense.checkpoint.resize import resize_tables
from vitdense.models.backbones import Backbone

COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
"""Ids of the 80 categories of COCO. Official releases of DETR and its descendants have a logit for each id up to 90."""

HIGHEST_ID = 90


def adapt(checkpoint: Mapping, model: nn.Module) -> tuple[dict, list[str]]:
    """Bring a checkpoint of a detector into our layout, and to the classes of ``model``.

    What the heads of ``model`` cannot have written is taken as the layout of somebody else if its keys are known to
    :attr:`QueryHead.family`; other checkpoints stay as they are.

    Args:
        checkpoint: what the file holds, wrappers included.
        model: the detector that shall load it.

    Returns:
        The checkpoint with a ``state_dict``, and a line for each thing that was done to it.

    Raises:
        ValueError: no tensors, or a key that the layout does not know.
    """
    checkpoint = dict(checkpoint)
    if not isinstance(checkpoint.get('state_dict'), Mapping):
        checkpoint = dict(state_dict=unwrap(checkpoint))
    state, own = checkpoint['state_dict'], model.state_dict()
    family = getattr(getattr(model, 'bbox_head', None), 'family', None)
    if family is None:
        return checkpoint, []
    lines = []
    layout = find_layout(unwrap(state), family)
    if layout is not None and not any(key.startswith('bbox_head.') and key in own for key in state):
        state = rename(unwrap(state), layout)[0]
        lines.append(f'converted from the layout of {layout.name}')
        if isinstance(model.backbone, Backbone):
            state = _resize_backbone(state, model.backbone, lines)
    state = _fit_classes(state, own, FAMILIES[family].class_head, model.bbox_head.proposal_classes, lines)
    return dict(checkpoint, state_dict=state) if lines else checkpoint, lines


def _resize_backbone(state: State, backbone: Backbone, lines: list[str]) -> State:
    part = {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    resized, names = resize_tables(part, backbone)
    lines += [f'resized {name}' for name in names]
    return state | {f'backbone.{key}': value for key, value in resized.items()}


def _fit_classes(state: State, own: State, pattern: str, proposals: str | None, lines: list[str]) -> State:
    """Select the logits of the 80 classes from those of all COCO ids; others of another number are left out.

    In the first of two stages only the first logit is ever right, that of any object: it is kept.
    """
    fitted, selected, fresh = {}, False, {}
    for key, value in state.items():
        if key not in own or not re.fullmatch(pattern, key) or len(value) == len(own[key]):
            fitted[key] = value
            continue
        found, wanted = len(value), len(own[key])
        extra = found - HIGHEST_ID - 1  # no object
        name = key.rpartition('.')[0]
        if proposals is not None and name == f'bbox_head.{proposals}':
            fitted[key] = torch.cat([value[:1], own[key][1:].to(value)])
        elif extra in (0, 1) and wanted == len(COCO_IDS) + extra:
            fitted[key] = value[COCO_IDS + [HIGHEST_ID + 1] * extra]
            selected = True
        else:
            layers = re.sub(r'class_embed\.\d+$', 'class_embed.*', name)
            fresh[layers] = f'{found} logits are in the file, {wanted} in the model'
    if selected:
        lines.append('the 80 classes were taken from the 91 ids of COCO')
    lines += [f'{name} starts afresh: {difference}' for name, difference in fresh.items()]
    return fitted
