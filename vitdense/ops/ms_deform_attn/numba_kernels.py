"""Kernels of multi-scale deformable attention that numba compiles; :mod:`.numba` runs them.

Numba adds the loops over queries. The algorithm is that of ``csrc``, whose comments say why. The width of a head is
part of the types: ``head`` is an empty array of byte strings as long as a head has channels.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .numba_vectors import (
    FLOAT,
    INT,
    all_of,
    blocks_of,
    data_of,
    data_of_all,
    in_vectors,
    interleaved,
    load,
    multiply_add,
    plus,
    put,
    row_of,
    spread,
    store,
    sum_of,
    vector_at,
)

AHEAD = 8  # queries from the reading of memory to its use


@intrinsic(prefer_literal=True)
def prefetch(typingctx: Any, array: Any, index: Any, cache: Any) -> Any:
    """Have the cache line fetched, which need not exist, to the first or second cache: 1 or 2."""
    level = cache.literal_value

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        data = data_of(context, builder, array, args[0])
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, INT, INT, INT])
        function = cgutils.get_or_insert_function(builder.module, kind, 'llvm.prefetch.p0')
        builder.call(function, [pointer, *(ir.Constant(INT, number) for number in (0, 4 - level, 1))])
        return context.get_dummy_value()

    return types.void(array, types.intp, cache), code


@intrinsic
def copy_row(typingctx: Any, head: Any, source: Any, start: Any, target: Any, to: Any) -> Any:
    """A head's numbers from ``source[start:]`` to ``target[to:]``, of another type perhaps."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        here, there = (data_of(context, builder, signature.args[i], args[i]) for i in (1, 3))
        for first, n in blocks_of(head):
            vector = load(builder, source, here, plus(builder, args[2], first), n)
            store(builder, vector, target, there, plus(builder, args[4], first))
        return context.get_dummy_value()

    return types.void(head, source, types.intp, target, types.intp), code


@intrinsic
def locate(
    typingctx: Any, locations: Any, weights: Any, sample: Any, sites: Any, count: Any, pixels: Any, shares: Any,
    cells: Any, at: Any,
) -> Any:  # fmt: skip
    """Where the ``count`` samples of an output lie, which begin at ``sample``.

    Args:
        sites: (3, count) in int32, of the level of each sample the height, the width and the first pixel.
        pixels, shares: (4, count) from ``at`` on, by corner the pixel, -1 where there is none, and its weight.
        cells: (3, count), the shares of the right and the lower pixels; the weight, 0 where no pixel is in reach.
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        locations, weights, sample, sites, count, pixels, shares, cells, at = data_of_all(
            context, builder, signature, args
        )
        b = builder

        def body(i: ir.Value, n: int) -> None:
            floats, integers = ir.VectorType(FLOAT, n), ir.VectorType(INT, n)
            row = [i, b.add(i, count), b.add(i, b.add(count, count))]
            row.append(b.add(row[2], count))
            height, width, start = (vector_at(b, sites, row[k], n) for k in range(3))
            first = b.add(sample, i)
            places = vector_at(b, locations, b.add(first, first), 2 * n)
            even, odd, _ = interleaved(n)
            none, one, zero = all_of(floats, -0.5), all_of(integers, 1), all_of(floats, 0.0)
            inside, axes = None, []
            for order, size in ((even, width), (odd, height)):
                extent = b.sitofp(size, floats)
                x = multiply_add(b, b.shuffle_vector(places, places, order), extent, none)
                reach = b.and_(b.fcmp_ordered('>', x, all_of(floats, -1.0)), b.fcmp_ordered('<', x, extent))
                inside = reach if inside is None else b.and_(inside, reach)
                axes.append((x, size))
            found = []
            for x, size in axes:
                x = b.select(inside, x, zero)
                whole = b.fptosi(x, integers)
                whole = b.sub(whole, b.zext(b.fcmp_ordered('>', b.sitofp(whole, floats), x), integers))
                after = b.icmp_signed('<', b.add(whole, one), size)
                before = b.icmp_signed('>=', whole, all_of(integers, 0))
                found.append((whole, b.fsub(x, b.sitofp(whole, floats)), before, after))
            (left, fx, has_left, has_right), (top, fy, has_top, has_bottom) = found
            has_top, has_bottom = b.and_(inside, has_top), b.and_(inside, has_bottom)
            weight = vector_at(b, weights, first, n)
            bottom_right = b.fmul(b.fmul(fy, fx), weight)
            bottom_left = b.fsub(b.fmul(fy, weight), bottom_right)
            top_right = b.fsub(b.fmul(fx, weight), bottom_right)
            top_left = b.fsub(b.fsub(b.fsub(weight, top_right), bottom_left), bottom_right)
            pixel = b.add(b.add(start, b.mul(top, width)), left)
            below = b.add(pixel, width)
            for k, (exists, number, share) in enumerate(
                (
                    (b.and_(has_top, has_left), pixel, top_left),
                    (b.and_(has_top, has_right), b.add(pixel, one), top_right),
                    (b.and_(has_bottom, has_left), below, bottom_left),
                    (b.and_(has_bottom, has_right), b.add(below, one), bottom_right),
                )
            ):
                place = b.add(at, row[k])
                put(b, b.select(exists, number, all_of(integers, -1)), pixels, place)
                put(b, b.select(exists, share, zero), shares, place)
            for k, number in enumerate(
                (fx, fy, b.select(inside, weight, zero), b.select(inside, all_of(floats, 1.0), zero))
            ):
                put(b, number, cells, row[k])

        in_vectors(builder, count, body)
        return context.get_dummy_value()

    index = types.intp
    return types.void(locations, weights, index, sites, index, pixels, shares, cells, index), code


@intrinsic
def gather(
    typingctx: Any, head: Any, value: Any, base: Any, stride: Any, zeros: Any, pixels: Any, shares: Any, at: Any,
    count: Any, out: Any, to: Any,
) -> Any:  # fmt: skip
    """To ``out[to:]`` the sum of the rows of all pixels of ``count`` samples, as :func:`locate` lists them."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _, data, base, stride, none, pixels, shares, at, count, target, to = data_of_all(
            context, builder, signature, args
        )
        corners = [at]
        for _ in range(3):
            corners.append(builder.add(corners[-1], count))
        for first, n in blocks_of(head):
            vector = ir.VectorType(FLOAT, n)
            # a sum for each corner, as an addition takes as long as four can begin in
            sums = [cgutils.alloca_once(builder, vector) for _ in corners]
            for total in sums:
                builder.store(all_of(vector, 0.0), total)
            with cgutils.for_range(builder, count) as loop:
                for corner, total in zip(corners, sums, strict=True):
                    place = builder.add(corner, loop.index)
                    row = row_of(builder, builder.load(builder.gep(pixels, [place])), data, base, stride, none)
                    weight = spread(builder, builder.load(builder.gep(shares, [place])), n)
                    numbers = load(builder, value, row, ir.Constant(count.type, first), n)
                    builder.store(multiply_add(builder, weight, numbers, builder.load(total)), total)
            a, b, c, d = map(builder.load, sums)
            store(builder, builder.fadd(builder.fadd(a, b), builder.fadd(c, d)), out, target, plus(builder, to, first))
        return context.get_dummy_value()

    index = types.intp
    return types.void(head, value, index, index, zeros, pixels, shares, index, index, out, index), code


