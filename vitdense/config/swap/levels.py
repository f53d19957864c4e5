"""Which maps of a backbone a model reads, which stages of another stand for them, and how to leave out the others."""

from collections.abc import Mapping, Sequence

from mmengine.config import ConfigDict

from vitdense.config.channels import ChannelField, channel_fields
from vitdense.registry import bare_type


def maps_read(fields: Sequence[ChannelField], count: int) -> list[int]:
    """Those of ``count`` maps that are read by what has these ``fields``, in order."""
    return sorted({level for field in fields for level in positions_read(field, count)})


def positions_read(field: ChannelField, count: int) -> list[int]:
    """The maps, out of ``count``, that the owner of a field reads: a pyramid leaves out those below its first level."""
    return field.positions(count)[_first_level(field.node) :]


def _first_level(node: ConfigDict) -> int:
    """How many maps a pyramid leaves out at the beginning; those of NAS-FCOS it counts all the same."""
    return 0 if bare_type(node) == 'NASFCOS_FPN' else node.get('start_level') or 0


def matching_stages(
    strides: Sequence[int], read: Sequence[int], old_indices: Sequence[int] | None, ours: Sequence[int]
) -> dict[int, int]:
    """The stage that stands for each of the maps ``read``, by the number of the map among the old ones.

    By stride where strides grow from map to map; by number where they do not, because stages of the old backbone are
    dilated; else by stride, if that tells the maps that are read apart.

    Args:
        strides: those of all old maps.
        read: the maps that the model reads.
        old_indices: stages of the old maps, where the config says them.
        ours: strides of the new stages.

    Raises:
        ValueError: neither tells.
    """
    if set(strides) <= set(ours) and list(strides) == sorted(set(strides)):
        return {level: ours.index(strides[level]) for level in read}
    stages = tuple(range(len(ours))) if len(strides) == len(ours) else tuple(old_indices or ())
    ordered = len(stages) == len(strides) and max(stages) < len(ours) and list(strides) == sorted(strides)
    if ordered and all(stride <= ours[stage] for stride, stage in zip(strides, stages, strict=True)):
        return {level: stages[level] for level in read}
    wanted = [strides[level] for level in read]
    if set(wanted) <= set(ours) and (len(wanted) == 1 or len(set(wanted)) > 1):
        return {level: ours.index(strides[level]) for level in read}
    raise ValueError(
        f'--backbone: the model reads maps of strides {wanted}, the new backbone has {list(ours)}: which to use '
        'instead cannot be told'
    )


def renumber(model: ConfigDict, positions: Mapping[int, int], count: int) -> list[str]:
    """Make ``model``, which reads some of ``count`` maps, read them at the ``positions`` given by their old ones.

    Returns:
        What changed.

    Raises:
        ValueError: a part of it reads maps by their order, which the new positions do not keep.
    """
    wanted, changes, left = {}, [], len(set(positions.values()))
    for field in channel_fields(model):
        node = field.node
        new = wanted[field.path] = [positions[level] for level in positions_read(field, count)]
        if _first_level(node):
            changes.append(f'model.{field.path}: without the first {node.start_level}, which are not read')
            node[field.key] = node[field.key][node.start_level :]
            if node.get('end_level', -1) > 0:
                node.end_level -= node.start_level
            node.start_level = 0
        elif 'in_index' in node and field.key == 'in_channels' and not _reads(field, new, left):
            before = node.in_index
            node.in_index = new[0] if isinstance(before, int) else type(before)(new)
            changes.append(f'model.{field.path.removesuffix(field.key)}in_index: {before} -> {node.in_index}')
    for field in channel_fields(model):
        if not _reads(field, wanted[field.path], left):
            raise ValueError(
                f'--backbone: model.{field.path} is of maps in an order that the new backbone does not have'
            )
    return changes


def _reads(field: ChannelField, wanted: Sequence[int], count: int) -> bool:
    """Are the maps that a field speaks of, out of ``count``, those that are ``wanted``?"""
    try:
        return field.positions(count) == list(wanted)
    except IndexError:
        return False
