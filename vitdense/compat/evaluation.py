"""Repairs of mmdet's evaluation of Pascal VOC and Open Images."""

from collections.abc import Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any

from vitdense.compat.after_import import after_import

CLASSES: ContextVar[Sequence[str]] = ContextVar('CLASSES', default=())
"""Class names of the data set that is evaluated."""


def install() -> None:
    """Have the repairs made when mmdet's modules are imported; safe to call again."""
    after_import('mmdet.evaluation.functional.mean_ap', name_classes)
    after_import('mmdet.evaluation.metrics.voc_metric', tell_classes_of_voc)
    after_import('mmdet.evaluation.metrics.openimages_metric', tell_classes_of_open_images)
    after_import('mmdet.datasets.openimages', name_groups)


def name_classes(mean_ap: Any) -> None:
    """The table of APs names the classes of the release; where a data set has its own, each row has a wrong name."""
    known = mean_ap.print_map_summary

    @wraps(known)
    def print_map_summary(value: float, results: list, dataset: Any = None, *args: Any, **kwargs: Any) -> None:
        classes = CLASSES.get()
        known(value, results, list(classes) if len(classes) == len(results) else dataset, *args, **kwargs)

    mean_ap.print_map_summary = print_map_summary


def tell_classes_of_voc(module: Any) -> None:
    """Remember the classes for the table of APs."""
    _tell_classes(module.VOCMetric)


def tell_classes_of_open_images(module: Any) -> None:
    """Remember the classes for the table of APs."""
    _tell_classes(module.OpenImagesMetric)


def _tell_classes(metric: Any) -> None:
    known = metric.compute_metrics

    @wraps(known)
    def compute_metrics(self: Any, results: list) -> dict:
        token = CLASSES.set(self.dataset_meta.get('classes') or ())
        try:
            return known(self, results)
        finally:
            CLASSES.reset(token)

    metric.compute_metrics = compute_metrics


def name_groups(openimages: Any) -> None:
    """The data set of the challenge writes ``is_group_ofs``, and the metric reads ``is_group_of``."""
    known = openimages.OpenImagesChallengeDataset.load_data_list

    @wraps(known)
    def load_data_list(self: Any) -> list[dict]:
        entries = known(self)
        for one in (one for entry in entries for one in entry['instances']):
            one.setdefault('is_group_of', one.get('is_group_ofs', False))
        return entries

    openimages.OpenImagesChallengeDataset.load_data_list = load_data_list
