"""The data sets and evaluators that a config names."""

from collections.abc import Iterator, Sequence

from mmengine.config import Config, ConfigDict


def leaf_datasets(cfg: Config, split: str) -> Iterator[tuple[str, ConfigDict]]:
    """The data sets of ``cfg.{split}_dataloader`` with their config keys, wrappers such as RepeatDataset opened."""
    key, loader = f'{split}_dataloader', cfg.get(f'{split}_dataloader')
    pending = [(f'{key}.dataset', loader.get('dataset'))] if isinstance(loader, dict) else []
    while pending:
        key, node = pending.pop(0)
        if not isinstance(node, dict):
            continue
        if 'dataset' in node:
            pending.append((f'{key}.dataset', node['dataset']))
        elif 'datasets' in node:
            pending += [(f'{key}.datasets.{i}', child) for i, child in enumerate(node['datasets'] or [])]
        else:
            yield key, node


def positions(number: int, indices: int | Sequence[int] | None) -> list[int]:
    """Which of ``number`` entries the setting ``indices`` of a data set leaves: the first, last, or listed ones."""
    everything = range(number)
    if isinstance(indices, int):
        return list(everything[:indices] if indices >= 0 else everything[indices:])
    return list(everything) if indices is None else [everything[i] for i in indices if -number <= i < number]


def metrics(cfg: Config, split: str) -> Iterator[tuple[str, ConfigDict]]:
    """The metrics of ``cfg.{split}_evaluator`` with their config keys: one, or a list, or those of an evaluator."""
    pending = [(f'{split}_evaluator', cfg.get(f'{split}_evaluator'))]
    while pending:
        key, node = pending.pop(0)
        if isinstance(node, list | tuple):
            pending += [(f'{key}.{i}', child) for i, child in enumerate(node)]
        elif isinstance(node, dict) and 'metrics' in node:
            pending.append((f'{key}.metrics', node['metrics']))
        elif isinstance(node, dict):
            yield key, node
