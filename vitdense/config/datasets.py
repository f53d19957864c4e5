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


def evaluators(cfg: Config, split: str) -> list[ConfigDict]:
    """The evaluators of a split, of which a config has none, one, or a list."""
    found = cfg.get(f'{split}_evaluator') or []
    nodes = found if isinstance(found, list | tuple) else [found]
    return [node for node in nodes if isinstance(node, dict)]
