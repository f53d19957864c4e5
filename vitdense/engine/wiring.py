"""Where a model config states the channels of its backbone, for checking them and for changing the backbone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmengine.config import ConfigDict

HEADS = ('decode_head', 'auxiliary_head', 'panoptic_head', 'bbox_head', 'rpn_head', 'keypoint_head')


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

    def expected(self, channels: Sequence[int]) -> list[int]:
        """What it has to state for a backbone whose maps have ``channels``."""
        return list(channels) if self.levels is None else [channels[level] for level in self.levels]

    def set(self, channels: Sequence[int]) -> None:
        """State the channels of a backbone."""
        expected = self.expected(channels)
        self.node[self.key] = expected[0] if isinstance(self.node[self.key], int) else expected


def channel_fields(model: ConfigDict) -> Iterator[ChannelField]:
    """All places in ``model`` that state channels of its backbone: in the neck, or without one in the heads."""
    if model.get('neck'):
        name, neck = _first('neck', model.neck)
        if 'in_channels' in neck:
            yield ChannelField(f'{name}.in_channels', neck, 'in_channels', _levels(neck))
        return
    for head in HEADS:
        for name, node in _each(head, model.get(head)):
            if 'in_channels' in node:
                yield ChannelField(f'{name}.in_channels', node, 'in_channels', _levels(node))
            if 'c1_in_channels' in node:
                yield ChannelField(f'{name}.c1_in_channels', node, 'c1_in_channels', (0,))


def _levels(node: ConfigDict) -> tuple[int, ...] | None:
    """Maps that the ``in_channels`` of a node speak of; mmseg's heads name them by ``in_index``."""
    index = node.get('in_index')
    if index is None:
        return (-1,) if isinstance(node['in_channels'], int) else None
    return (index,) if isinstance(index, int) else tuple(index)


def _first(name: str, node: ConfigDict | list) -> tuple[str, ConfigDict]:
    return (f'{name}[0]', node[0]) if isinstance(node, list | tuple) else (name, node)


def _each(name: str, node: ConfigDict | list | None) -> list[tuple[str, ConfigDict]]:
    if isinstance(node, list | tuple):
        return [(f'{name}[{i}]', n) for i, n in enumerate(node)]
    return [] if node is None else [(name, node)]


def check_channels(model: ConfigDict, channels: Sequence[int]) -> None:
    """Compare what ``model`` states with the ``channels`` of its backbone's maps.

    Raises:
        ValueError: they differ; the message has the place and both numbers.
    """
    for field in channel_fields(model):
        try:
            expected = field.expected(channels)
        except IndexError:
            raise ValueError(
                f'model.{field.path} speaks of the backbone maps {list(field.levels)}, but the backbone '
                f'{model.backbone.type} returns {len(channels)} maps (out_indices)'
            ) from None
        if field.stated != expected:
            raise ValueError(
                f'model.{field.path} is {field.stated}, but the maps of the backbone {model.backbone.type} have '
                f'{expected} channels'
            )
