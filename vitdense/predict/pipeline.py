"""Which pipeline prepares pictures, and whether a model of it can do with pictures alone."""

from mmengine.config import Config, ConfigDict

from vitdense.config.datasets import leaf_datasets
from vitdense.registry import bare_type

LOADERS = ('LoadImageFromFile', 'LoadImageFromNDArray', 'LoadImageFromWebcam', 'InferencerLoader')
"""What a picture from any source can stand for."""

OTHERS = {
    'PackTrackInputs': 'follows objects through videos',
    'PackReIDInputs': 'tells whether objects are the same',
    'LoadDepthAnnotation': 'estimates depths',
}
"""Steps of models that find neither objects nor classes in single pictures."""

TEXTS = {'text', 'texts', 'caption', 'custom_entities'}
"""Keys by which a pipeline hands texts on."""


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
            _check_needs(f'{key}.pipeline', steps)
            loader = next((step for step in steps if bare_type(step) in LOADERS), ConfigDict())
            return [step for step in steps if not bare_type(step).startswith('Load')], loader
    raise ValueError(
        'the config has no pipeline for a test or a validation: test_dataloader and val_dataloader lack it'
    )


def _check_needs(key: str, steps: list[ConfigDict]) -> None:
    for step in steps:
        kind = bare_type(step)
        if kind in OTHERS:
            raise ValueError(f'{key} has {kind}: the model {OTHERS[kind]}, predict finds what is in single pictures')
        if kind.startswith('Load') and kind not in LOADERS and 'Annotation' not in kind:
            raise ValueError(f'{key} has {kind}, predict has pictures only: it can stand for {LOADERS[0]}')
    texts = TEXTS.intersection(steps[-1].get('meta_keys') or ())
    if texts:
        raise ValueError(
            f'{key} hands on {min(texts)!r}: the model wants a text with each picture, and predict has none; '
            'DetInferencer of mmdet takes texts'
        )