@intrinsic
def scatter(
    typingctx: Any, head: Any, value: Any, base: Any, stride: Any, zeros: Any, pixels: Any, shares: Any, count: Any,
    grad_output: Any, at: Any, grads: Any, waste: Any, dots: Any,
) -> Any:  # fmt: skip
    """Adds the gradient of an output, ``grad_output[at:]``, times their weights to ``grads`` of all its pixels.

    ``dots`` (4, count) gets its products with their rows; ``waste`` (4, D) what is meant for pixels that do not exist.
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _, data, base, stride, none, pixels, shares, count, here, at, target, unused, dots = data_of_all(
            context, builder, signature, args
        )
        width, zero = ir.Constant(count.type, head.dtype.count), ir.Constant(count.type, 0)
        with cgutils.for_range(builder, count) as loop:
            place = loop.index
            for k in range(4):
                pixel, share = (builder.load(builder.gep(x, [place])) for x in (pixels, shares))
                row = row_of(builder, pixel, data, base, stride, none)
                waste_row = builder.gep(unused, [ir.Constant(count.type, k * head.dtype.count)])
                to = row_of(builder, pixel, target, zero, width, waste_row)
                dot: ir.Value = ir.Constant(FLOAT, 0.0)
                for first, n in blocks_of(head):
                    grad = load(builder, grad_output, here, plus(builder, at, first), n)
                    channel = ir.Constant(count.type, first)
                    product = builder.fmul(grad, load(builder, value, row, channel, n))
                    sums = multiply_add(builder, spread(builder, share, n), grad, load(builder, grads, to, channel, n))
                    store(builder, sums, grads, to, channel)
                    dot = sum_of(builder, dot, product)
                builder.store(dot, builder.gep(dots, [place]))
                place = builder.add(place, count)
        return context.get_dummy_value()

    index = types.intp
    arguments = head, value, index, index, zeros, pixels, shares, index, grad_output, index, grads, waste, dots
    return types.void(*arguments), code


@intrinsic
def differentiate(
    typingctx: Any, dots: Any, cells: Any, sites: Any, count: Any, grad_locations: Any, grad_weights: Any, sample: Any
) -> Any:
    """Gradients of the ``count`` samples from ``sample`` on, of the products that :func:`scatter` has found."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        dots, cells, sites, count, by_locations, by_weights, sample = data_of_all(context, builder, signature, args)
        b = builder

        def mix(first: ir.Value, second: ir.Value, share: ir.Value) -> ir.Value:
            rest = b.fsub(all_of(share.type, 1.0), share)
            return multiply_add(b, rest, first, b.fmul(share, second))

        def body(i: ir.Value, n: int) -> None:
            rows = [i]
            for _ in range(3):
                rows.append(b.add(rows[-1], count))
            top_left, top_right, bottom_left, bottom_right = (vector_at(b, dots, row, n) for row in rows)
            fx, fy, weight, inside = (vector_at(b, cells, row, n) for row in rows)
            height, width = (b.sitofp(vector_at(b, sites, row, n), fx.type) for row in rows[:2])
            by_x = mix(b.fsub(top_right, top_left), b.fsub(bottom_right, bottom_left), fy)
            by_y = mix(b.fsub(bottom_left, top_left), b.fsub(bottom_right, top_right), fx)
            by_weight = mix(mix(top_left, top_right, fx), mix(bottom_left, bottom_right, fx), fy)
            reached = b.fcmp_ordered('>', inside, all_of(fx.type, 0.0))
            zero = all_of(fx.type, 0.0)
            x = b.select(reached, b.fmul(b.fmul(weight, width), by_x), zero)
            y = b.select(reached, b.fmul(b.fmul(weight, height), by_y), zero)
            first = b.add(sample, i)
            put(b, b.shuffle_vector(x, y, interleaved(n)[2]), by_locations, b.add(first, first))
            put(b, b.select(reached, by_weight, zero), by_weights, first)

        in_vectors(builder, count, body)
        return context.get_dummy_value()

    index = types.intp
    return types.void(dots, cells, sites, index, grad_locations, grad_weights, index), code


