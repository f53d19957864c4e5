"""A graph as PyTorch records it, for pictures of any number and size."""

import json
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental import _config as symbols

from vitdense.predict.model import Model
from vitdense.version import __version__

from .graph import Graph
from .graphs import graph_of
from .half import in_half
from .preprocess import preprocess_of
from .segmentation import SlidingSegmentation

TRACED = 2, (128, 160)
"""Pictures and their height and width when a model is recorded; neither is part of the record."""


def record_model(model: Model, half: bool = False) -> tuple[Graph, ExportedProgram, str]:
    """A model as a graph, what PyTorch recorded of it, and what a file says about it, a JSON text.

    Args:
        model: in PyTorch.
        half: whether its products are of half precision, see :mod:`.half`.

    Raises:
        ValueError: the model or its test pipeline cannot be exported; the message says why.
    """
    graph = graph_of(model.network, model.task)
    if isinstance(graph, SlidingSegmentation):
        raise ValueError(
            f'{type(model.network).__name__} in the mode slide is exported as onnx alone: '
            '--to onnx, or --cfg-options model.test_cfg.mode=whole'
        )
    facts = json.dumps(facts_of(model))
    program = record_graph(graph)
    return graph, in_half(program) if half else program, facts


def facts_of(model: Model) -> dict[str, Any]:
    """What a file says about its model: classes, preprocessing, task and version."""
    preprocess = preprocess_of(model.steps, model.network.data_preprocessor)
    threshold = ((model.network.test_cfg or {}).get('rcnn') or {}).get('mask_thr_binary', 0.5)
    return dict(
        version=__version__, task=model.task, names=model.names, palette=model.palette,
        iou_threshold=model.iou_threshold, mask_threshold=threshold, preprocess=preprocess.to_json(),
    )  # fmt: skip


def record_graph(graph: Graph) -> ExportedProgram:
    """Record a graph, for pictures of any number and size."""
    return record(graph, example_of(graph), dynamic_shapes_of(graph))


def record(module: nn.Module, example: tuple[Tensor, ...], dynamic_shapes: tuple[Any, ...]) -> ExportedProgram:
    """Record a module; the places of its code, with the paths of this machine, are left out."""
    with warnings.catch_warnings(), torch.no_grad(), symbols.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        warnings.simplefilter('ignore')
        program = torch.export.export(module.eval(), example, dynamic_shapes=dynamic_shapes, strict=False)
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)
    return program


def example_of(graph: Graph) -> tuple[Tensor, ...]:
    """Inputs to record a model with."""
    batch, hw = TRACED
    image = torch.zeros(batch, 3, *hw, device=next(graph.parameters()).device)
    return (image, torch.tensor([100, 140])) if 'size' in graph.inputs else (image,)


def dynamic_shapes_of(graph: Graph) -> tuple[Any, ...]:
    """Which dimensions of the inputs are free."""
    free = torch.export.Dim.DYNAMIC
    return tuple({0: free, 2: free, 3: free} if name == 'image' else None for name in graph.inputs)
