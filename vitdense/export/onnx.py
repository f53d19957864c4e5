"""A trained model as an ONNX file, which says itself how pictures get in and what comes out."""

import warnings
from pathlib import Path
from typing import Any

import torch

from vitdense.files import replacing
from vitdense.predict.model import Model

from . import nms, roi_align
from .exported import KEY
from .record import record_model

OPSET = 20
TRANSLATIONS: dict[Any, Any] = {
    torch.ops.vitdense.nms.default: nms.translated,
    torch.ops.vitdense.pyramid_roi_align.default: roi_align.translated,
}


def to_onnx(model: Model, path: Path, half: bool = False) -> None:
    """Write ``path``, with any number of pictures of any size.

    Raises:
        ValueError: the model or its test pipeline cannot be exported; the message says why.
        ImportError: onnxscript is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f'an ONNX file needs {error.name}: pip install "vitdense[export]"') from None
    graph, program, facts = record_model(model, half)
    with warnings.catch_warnings(), torch.no_grad(), replacing(path) as part:
        warnings.simplefilter('ignore')
        torch.onnx.export(
            program,
            f=str(part),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            custom_translation_table=TRANSLATIONS,
            external_data=False,
            verbose=False,
        )
        content = onnx.load(str(part))
        onnx.helper.set_model_props(content, {KEY: facts})
        onnx.save(content, str(part))
