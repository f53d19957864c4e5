"""Bringing a checkpoint to the names, tables and classes of a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from vitdense.checkpoint.layouts import FAMILIES, family_of
from vitdense.checkpoint.layouts.family import Family, Layout, State
from vitdense.checkpoint.translate import divide, find_layout, joined, layout_of, recognise, to_ours, unwrap
from vitdense.coco_ids import COCO_IDS, HIGHEST_ID
from vitdense.models.backbones import Backbone


@dataclass
class Changes:
    """What was done to a checkpoint.

    Attributes:
        sources: names of the layouts that it was converted from.
        dropped: keys of the file that our models do not use.
        resized: names of the resized tables.
        selected: whether the 80 classes were taken out of the 91 ids of COCO.
        fresh: layers that were left out because they have another number of logits, with both numbers.
        notes: what a config must say for the outputs to be equal.
    """

    sources: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    selected: bool = False
    fresh: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.sources, self.dropped, self.resized, self.selected, self.fresh))

    def reasons(self) -> list[str]:
        """Why layers start afresh; several of one kind are told once."""
        kinds: dict[tuple[str, str], list[str]] = {}
        for name, why in self.fresh.items():
            kinds.setdefault((re.sub(r'\.\d+\b', '.*', name), why), []).append(name)
        told = ((kind if len(names) > 1 else names[0], why) for (kind, why), names in kinds.items())
        return [f'{name} starts afresh: {why}' for name, why in told]


def adapt(checkpoint: Mapping, model: nn.Module) -> tuple[dict, Changes]:
    """Bring a checkpoint of a whole model into our layout, and to the classes of ``model``.

    Parameters are renamed where their keys belong to another layout that the family of a head or a neck knows. The
    backbone's are renamed where it is one of ours and lacks some of the keys and shapes. The rest stays.

    Args:
        checkpoint: what the file holds, wrappers included.
        model: the detector or segmentor that shall load it.

    Returns:
        The checkpoint with a ``state_dict``, and what was done to it.

    Raises:
        ValueError: no tensors, or a key that the layout does not know.
    """
    state, changes = unwrap(checkpoint), Changes()
    parts = (getattr(model, name, None) for name in ('bbox_head', 'decode_head', 'neck'))
    family = next((found for part in parts if (found := family_of(type(part)))), '')
    layout = find_layout(state, family) if family else None
    if layout:
        state = _rename(state, layout, changes)
    backbone = getattr(model, 'backbone', None)
    if isinstance(backbone, Backbone) and family_of(type(backbone)):
        part, rest = divide(state, 'backbone.')
        own = backbone.state_dict()
        if not all(key in own and value.shape == own[key].shape for key, value in part.items()):
            layout = find_layout(part, family_of(type(backbone)))
            part = _rename(part, layout, changes, 'backbone.') if layout else part
            part, names = resize_tables(part, backbone)
            changes.resized += [f'backbone.{name}' for name in names]
            state = joined(part, rest, 'backbone.')
    if family and FAMILIES[family].class_head:
        state = _fit_classes(state, model.state_dict(), FAMILIES[family], changes)
    if isinstance(checkpoint.get('state_dict'), Mapping):
        return dict(checkpoint, state_dict=state) if changes else dict(checkpoint), changes
    return dict(state_dict=state), changes


def adapt_backbone(checkpoint: Mapping, backbone: Backbone) -> tuple[State, Changes]:
    """Bring the weights of a backbone, or of one in a whole model, into our layout and to the tables of ``backbone``.

    Args:
        checkpoint: what the file holds, wrappers included.
        backbone: one of a family.

    Returns:
        The state dict, and what was done to it.

    Raises:
        ValueError: no tensors, no layout of this backbone, or a key that the layout does not know.
    """
    state, changes = unwrap(checkpoint), Changes()
    known = recognise(state)
    whole = known[1] if known and FAMILIES[known[0]].whole else None
    if whole:
        state = _rename(state, whole, changes)
        changes.notes.clear()  # they are about heads
    part, rest = divide(state, 'backbone.')
    if part:
        state = part
        changes.dropped += rest
    state = _rename(state, layout_of(state, family_of(type(backbone))), changes, 'backbone.' if whole else '')
    state, changes.resized = resize_tables(state, backbone)
    return state, changes


def _rename(state: State, layout: Layout, changes: Changes, prefix: str = '') -> State:
    """From ``layout`` into ours; ``prefix`` is what the keys of the file begin with besides."""
    renamed, dropped = to_ours(state, layout)
    if not prefix or any(value is not state.get(key) for key, value in renamed.items()):
        changes.sources.append(layout.name)
    changes.dropped += [prefix + key for key in dropped]
    changes.notes += [layout.note] if layout.note else []
    return renamed


def _fit_classes(state: State, own: State, family: Family, changes: Changes) -> State:
    """Select the logits of the 80 classes from those of all COCO ids; others of another number are left out.

    In the first of two stages the first logit stands for any object. It is kept.
    """
    fitted, proposals = {}, family.proposals(own)
    for key, value in state.items():
        if key not in own or not re.fullmatch(family.class_head, key) or len(value) == len(own[key]):
            fitted[key] = value
            continue
        found, wanted = len(value), len(own[key])
        extra = found - HIGHEST_ID - 1  # no object
        name = key.rpartition('.')[0]
        if name == proposals:
            fitted[key] = torch.cat([value[:1], own[key][1:].to(value)])
        elif extra in (0, 1) and wanted == len(COCO_IDS) + extra:  # a logit for each id up to the highest
            fitted[key] = value[COCO_IDS + [HIGHEST_ID + 1] * extra]
            changes.selected = True
        else:
            changes.fresh[name] = f'{found} logits are in the file, {wanted} in the model'
    return fitted


def resize_tables(state: State, backbone: Backbone) -> tuple[State, list[str]]:
    """Fit ``state`` to ``backbone``: its family's ``fit``, and the tables that differ in size resized.

    Returns:
        The state dict with resized tables, and their names.
    """
    family, own = FAMILIES[family_of(type(backbone))], backbone.state_dict()
    state = family.fit(state, own)
    resized, names = dict(state), []
    for key, table in state.items():
        wanted = own[key].shape if key in own else table.shape
        for pattern, resize in family.tables:
            # what differs in the number of channels or heads belongs to another model
            if re.search(pattern, key) and table.shape != wanted and table.shape[-1] == wanted[-1]:
                resized[key] = resize(table.float(), wanted, **backbone.table_args(key)).to(table.dtype)
                names.append(key)
    return resized, names
