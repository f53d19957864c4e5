"""The data sets of a config, built without reading their files."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from vitdense.config.building import building
from vitdense.config.datasets import leaf_datasets
from vitdense.registry import bare_type

from ..shapes_generator import ShapesSpec, ensure_shapes
from .pictures import Loader, find_loader

CHEAP = 64 * 2**20
"""Bytes of an annotation file that is read only for its counts."""


@dataclass
class Leaf:
    """One data set of a config, without its wrappers.

    Attributes:
        key: its place in the config.
        node: what stands there.
        type: name of its type.
        kind: 'coco', 'seg', 'listed' for another one with images and boxes, or '' for one that is not scanned.
        dataset: the data set, not initialised; ``None`` without a kind.
        loader: how images are decoded, ``None`` if by something unknown.
        ignored: labels that the config tells heads of a segmentor to ignore.
        fault: why the data set cannot be built.
        lacks: whether that is a package.
        listing: what a data set of the kind 'listed' lists, once it was asked.
    """

    key: str
    node: ConfigDict
    type: str
    kind: str = ''
    dataset: Any = None
    loader: Loader | None = field(default_factory=Loader)
    ignored: tuple[int, ...] = ()
    fault: str = ''
    lacks: bool = False
    listing: Any = None

    @property
    def is_test(self) -> bool:
        """Whether it may come without annotations."""
        return self.key.startswith('test_')

    def steps(self, kind: str) -> list[ConfigDict]:
        """Steps of the pipeline of this type, whatever their scope."""
        steps = self.node.get('pipeline') or []
        return [step for step in steps if isinstance(step, dict) and bare_type(step) == kind]


def find_leaves(cfg: Config, split: str) -> list[Leaf]:
    """The data sets of ``cfg.{split}_dataloader``; generated ones are there afterwards.

    Raises:
        KeyError: a type is missing or not registered.
    """
    return [_leaf(cfg, key, node) for key, node in leaf_datasets(cfg, split)]


def _leaf(cfg: Config, key: str, node: ConfigDict) -> Leaf:
    if 'type' not in node:
        raise KeyError(f'{key} has no type')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')), building(cfg):
        with DATASETS.switch_scope_and_registry(None) as registry:
            cls = node['type'] if isinstance(node['type'], type) else registry.get(node['type'])
        leaf = Leaf(key, node, cls.__name__ if cls else str(node['type']), _kind(cls))
        if leaf.kind or cls is None:
            try:
                leaf.dataset = DATASETS.build({**node, 'pipeline': [], 'lazy_init': True})
            except Exception as error:  # some read files when they are built, those of mmseg compare their classes
                if leaf.kind == 'listed' and isinstance(error, TypeError):  # a constructor with other arguments
                    leaf.kind = ''
                elif leaf.kind == 'listed' or (leaf.kind == 'seg' and isinstance(error, ValueError | ImportError)):
                    leaf.fault = f'{leaf.type} cannot be built: {type(error).__name__}: {error}'
                    leaf.lacks = isinstance(error, ImportError)
                else:
                    raise
    leaf.loader = find_loader(node.get('pipeline') or [])
    if leaf.kind == 'seg':
        leaf.ignored = _ignored_by_heads(cfg.get('model') or {})
    if isinstance(getattr(leaf.dataset, 'spec', None), ShapesSpec):
        ensure_shapes(leaf.dataset.data_root, leaf.dataset.spec)
    return leaf


def _ignored_by_heads(model: dict) -> tuple[int, ...]:
    heads = [model.get(name) or [] for name in ('decode_head', 'auxiliary_head')]
    nodes = [node for head in heads for node in ([head] if isinstance(head, dict) else head)]
    return tuple(sorted({node['ignore_index'] for node in nodes if isinstance(node.get('ignore_index'), int)}))


def _kind(cls: type | None) -> str:
    """How a data set is scanned: those that list videos are not."""
    if cls is not None and find_spec('mmdet'):
        from mmdet.datasets import CocoDataset, CocoPanopticDataset, LVISV05Dataset

        if issubclass(cls, CocoDataset) and not issubclass(cls, CocoPanopticDataset | LVISV05Dataset):
            return 'coco'
    if cls is not None and find_spec('mmseg'):
        from mmseg.datasets import BaseSegDataset

        if issubclass(cls, BaseSegDataset):
            return 'seg'
    if cls is not None and find_spec('mmdet'):
        from mmdet.datasets import BaseVideoDataset

        if issubclass(cls, BaseVideoDataset):
            return ''
    return 'listed' if cls is not None and issubclass(cls, BaseDataset) else ''


def is_remote(leaf: Leaf) -> bool:
    """Whether the files are on another machine."""
    backend = (getattr(leaf.dataset, 'backend_args', None) or {}).get('backend', 'local')
    places = [leaf.dataset.ann_file, *leaf.dataset.data_prefix.values()]
    return backend != 'local' or any('://' in str(place) or ':/' in str(place)[2:] for place in places)


def follows_file_order(dataset: Any) -> str:
    """What another order of the categories does to the labels: '' nothing, 'wrong', or 'unknown'."""
    from mmdet.datasets import Objects365V1Dataset, Objects365V2Dataset

    from ..coco import CocoDataset

    if isinstance(dataset, CocoDataset | Objects365V1Dataset | Objects365V2Dataset):
        return ''
    owner = next(cls for cls in type(dataset).__mro__ if 'load_data_list' in vars(cls))
    return 'wrong' if owner.__module__.startswith('mmdet.') else 'unknown'
