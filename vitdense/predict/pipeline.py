"""Which pipeline prepares pictures, and whether a model of it can do with pictures alone."""

from mmengine.config import Config, ConfigDict

from vitdense.config.datasets import leaf_datasets
from vitdense.config.needs import LOADERS, more_than_pictures, wants_texts
from vitdense.registry import bare_type


def test_steps(cfg: Config) -> tuple[list[ConfigDict], ConfigDict]:
    """The pipeline of the test, or of the validation, after what loads the image, and the step that does.

    Raises:
        ValueError: there is neither, it does not end in packing what the model takes, or the model wants more than
            pictures.
    """
    for split in ('test', 'val'):
        for key, leaf in leaf_datasets(cfg, split):
            steps = list(leaf.get('pipeline') or [])
            if not steps:
                continue
            if not bare_type(steps[-1]).startswith('Pack'):
                raise ValueError(
                    f'{key}.pipeline ends in {bare_type(steps[-1])}, expected PackDetInputs or PackSegInputs'
                )
            if more := more_than_pictures(steps):
                raise ValueError(f'{key}.pipeline {more}; predict finds what is in single pictures')
            if text := wants_texts(steps):
                raise ValueError(
                    f'{key}.pipeline hands on {text!r}: the model wants a text with each picture; predict has none, '
                    'DetInferencer of mmdet does'
                )
            loader = next((step for step in steps if bare_type(step) in LOADERS), ConfigDict())
            return [step for step in steps if not bare_type(step).startswith('Load')], loader
    raise ValueError(
        'the config has no pipeline for a test or a validation: test_dataloader and val_dataloader lack it'
    )
