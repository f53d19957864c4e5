"""Triton kernels of multi-scale deformable attention; :mod:`.triton` launches them.

A program handles BLOCK_Q queries of one head of one image, as tiles (BLOCK_Q, BLOCK_D) with WIDTH columns in use.
The loops over levels and points stay loops: unrolled they take so many registers that few programs run side by side.

Nothing is compiled for a number that a model or its input may change. ``RUNTIME`` arguments are exempt from Triton's
specialisation for 1 and for multiples of 16. Integers in a tuple cannot be, but floats are: so ``sizes``, the heights
and widths (H0, W0, H1, W1, ...), are floats.
"""

import triton
import triton.language as tl

RUNTIME = ('queries', 'pixels', 'heads', 'points')


@triton.jit
def split_program(queries, pixels, heads, BLOCK_Q: tl.constexpr):
    """Where this program finds its values and its first row, counted in heads; its further rows, and which exist."""
    blocks = tl.cdiv(queries, BLOCK_Q)
    program = tl.program_id(0)
    image, head, query = program // blocks // heads, program // blocks % heads, program % blocks * BLOCK_Q
    image = image.to(tl.int64)
    block = tl.arange(0, BLOCK_Q)
    return (
        image * pixels * heads + head,
        (image * queries + query) * heads + head,
        block * heads,
        query + block < queries,
    )


@triton.jit
def pick_size(sizes, level):
    """Height and width of a level that is known at run time only."""
    height, width = 0.0, 0.0
    for i in tl.static_range(len(sizes) // 2):
        height, width = tl.where(level == i, sizes[2 * i], height), tl.where(level == i, sizes[2 * i + 1], width)
    return height, width


@triton.jit
def locate(locations, weights, sample, exists, height, width):
    """The four pixels around one sample of each query, as in ``csrc/common.h``.

    Returns the index of the upper left one in the level, which columns (left, right) and rows (upper, lower) are in the
    image, their shares, and the attention weight.
    """
    x = tl.load(locations + 2 * sample, exists, other=float('nan')) * width - 0.5
    y = tl.load(locations + 2 * sample + 1, exists, other=float('nan')) * height - 0.5
    inside = (x > -1) & (y > -1) & (x < width) & (y < height)
    attention = tl.where(inside, tl.load(weights + sample, exists, other=0.0), 0.0)
    x, y = tl.where(inside, x, 0.0), tl.where(inside, y, 0.0)
    left, top = tl.floor(x), tl.floor(y)
    fx, fy = x - left, y - top
    has_x = (inside & (left >= 0), inside & (left + 1 < width))
    has_y = (top >= 0, top + 1 < height)
    pixel = top.to(tl.int32) * width.to(tl.int32) + left.to(tl.int32)
    return pixel, has_x, has_y, (1 - fx, fx), (1 - fy, fy), attention


@triton.jit(do_not_specialize=RUNTIME)
def forward(
    output, value, locations, weights, sizes, queries, pixels, heads, points,
    WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Writes ``output`` (B, Q, M * D)."""
    image, first, row, exists = split_program(queries, pixels, heads, BLOCK_Q)
    column = tl.arange(0, BLOCK_D)
    levels: tl.constexpr = len(sizes) // 2
    value += image * WIDTH
    output += first * WIDTH
    sample, start = (first + row) * (levels * points), 0
    total = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    for level in range(levels):
        height, width = pick_size(sizes, level)
        for _ in range(points):
            pixel, has_x, has_y, share_x, share_y, attention = locate(locations, weights, sample, exists, height, width)
            for dy in tl.static_range(2):
                for dx in tl.static_range(2):
                    there = start + pixel + dy * width.to(tl.int32) + dx
                    there = tl.where(has_x[dx] & has_y[dy], there, -1) * (heads * WIDTH)
                    mask = (there[:, None] >= 0) & (column < WIDTH)
                    tile = tl.load(value + there[:, None] + column, mask, other=0.0)
                    total += (share_x[dx] * share_y[dy] * attention)[:, None] * tile.to(tl.float32)
            sample += 1
        start += height.to(tl.int32) * width.to(tl.int32)
    tl.store(output + row[:, None] * WIDTH + column, total, exists[:, None] & (column < WIDTH))


@triton.jit(do_not_specialize=RUNTIME)
def backward(
    grad_value, grad_locations, grad_weights, grad_output,
    value, locations, weights, sizes, queries, pixels, heads, points,
    WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Adds to ``grad_value``, which is float32 and zero before, and writes the other two gradients."""
    image, first, row, exists = split_program(queries, pixels, heads, BLOCK_Q)
    column = tl.arange(0, BLOCK_D)
    levels: tl.constexpr = len(sizes) // 2
    value += image * WIDTH
    grad_value += image * WIDTH
    grad_output += first * WIDTH
    sample, start = (first + row) * (levels * points), 0
    gradient = tl.load(grad_output + row[:, None] * WIDTH + column, exists[:, None] & (column < WIDTH), other=0.0)
    gradient = gradient.to(tl.float32)
    for level in range(levels):
        height, width = pick_size(sizes, level)
        for _ in range(points):
            pixel, has_x, has_y, share_x, share_y, attention = locate(locations, weights, sample, exists, height, width)
            by_x, by_y, by_weight = tl.zeros_like(attention), tl.zeros_like(attention), tl.zeros_like(attention)
            for dy in tl.static_range(2):
                for dx in tl.static_range(2):
                    there = start + pixel + dy * width.to(tl.int32) + dx
                    there = tl.where(has_x[dx] & has_y[dy], there, -1) * (heads * WIDTH)
                    mask = (there[:, None] >= 0) & (column < WIDTH)
                    tile = tl.load(value + there[:, None] + column, mask, other=0.0)
                    dot = tl.sum(gradient * tile.to(tl.float32), 1)
                    by_x += dot * share_y[dy] * (2 * dx - 1)
                    by_y += dot * share_x[dx] * (2 * dy - 1)
                    by_weight += dot * share_x[dx] * share_y[dy]
                    added = (share_x[dx] * share_y[dy] * attention)[:, None] * gradient
                    tl.atomic_add(grad_value + there[:, None] + column, added, mask, sem='relaxed')
            tl.store(grad_locations + 2 * sample, by_x * attention * width, exists)
            tl.store(grad_locations + 2 * sample + 1, by_y * attention * height, exists)
            tl.store(grad_weights + sample, by_weight, exists)
            sample += 1
        start += height.to(tl.int32) * width.to(tl.int32)