# --- what numba compiles ---


def copy_rows(head, source, start, stride, target, to, target_stride, rows):
    """``rows`` rows of a head's numbers, ``stride`` and ``target_stride`` numbers apart."""
    for i in range(rows):
        prefetch(source, start + (i + 16) * stride, 1)
        copy_row(head, source, start + i * stride, target, to + i * target_stride)


def forward(head, value, base, stride, locations, weights, sites, begin, end, step, near, out):
    """Outputs number ``begin``, ``begin`` + ``step``, ... below ``end`` of the B * Q * M.

    Args:
        base, stride: of the map of the image and head in ``value``: its first number, and numbers between pixels.
        near: the map is in the cache; else its pixels are fetched while the output before is summed.
    """
    samples, width = sites.shape[1], head.itemsize
    pixels, shares = np.empty(8 * samples, np.int32), np.empty(8 * samples, np.float32)
    cells, zeros = np.empty(4 * samples, np.float32), np.zeros(width, value.dtype)
    listed = 0
    for i in range(begin, end + step, step):
        at = 4 * samples - listed
        if i < end:
            ahead = (i + AHEAD * step) * samples
            prefetch(locations, 2 * ahead, 1)
            prefetch(locations, 2 * ahead + 16, 1)
            prefetch(weights, ahead, 1)
            prefetch(out, (i + AHEAD * step) * width, 1)
            prefetch(out, (i + AHEAD * step) * width + 16, 1)
            locate(locations, weights, i * samples, sites, samples, pixels, shares, cells, at)
            if not near:
                for k in range(at, at + 4 * samples):
                    prefetch(value, base + pixels[k] * stride, 2)
                    prefetch(value, base + pixels[k] * stride + 16, 2)
        if i > begin:
            to = (i - step) * width
            gather(head, value, base, stride, zeros, pixels, shares, listed, samples, out, to)
        listed = at


def backward(
    head, value, base, stride, locations, weights, sites, samples, first, begin, end, step,
    grad_output, grads, grad_locations, grad_weights,
):  # fmt: skip
    """Gradients of the samples number ``first`` and following of the ``samples`` of an output, those of ``sites``.

    Args:
        base, stride: of the first pixel of these levels in ``value``, and numbers between pixels.
        begin, end, step: outputs, as in :func:`forward`.
        grads: (pixels, D) in float32, what is added up for each pixel of these levels.
    """
    n, width = sites.shape[1], head.itemsize
    pixels, shares, dots = np.empty(4 * n, np.int32), np.empty(4 * n, np.float32), np.empty(4 * n, np.float32)
    cells, zeros, waste = np.empty(4 * n, np.float32), np.zeros(width, value.dtype), np.zeros(4 * width, np.float32)
    for i in range(begin, end, step):
        sample = i * samples + first
        ahead = sample + AHEAD * step * samples
        for half in range(0, 32, 16):
            prefetch(grad_output, (i + AHEAD * step) * width + half, 1)
            prefetch(locations, 2 * ahead + half, 1)
            prefetch(grad_locations, 2 * ahead + half, 1)
        prefetch(weights, ahead, 1)
        prefetch(grad_weights, ahead, 1)
        locate(locations, weights, sample, sites, n, pixels, shares, cells, 0)
        scatter(head, value, base, stride, zeros, pixels, shares, n, grad_output, i * width, grads, waste, dots)
        differentiate(dots, cells, sites, n, grad_locations, grad_weights, sample)
