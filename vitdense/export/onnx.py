"""A trained model as an ONNX file, which says itself how pictures get in and what comes out."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitdense.files import replacing
from vitdense.predict.model import Model
from vitdense.version import __version__

from . import nms, roi_align
from .graph import Graph
from .graphs import graph_of
from .preprocess import preprocess_of

OPSET = 20
TRANSLATIONS: dict[Any, Any] = {
    torch.ops.vitdense.nms.default: nms.translated,
    torch.ops.vitdense.pyramid_roi_align.default: roi_align.translated,
}
KEY = 'vitdense'
"""Of the metadata."""

TRACED = 2, (128, 160)
"""Pictures and their height and width when the model is recorded; neither is part of the record."""


def to_onnx(model: Model, path: Path) -> None:
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
    graph = graph_of(model.network, model.task).eval()
    facts = facts_of(model)
    with warnings.catch_warnings(), torch.no_grad(), replacing(path) as part:
        warnings.simplefilter('ignore')
        torch.onnx.export(
            graph,
            example_of(graph),
            str(part),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=dynamic_shapes_of(graph),
            custom_translation_table=TRANSLATIONS,
            external_data=False,
            verbose=False,
        )
        content = onnx.load(str(part))
        onnx.helper.set_model_props(content, {KEY: json.dumps(facts)})
        onnx.save(content, str(part))


def facts_of(model: Model) -> dict[str, Any]:
    """What a file says about its model: classes, preprocessing, task and version."""
    preprocess = preprocess_of(model.steps, model.network.data_preprocessor)
    threshold = (model.network.test_cfg.get('rcnn') or {}).get('mask_thr_binary', 0.5)
    return dict(
        version=__version__, task=model.task, names=model.names, palette=model.palette,
        iou_threshold=model.iou_threshold, mask_threshold=threshold, preprocess=preprocess.to_json(),
    )  # fmt: skip


def example_of(graph: Graph) -> tuple[Tensor, ...]:
    """Inputs to record a model with."""
    batch, hw = TRACED
    image = torch.zeros(batch, 3, *hw, device=next(graph.parameters()).device)
    return (image, torch.tensor([100, 140])) if 'size' in graph.inputs else (image,)


def dynamic_shapes_of(graph: Graph) -> tuple[Any, ...]:
    """Which dimensions of the inputs are free."""
    free = torch.export.Dim.DYNAMIC
    return tuple({0: free, 2: free, 3: free} if name == 'image' else None for name in graph.inputs)
