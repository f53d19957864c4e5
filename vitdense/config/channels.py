"""Where a model config states the channels of its backbone, for checking them and for changing the backbone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mmengine.config import ConfigDict

from vitdense.registry import bare_type

HEADS = ('decode_head', 'auxiliary_head', 'panoptic_head', 'bbox_head', 'rpn_head', 'keypoint_head')
ROI_EXTRACTORS = ('bbox_roi_extractor', 'mask_roi_extractor')
ROI_HEADS = ('bbox_head', 'mask_head')

NECKS: dict[str, Callable[[int], tuple[int, ...]]] = {
    'YOLOV3Neck': lambda count: tuple(range(count))[::-1],
    'RFP': lambda count: tuple(range(1, count + 1)),
    'CLRFPN': lambda count: tuple(range(count)),
}
"""The maps whose channels a neck states, by how many it states, where these are not all in their order: the last one
first, those after the image, the first ones."""


@dataclass(frozen=True)
class ChannelField:
    """One place in a model config that states channels of the backbone's maps.

    Attributes:
        path: where it is, e.g. ``neck.in_channels``.
        node: the config node that holds it.
        key: its key there.
        levels: the maps that it speaks of, as indices into the backbone's outputs; None for all.
    """

    path: str
    node: ConfigDict
    key: str
    levels: tuple[int, ...] | None

    @property
    def stated(self) -> list[int]:
        """The channels that the config states."""
        value = self.node[self.key]
        return [value] if isinstance(value, int) else list(value)

    def positions(self, count: int) -> list[int]:
        """The maps that it speaks of, out of ``count``.

        Raises:
            IndexError: there are not so many.
        """
        every = range(count)
        return list(every) if self.levels is None else [every[level] for level in self.levels]

    def expected(self, channels: Sequence[int]) -> list[int]:
        """What it has to state for a backbone whose maps have ``channels``."""
        return [channels[position] for position in self.positions(len(channels))]

    def set(self, channels: Sequence[int]) -> None:
        """State these channels."""
        kind = type(self.node[self.key])
        self.node[self.key] = channels[0] if kind is int else kind(channels)  # mmseg's JPU takes tuples only


def channel_fields(model: ConfigDict) -> Iterator[ChannelField]:
    """All places in ``model`` that state channels of its backbone: in the neck, or without one in the heads."""
    name, neck = first_neck(model)
    if neck:
        key = 'in_channels' if 'in_channels' in neck else 'embed_dim'  # the latter in mmseg's Feature2Pyramid
        if key in neck:
            yield ChannelField(f'{name}.{key}', neck, key, _levels_of_neck(neck, key))
        if bare_type(neck) == 'JPU':  # which passes all maps on but the last
            for field in _fields_of_heads(model):
                if field.levels and 0 <= max(field.levels) < len(neck.in_channels) - 1:
                    yield field
        return
    yield from _fields_of_heads(model)
    roi_head = model.get('roi_head') or {}
    for kinds, key in ((ROI_EXTRACTORS, 'out_channels'), (ROI_HEADS, 'in_channels')):
        for kind in kinds:
            for name, node in _each(f'roi_head.{kind}', roi_head.get(kind)):
                if isinstance(node.get(key), int) and not roi_head.get('shared_head'):
                    yield ChannelField(f'{name}.{key}', node, key, (-1,))


def first_neck(model: ConfigDict) -> tuple[str, ConfigDict]:
    """Place and config of the neck that takes the backbone's maps; the config is empty without necks."""
    neck = model.get('neck') or ConfigDict()
    return ('neck[0]', neck[0]) if isinstance(neck, list | tuple) else ('neck', neck)


def _fields_of_heads(model: ConfigDict) -> Iterator[ChannelField]:
    for head in HEADS:
        for name, node in _each(head, model.get(head)):
            if 'kernel_generate_head' in node:  # of mmseg's K-Net, which refines the maps of another head
                name, node = f'{name}.kernel_generate_head', node.kernel_generate_head
            if 'in_channels' not in node:
                continue
            levels = _levels(node, 'in_channels')
            yield ChannelField(f'{name}.in_channels', node, 'in_channels', levels)
            if node.get('num_convs') == 0 and isinstance(node.in_channels, int):  # what it classifies are the maps
                yield ChannelField(f'{name}.channels', node, 'channels', levels)
            if 'c1_in_channels' in node:
                yield ChannelField(f'{name}.c1_in_channels', node, 'c1_in_channels', (0,))


def _levels_of_neck(neck: ConfigDict, key: str) -> tuple[int, ...] | None:
    known = NECKS.get(bare_type(neck))
    return known(len(neck[key])) if known else _levels(neck, key)


def _levels(node: ConfigDict, key: str) -> tuple[int, ...] | None:
    """Maps that the channels under ``key`` speak of; mmseg's heads name them by ``in_index``."""
    index = node.get('in_index')
    if index is None:
        return (-1,) if isinstance(node[key], int) else None
    return (index,) if isinstance(index, int) else tuple(index)


def _each(name: str, node: ConfigDict | list | None) -> list[tuple[str, ConfigDict]]:
    if isinstance(node, list | tuple):
        return [(f'{name}[{i}]', n) for i, n in enumerate(node)]
    return [] if node is None else [(name, node)]


def misfits(model: ConfigDict, channels: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """Where ``model`` states other channels than its backbone's maps have: key, what is there, and what should be."""
    kind = model.backbone.type if isinstance(model.backbone.type, str) else bare_type(model.backbone)
    for field in channel_fields(model):
        try:
            expected = field.expected(channels)
        except IndexError:
            found = f'{field.stated}, of the backbone maps {list(field.levels or ())}'
            yield f'model.{field.path}', found, f'maps of the {len(channels)} that {kind} returns (out_indices)'
            continue
        if field.stated != expected:
            yield f'model.{field.path}', str(field.stated), f'the {expected} channels of the maps of {kind}'
