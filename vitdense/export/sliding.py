"""A window that slides over pictures, in ONNX: cut out, computed in one batch, and averaged where they overlap.

The parts are recorded one by one, for a record with both would confine the sizes of windows to those of its example.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .half import in_half
from .record import record
from .segmentation import SlidingSegmentation

FREE = torch.export.Dim.DYNAMIC


class Logits(nn.Module):
    """:meth:`Segmentation.logits` of a window."""

    def __init__(self, graph: SlidingSegmentation) -> None:
        super().__init__()
        self.segmentor = graph

    def forward(self, window: Tensor) -> Tensor:
        return super(SlidingSegmentation, self.segmentor).logits(window)


class Labels(nn.Module):
    """:meth:`Segmentation.labels` of the averaged logits of a padded picture."""

    def __init__(self, graph: SlidingSegmentation) -> None:
        super().__init__()
        self.segmentor = graph

    def forward(self, logits: Tensor, image: Tensor, size: Tensor) -> Tensor:
        return self.segmentor.labels(logits, image, size)


class Operators:
    """Operators of ONNX by name, whose nodes are kept in ``tape``."""

    def __init__(self) -> None:
        from onnx_ir.tape import Tape

        self.tape = Tape()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *inputs, **attributes: self.tape.op(name, inputs, attributes)


class Side(NamedTuple):
    """Values (1,) of a graph: the length of a side of a picture, of a window along it, and how many there are."""

    length: Any
    window: Any
    number: Any
    stride: int
    crop: int


def slid(graph: SlidingSegmentation, translate: Callable[..., Any], half: bool) -> Any:
    """The graph as a model of ``onnx_ir``; ``translate`` is :func:`vitdense.export.onnx.translate`."""
    import onnx_ir
    from onnx_ir import passes

    device = next(graph.parameters()).device
    image = torch.zeros(2, 3, 128, 160, device=device)
    free = {0: FREE, 2: FREE, 3: FREE}
    program = record(Logits(graph), (image,), (free,))
    network = translate(in_half(program) if half else program)
    classes = network.graph.outputs[0].shape[1]
    logits = torch.zeros(2, classes, 131, 163, device=device)
    program = record(Labels(graph), (logits, image, torch.tensor([100, 140])), (free, free, None))
    content = translate(program, ('logits', *graph.inputs), graph.outputs)
    entry, picture, _ = content.graph.inputs
    before, after = Operators(), Operators()
    windows, sides = cut(before, picture, graph)
    onnx_ir.convenience.replace_all_uses_with(network.graph.inputs[0], windows)
    averaged = join(after, network.graph.outputs[0], sides, classes)
    onnx_ir.convenience.replace_all_uses_with(entry, averaged)
    inner = list(network.graph)
    network.graph.remove(inner)
    for name, value in list(network.graph.initializers.items()):
        del network.graph.initializers[name]
        value.name = f'window.{name}'
        content.graph.register_initializer(value)
    content.graph.insert_before(content.graph[0], [*before.tape.nodes, *inner, *after.tape.nodes])
    content.graph.inputs.remove(entry)
    passes.common.NameFixPass()(content)
    return content


def cut(op: Any, image: Any, graph: SlidingSegmentation) -> tuple[Any, list[Side]]:
    """Windows (B * rows * columns, C, h, w) of pictures, and the two sides."""
    if graph.divisor > 1:
        sizes = op.Shape(image, start=2, end=4)
        by = op.Constant(value_ints=[graph.divisor])
        missing = op.Mod(op.Sub(by, op.Mod(sizes, by)), by)
        image = op.Pad(image, op.Concat(op.Constant(value_ints=[0] * 6), missing, axis=0))
    sides, places = [], []
    for axis, crop, stride in zip((2, 3), graph.crop_hw, graph.stride_hw, strict=True):
        length = op.Shape(image, start=axis, end=axis + 1)
        window = op.Min(length, op.Constant(value_ints=[crop]))
        beyond, step = op.Sub(length, window), op.Constant(value_ints=[stride])
        one = op.Constant(value_ints=[1])
        number = op.Add(op.Div(op.Add(beyond, op.Sub(step, one)), step), one)
        first = op.Min(op.Mul(numbers(op, number), step), beyond)
        places.append(op.Add(op.Unsqueeze(first, one), numbers(op, window)))
        sides.append(Side(length, window, number, stride, crop))
    found = op.Gather(op.Gather(image, places[0], axis=2), places[1], axis=4)  # (B, C, rows, h, columns, w)
    found = op.Transpose(found, perm=[0, 2, 4, 1, 3, 5])
    shape = op.Concat(op.Constant(value_ints=[-1, 3]), *(side.window for side in sides), axis=0)
    return op.Reshape(found, shape), sides


def join(op: Any, logits: Any, sides: list[Side], classes: int) -> Any:
    """Logits (B, K, H, W) averaged over those of windows (B * rows * columns, K, h, w)."""
    (rows, columns), kinds = sides, op.Constant(value_ints=[classes])
    rest = op.Constant(value_ints=[-1])
    shape = op.Concat(rest, rows.number, columns.number, kinds, rows.window, columns.window, axis=0)
    laid = op.Transpose(op.Reshape(logits, shape), perm=[0, 3, 1, 4, 2, 5])  # (B, K, rows, h, columns, w)
    shape = op.Concat(rest, kinds, *(op.Mul(side.number, side.window) for side in sides), axis=0)
    found = op.Reshape(laid, shape)
    for axis, side in zip((2, 3), sides, strict=True):
        total, count = None, None
        for place, there in covering(op, side):
            weight = op.Unsqueeze(there, op.Constant(value_ints=[1])) if axis == 2 else there
            part = op.Mul(op.Gather(found, place, axis=axis), weight)
            total = part if total is None else op.Add(total, part)
            count = weight if count is None else op.Add(count, weight)
        found = op.Div(total, count)
    return found


def covering(op: Any, side: Side) -> list[tuple[Any, Any]]:
    """For each pixel of a side the windows over it: its places among the pixels of all windows, and 1 or 0 (W,)."""
    pixel, stride = numbers(op, side.length), op.Constant(value_int=side.stride)
    one, zero = op.Constant(value_int=1), op.Constant(value_int=0)
    final = op.Sub(side.number, one)
    found = []
    for back in range(-(-side.crop // side.stride)):
        window = op.Sub(op.Div(pixel, stride), op.Constant(value_int=back))
        inside = op.Sub(pixel, op.Mul(window, stride))
        there = op.And(op.And(op.GreaterOrEqual(window, zero), op.Less(window, final)), op.Less(inside, side.window))
        found.append((window, inside, there))
    inside = op.Sub(pixel, op.Sub(side.length, side.window))  # the last one ends with the picture
    found.append((final, inside, op.GreaterOrEqual(inside, zero)))
    return [
        (op.Where(there, op.Add(op.Mul(window, side.window), inside), zero), op.Cast(there, to=1))
        for window, inside, there in found
    ]


def numbers(op: Any, count: Any) -> Any:
    """0, 1, ... (count,)."""
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    return op.Range(zero, op.Squeeze(count), one)
