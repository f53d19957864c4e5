"""A trained model as an ONNX file, which says itself how pictures get in and what comes out."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from vitdense.files import replacing
from vitdense.predict.model import Model

from . import deformable, nms, roi_align, seal, soft_nms
from .exported import KEY
from .graphs import graph_of
from .half import in_half
from .record import facts_of, record_graph
from .segmentation import SlidingSegmentation
from .sliding import slid

OPSET = 20


def sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``torch.sort`` in ONNX, which knows no other order of equals than theirs."""
    from onnxscript import opset18

    op: Any = opset18
    axis = dim % len(values.shape)
    number = op.Shape(values, start=axis, end=axis + 1)
    return op.TopK(values, number, axis=axis, largest=int(descending))


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.aten.sort.stable: sort,
    torch.ops.vitdense.nms.default: nms.translated,
    torch.ops.vitdense.soft_nms.default: soft_nms.translated,
    torch.ops.vitdense.ms_deform_attn.default: deformable.translated,
    torch.ops.vitdense.pyramid_roi_align.default: roi_align.translated,
}


def to_onnx(model: Model, path: Path, half: bool = False) -> None:
    """Write ``path``, with any number of pictures of any size.

    Raises:
        ValueError: the model or its test pipeline cannot be exported; the message says why.
        ImportError: onnxscript is not installed.
    """
    try:
        import onnx_ir
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f'an ONNX file needs {error.name}: pip install "vitdense[export]"') from None
    graph, facts = graph_of(model.network, model.task), json.dumps(facts_of(model))
    with replacing(path) as part:
        if isinstance(graph, SlidingSegmentation):
            content = slid(graph, translate, half)
        else:
            program = record_graph(graph)
            content = translate(in_half(program) if half else program, graph.inputs, graph.outputs)
        content.metadata_props.update({KEY: facts, seal.KEY: seal.OPEN})
        onnx_ir.save(content, part)
        seal.close(part)


def translate(
    program: ExportedProgram, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> Any:
    """A program as a model of ``onnx_ir``, with names of its inputs and outputs."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        found = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            custom_translation_table=TRANSLATIONS,
            optimize=False,
            verbose=False,
        )
    assert found is not None
    tidy(found.model)
    return found.model


def tidy(content: Any) -> None:
    """Take out of a graph of ``onnx_ir`` what nothing needs, and what two nodes compute alike.

    The exporter's own rewriting looks for fifty patterns around each node, which takes it most of its time; onnxruntime
    has them as well, when it loads a file.
    """
    from onnx_ir import passes
    from onnxscript.optimizer import fold_constants

    passes.common.RemoveUnusedNodesPass()(content)
    fold_constants(content)
    passes.Sequential(
        passes.common.RemoveUnusedNodesPass(),
        passes.common.RemoveUnusedFunctionsPass(),
        passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.common.DeduplicateInitializersPass(),
        passes.common.CommonSubexpressionEliminationPass(),
        passes.common.OutputFixPass(),
        passes.common.NameFixPass(),
    )(content)
