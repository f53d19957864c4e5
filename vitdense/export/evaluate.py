"""The metric of a validation, of whatever predicts."""

import math
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from rich.progress import track

from vitdense.config.missing_files import check_files
from vitdense.console import CONSOLE, silent_imports
from vitdense.names import brief
from vitdense.predict.predictor import Predictor
from vitdense.predict.results import Result

TOLERANCE = 1e-3
"""That metrics may differ by where they are shares; a hundred times as much where they are percent."""


def evaluate(predictor: Predictor, cfg: Config) -> dict[str, float]:
    """Metrics of the validation of a config, or else of its test.

    Raises:
        ValueError: it has neither, its evaluator fails, or has nothing to measure.
        FileNotFoundError: the data are not there.
    """
    split = next(
        (name for name in ('val', 'test') if cfg.get(f'{name}_dataloader') and cfg.get(f'{name}_evaluator')), ''
    )
    if not split:
        raise ValueError('no metrics to compare: the config has no val_evaluator with a val_dataloader')
    check_files(cfg, (split,))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        with silent_imports():
            dataset: Any = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
            evaluator = Evaluator(cfg[f'{split}_evaluator'])
        evaluator.dataset_meta = dataset.metainfo
        for i in track(range(len(dataset)), 'evaluate', console=CONSOLE, disable=not CONSOLE.is_terminal):
            sample = dataset[i]['data_samples']
            [result] = predictor.predict(sample.img_path, threshold=0.0)
            evaluator.process(data_samples=[_filled(sample, result)])
        try:
            with silent_imports():
                found = evaluator.evaluate(len(dataset))
        except Exception as error:  # metrics raise what they like
            raise ValueError(f'{split}_evaluator fails: {brief(error)}') from error
    if not found:
        raise ValueError(f'{split}_evaluator has nothing to measure: nothing is found in {len(dataset)} pictures')
    return found


def _filled(sample: Any, result: Result) -> Any:
    """A data sample of the data set with what was predicted."""
    if result.labels is not None:
        parts = dict(bboxes=result.boxes, scores=result.scores, labels=result.labels, masks=result.masks)
        tensors = {key: torch.from_numpy(value) for key, value in parts.items() if value is not None}
        sample.pred_instances = InstanceData(**tensors)
    elif result.semantic_map is not None:
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(result.semantic_map.astype('int64'))[None])
    return sample


def differing(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """Metrics that differ by more than the tolerance."""
    highest = max((abs(value) for value in before.values() if math.isfinite(value)), default=0.0)
    tolerance = TOLERANCE if highest <= 1 else 100 * TOLERANCE
    return [key for key in before if not _equal(before[key], after.get(key, math.nan), tolerance)]


def _equal(one: float, other: float, tolerance: float) -> bool:
    """NaN, of a class that is nowhere, is equal to itself."""
    return abs(one - other) <= tolerance or (math.isnan(one) and math.isnan(other))
