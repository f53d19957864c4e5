"""One description of a run, whatever the style of its config."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import nn

from vitdense.config.datasets import leaf_datasets, metrics
from vitdense.config.known_keys import resolve
from vitdense.config.settle import counts_epochs
from vitdense.datasets.scan import SplitReport
from vitdense.findings import Finding
from vitdense.registry import bare_type


@dataclass(frozen=True)
class Split:
    """What a config says about training, validation or test.

    Attributes:
        name: 'train', 'val' or 'test'.
        loader: ``{name}_dataloader``, empty where the config has none.
        loop: ``{name}_cfg``, empty where the config has none.
        datasets: data sets of the loader with their config keys, wrappers such as RepeatDataset opened.
        metrics: those of ``{name}_evaluator`` with their config keys.
        separate: whether each data set is evaluated alone, by a metric of its own.
        reports: what the scan found about each of ``datasets``; empty before it.
    """

    name: str
    loader: ConfigDict
    loop: ConfigDict
    datasets: list[tuple[str, ConfigDict]]
    metrics: list[tuple[str, ConfigDict]]
    separate: bool
    reports: list[SplitReport]

    @property
    def key(self) -> str:
        """Key of the loader."""
        return f'{self.name}_dataloader'


@dataclass
class Run:
    """A run before it starts; nothing of it is changed by the rules.

    Attributes:
        cfg: the config as it runs.
        names: the splits that the run uses.
        reports: what the scan found about the data sets of these splits; empty before it.
        model: the built model, not wrapped; ``None`` before it is built.
        processes: number of processes.
        remarks: findings for which the run does not stop.
        steps: batches of a pass over each split, in one process; empty before the loaders are built.
        samples: the first image of validation and test as its pipeline packs it; empty before the loaders are built.
    """

    cfg: Config
    names: tuple[str, ...] = ('train', 'val')
    reports: Sequence[SplitReport] = ()
    model: nn.Module | None = None
    processes: int = 1
    remarks: list[Finding] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)

    @property
    def model_cfg(self) -> ConfigDict:
        """Config of ``model``, without what augments a test."""
        node = self.cfg.get('model') or ConfigDict()
        return node.get('module') or node

    @property
    def trains(self) -> bool:
        """Whether it is more than a test."""
        return 'train' in self.names

    @property
    def splits(self) -> list[Split]:
        """The splits that the run uses and the config has."""
        return [self.split(name) for name in self.names if self.cfg.get(f'{name}_dataloader')]

    def split(self, name: str) -> Split:
        """A split, empty where the config has none."""
        cfg = self.cfg
        return Split(
            name,
            cfg.get(f'{name}_dataloader') or ConfigDict(),
            cfg.get(f'{name}_cfg') or ConfigDict(),
            list(leaf_datasets(cfg, name)),
            list(metrics(cfg, name)),
            self.is_a(cfg.get(f'{name}_evaluator'), 'MultiDatasetsEvaluator'),
            [report for report in self.reports if report.key.startswith(f'{name}_')],
        )

    def kind(self, node: object) -> type | None:
        """The class that a config node is built from; ``None`` if it has no type, or one that is not registered."""
        named = node.get('type') if isinstance(node, dict) else node
        if isinstance(named, type):
            return named
        found = resolve(named, self.cfg.get('default_scope') or 'mmengine') if isinstance(named, str) else None
        return found if isinstance(found, type) else None

    def is_a(self, node: object, *names: str) -> bool:
        """Whether a config node is built from a class of one of these names, or from a subclass."""
        kind = self.kind(node)
        return bool({bare_type(node), *(base.__name__ for base in getattr(kind, '__mro__', ()))} & set(names))

    @property
    def by_epoch(self) -> bool:
        """Whether the training loop counts epochs."""
        return counts_epochs(self.split('train').loop, self.cfg.get('default_scope'))

    @property
    def length(self) -> int | None:
        """Epochs or iterations of the training; ``None`` where the config does not say it."""
        return self.split('train').loop.get('max_epochs' if self.by_epoch else 'max_iters')

    def total(self, by_epoch: bool) -> float | None:
        """Length of the training in epochs or iterations; ``None`` where that takes the loader, which is not built."""
        if by_epoch == self.by_epoch or self.length is None:
            return self.length
        steps = self.steps.get('train')
        if not steps:
            return None
        return self.length * steps if self.by_epoch else self.length / steps

    @property
    def hooks(self) -> list[tuple[str, ConfigDict]]:
        """Hooks that the config gives, with their keys."""
        default = {f'default_hooks.{name}': node for name, node in (self.cfg.get('default_hooks') or {}).items()}
        custom = {f'custom_hooks.{i}': node for i, node in enumerate(self.cfg.get('custom_hooks') or [])}
        return [(key, node) for key, node in {**default, **custom}.items() if isinstance(node, dict)]

    @property
    def schedulers(self) -> list[tuple[str, ConfigDict]]:
        """Schedules of learning rate and momentum, with their keys."""
        given = self.cfg.get('param_scheduler') or []
        if isinstance(given, dict):
            return [('param_scheduler', given)]
        return [(f'param_scheduler.{i}', node) for i, node in enumerate(given) if isinstance(node, dict)]
