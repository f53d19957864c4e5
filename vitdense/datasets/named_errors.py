"""Errors of transforms that name their image."""

from typing import Any

from mmengine.dataset import Compose


class TransformError(ValueError):
    """A transform failed; the message has the image, the transform and what it said."""


class NamedCompose(Compose):
    """The transforms of ``pipeline``, one after the other.

    Raises:
        TransformError: one of them failed.
    """

    def __init__(self, pipeline: Compose) -> None:
        self.transforms = pipeline.transforms

    def __call__(self, data: Any) -> Any:
        image = data.get('img_path') if isinstance(data, dict) else None
        for transform in self.transforms:
            try:
                data = transform(data)
            except Exception as error:
                if image is None or isinstance(error, TransformError):
                    raise
                name = type(transform).__name__
                raise TransformError(f'{image}: {name} failed: {type(error).__name__}: {error}') from error
            if data is None:
                return None
        return data


def name_errors(dataset: Any) -> None:
    """Let the errors of the pipelines of a data set, wrappers such as RepeatDataset opened, name the image."""
    for child in (getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())):
        if child is not None:
            name_errors(child)
    if type(getattr(dataset, 'pipeline', None)) is Compose:
        dataset.pipeline = NamedCompose(dataset.pipeline)
