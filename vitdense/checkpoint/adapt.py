"""Loading published weights into a whole model: foreign layouts, and classes that differ."""

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
    """Bring a checkpoint of a whole model into our layout, and to the classes of ``model``.

    Parameters of the heads are renamed where their keys are those of somebody else's layout, known to the ``family`` of
    the head; those of the backbone where it is one of ours and has not all of the keys. The rest stays as it is.

    Args:
        checkpoint: what the file holds, wrappers included.
        model: the detector or segmentor that shall load it.

    Returns:
        The checkpoint with a ``state_dict``, and a line for each thing that was done to it.

    Raises:
        ValueError: no tensors, or a key that the layout does not know.
    """
    checkpoint = dict(checkpoint)
    if not isinstance(checkpoint.get('state_dict'), Mapping):
        checkpoint = dict(state_dict=unwrap(checkpoint))
    state, lines = checkpoint['state_dict'], []
    head = next((getattr(model, name) for name in ('bbox_head', 'decode_head') if hasattr(model, name)), None)
    family = getattr(head, 'family', None)
    layout = family and find_layout(unwrap(state), family)
    if layout:
        state = rename(unwrap(state), layout)[0]
        lines.append(f'converted from the layout of {layout.name}{layout.note}')
    if isinstance(getattr(model, 'backbone', None), Backbone):
        state = _adapt_backbone(state, model.backbone, lines)
    if family:
        proposals = getattr(head, 'proposal_classes', None)
        state = _fit_classes(state, model.state_dict(), FAMILIES[family].class_head, proposals, lines)
    return dict(checkpoint, state_dict=state) if lines else checkpoint, lines


def _adapt_backbone(state: State, backbone: Backbone, lines: list[str]) -> State:
    """Rename the keys of the backbone, and resize its tables."""
    part = {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    rest = {key: value for key, value in state.items() if not key.startswith('backbone.')}
    if not part.keys() <= backbone.state_dict().keys():
        layout = find_layout(part, backbone.family)
        renamed = rename(part, layout)[0] if layout else part
        if not renamed.keys() <= part.keys():
            lines.append(f'backbone converted from the layout of {layout.name}')
        part = renamed
    part, names = resize_tables(part, backbone)
    lines += [f'resized {name}' for name in names]
    return rest | {f'backbone.{key}': value for key, value in part.items()}


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
