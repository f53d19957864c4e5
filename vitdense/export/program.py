"""A trained model as a program of ``torch.export``, which PyTorch runs without the code of the model."""

from pathlib import Path

import torch

from vitdense.files import replacing
from vitdense.predict.model import Model

from .exported import KEY
from .record import record_model


def to_program(model: Model, path: Path, half: bool = False) -> None:
    """Write ``path``, with any number of pictures of any size.

    Raises:
        ValueError: the model or its test pipeline cannot be exported; the message says why.
    """
    _, program, facts = record_model(model, half)
    program._example_inputs = None  # a pickle, which nobody needs
    with replacing(path) as part:
        torch.export.save(program, part, extra_files={KEY: facts})
