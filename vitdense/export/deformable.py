"""Deformable attention in ONNX, as one translation of the operator."""

from typing import Any


def translated(value: Any, spatial_shapes: Any, sampling_locations: Any, attention_weights: Any) -> Any:
    """:func:`vitdense.ops.ms_deform_attn.ms_deform_attn`, for ``torch.onnx.export(custom_translation_table=...)``."""
    from onnxscript import opset18

    op: Any = opset18
    levels, points = int(sampling_locations.shape[3]), int(sampling_locations.shape[4])
    channels = int(value.shape[3])

    def ints(*values: Any) -> Any:
        """A shape, of numbers and of sizes that the picture decides."""
        if all(isinstance(one, int) for one in values):
            return op.Constant(value_ints=list(values))
        one = op.Constant(value_ints=[1])
        parts = [op.Constant(value_ints=[x]) if isinstance(x, int) else op.Reshape(x, one) for x in values]
        return op.Concat(*parts, axis=0)

    queries = op.Shape(sampling_locations, start=1, end=2)
    grids = op.Sub(op.Mul(sampling_locations, op.Constant(value_float=2.0)), op.Constant(value_float=1.0))
    grids = op.Transpose(grids, perm=[3, 0, 2, 1, 4, 5])  # (L, B, M, Q, P, 2)
    grids = op.Reshape(grids, op.Concat(ints(levels, -1), queries, ints(points, 2), axis=0))
    weights = op.Transpose(attention_weights, perm=[3, 0, 2, 1, 4])  # (L, B, M, Q, P)
    weights = op.Reshape(weights, op.Concat(ints(levels, -1, 1), queries, ints(points), axis=0))
    pixels = op.Transpose(op.CastLike(value, sampling_locations), perm=[0, 2, 3, 1])  # (B, M, D, S)
    total, first = None, ints(0)
    for level in range(levels):
        hw = spatial_shapes[2 * level : 2 * level + 2]
        place, last = op.Constant(value_int=level), op.Add(first, op.Mul(ints(hw[0]), ints(hw[1])))
        samples = op.GridSample(
            op.Reshape(op.Slice(pixels, first, last, ints(3)), ints(-1, channels, *hw)),
            op.Gather(grids, place, axis=0),
            align_corners=0,
            mode='bilinear',
            padding_mode='zeros',
        )  # (B * M, D, Q, P)
        found = op.ReduceSum(op.Mul(samples, op.Gather(weights, place, axis=0)), ints(3), keepdims=0)
        total, first = found if total is None else op.Add(total, found), last
    heads = int(sampling_locations.shape[2])
    joined = op.Reshape(total, op.Concat(ints(-1, heads * channels), queries, axis=0))  # (B, M * D, Q)
    return op.CastLike(op.Transpose(joined, perm=[0, 2, 1]), value)
