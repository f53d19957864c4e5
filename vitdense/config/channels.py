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
        expected, kind = self.expected(channels), type(self.node[self.key])
        self.node[self.key] = expected[0] if kind is int else kind(expected)  # mmseg's JPU takes tuples only


def channel_fields(model: ConfigDict) -> Iterator[ChannelField]:
    """All places in ``model`` that state channels of its backbone: in the neck, or without one in the heads."""
    name, neck = first_neck(model)
    if neck:
        key = 'in_channels' if 'in_channels' in neck else 'embed_dim'  # the latter in mmseg's Feature2Pyramid
        if key in neck:
            yield ChannelField(f'{name}.{key}', neck, key, _levels(neck, key))
        return
    for head in HEADS:
        for name, node in _each(head, model.get(head)):
            if 'in_channels' in node:
                yield ChannelField(f'{name}.in_channels', node, 'in_channels', _levels(node, 'in_channels'))
            if 'c1_in_channels' in node:
                yield ChannelField(f'{name}.c1_in_channels', node, 'c1_in_channels', (0,))


def first_neck(model: ConfigDict) -> tuple[str, ConfigDict]:
    """Place and config of the neck that takes the backbone's maps; the config is empty without necks."""
    neck = model.get('neck') or ConfigDict()
    return ('neck[0]', neck[0]) if isinstance(neck, list | tuple) else ('neck', neck)


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
                f'model.{field.path} speaks of the backbone maps {list(field.levels or ())}, but the backbone '
                f'{model.backbone.type} returns {len(channels)} maps (out_indices)'
            ) from None
        if field.stated != expected:
            raise ValueError(
                f'model.{field.path} is {field.stated}, but the maps of the backbone {model.backbone.type} have '
                f'{expected} channels'
            )
