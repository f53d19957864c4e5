"""Vectors for the kernels that numba compiles: instructions of LLVM, which numba does not make of loops over arrays.

Numbers of 16 bits are integers here, as numba has no such floats on CPUs: unsigned ones are bfloat16, signed ones
float16.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

FLOAT, INT, SHORT = ir.FloatType(), ir.IntType(32), ir.IntType(16)
BLOCK = 32  # channels in registers at once
LANES = 16  # samples that are located at once
CONTRACT = ('contract',)  # a product and a sum may be one instruction


def blocks_of(head: Any) -> list[tuple[int, int]]:
    """First channel and number of channels of each block of a head."""
    width = head.dtype.count
    return [(first, min(BLOCK, width - first)) for first in range(0, width, BLOCK)]


def data_of(context: Any, builder: ir.IRBuilder, array_type: Any, value: ir.Value) -> ir.Value:
    return context.make_array(array_type)(context, builder, value).data


def all_of(vector: ir.VectorType, number: float) -> ir.Constant:
    return ir.Constant(vector, [number] * vector.count)


def load(builder: ir.IRBuilder, array: Any, data: ir.Value, index: ir.Value, n: int) -> ir.Value:
    """``n`` numbers from ``index`` on as a vector of floats."""
    kinds: dict[Any, ir.Type] = {types.float32: FLOAT, types.uint16: SHORT, types.int16: ir.HalfType()}
    element = kinds[array.dtype]
    pointer = builder.bitcast(builder.gep(data, [index]), ir.VectorType(element, n).as_pointer())
    vector = builder.load(pointer, align=array.dtype.bitwidth // 8)
    floats, integers = ir.VectorType(FLOAT, n), ir.VectorType(INT, n)
    if element is SHORT:
        return builder.bitcast(builder.shl(builder.zext(vector, integers), all_of(integers, 16)), floats)
    return vector if element is FLOAT else builder.fpext(vector, floats)


def store(builder: ir.IRBuilder, vector: ir.Value, array: Any, data: ir.Value, index: ir.Value) -> None:
    """The vector to ``index`` and following, rounded to the nearest, ties to even."""
    n = vector.type.count
    if array.dtype == types.int16:
        vector = builder.fptrunc(vector, ir.VectorType(ir.HalfType(), n))
    elif array.dtype == types.uint16:
        integers = ir.VectorType(INT, n)
        bits = builder.bitcast(vector, integers)
        odd = builder.and_(builder.lshr(bits, all_of(integers, 16)), all_of(integers, 1))
        rounded = builder.add(builder.add(bits, all_of(integers, 0x7FFF)), odd)
        is_number = builder.fcmp_ordered('ord', vector, vector)  # the sum would carry a NaN over to another number
        kept = builder.select(is_number, builder.lshr(rounded, all_of(integers, 16)), all_of(integers, 0x7FC0))
        vector = builder.trunc(kept, ir.VectorType(SHORT, n))
    pointer = builder.bitcast(builder.gep(data, [index]), vector.type.as_pointer())
    builder.store(vector, pointer, align=array.dtype.bitwidth // 8)


def spread(builder: ir.IRBuilder, number: ir.Value, n: int) -> ir.Value:
    vector = ir.VectorType(FLOAT, n)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(INT, n), [0] * n))


def multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    return builder.fadd(builder.fmul(a, b, flags=CONTRACT), c, flags=CONTRACT)


def plus(builder: ir.IRBuilder, index: ir.Value, number: int) -> ir.Value:
    return builder.add(index, ir.Constant(index.type, number))


def data_of_all(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> list[ir.Value]:
    """The arguments, of arrays the address of their first number."""
    pairs = zip(signature.args, args, strict=True)
    return [data_of(context, builder, t, x) if isinstance(t, types.Array) else x for t, x in pairs]


def vector_at(builder: ir.IRBuilder, data: ir.Value, index: ir.Value, n: int) -> ir.Value:
    """``n`` elements of a C array from ``index`` on."""
    pointer = builder.bitcast(builder.gep(data, [index]), ir.VectorType(data.type.pointee, n).as_pointer())
    return builder.load(pointer, align=4)


def put(builder: ir.IRBuilder, vector: ir.Value, data: ir.Value, index: ir.Value) -> None:
    builder.store(vector, builder.bitcast(builder.gep(data, [index]), vector.type.as_pointer()), align=4)


def interleaved(n: int) -> tuple[ir.Constant, ir.Constant, ir.Constant]:
    """Indices that take even and odd elements of ``2 * n``, and that put them together again."""
    orders = (range(0, 2 * n, 2), range(1, 2 * n, 2), [i // 2 + i % 2 * n for i in range(2 * n)])
    even, odd, both = (ir.Constant(ir.VectorType(INT, len(order)), list(order)) for order in orders)
    return even, odd, both


def in_vectors(builder: ir.IRBuilder, count: ir.Value, body: Callable[[ir.Value, int], None]) -> None:
    """``body`` for as many samples at once as a vector has lanes, and for each of the rest."""
    zero, one, lanes = (ir.Constant(count.type, number) for number in (0, 1, LANES))
    rest = builder.sub(count, builder.srem(count, lanes))
    for start, stop, step, n in ((zero, rest, lanes, LANES), (rest, count, one, 1)):
        with cgutils.for_range_slice(builder, start, stop, step) as (i, _):
            body(i, n)


def row_of(
    builder: ir.IRBuilder, pixel: ir.Value, data: ir.Value, base: ir.Value, stride: ir.Value, none: ir.Value
) -> ir.Value:
    """Address of a pixel's numbers, ``none`` for the pixel -1: no branch, and nothing is read that may be infinite."""
    index = builder.add(base, builder.mul(builder.sext(pixel, base.type), stride))
    exists = builder.icmp_signed('>=', pixel, ir.Constant(INT, 0))
    return builder.select(exists, builder.gep(data, [index]), none)


def sum_of(builder: ir.IRBuilder, start: ir.Value, vector: ir.Value) -> ir.Value:
    kind = ir.FunctionType(FLOAT, [FLOAT, vector.type])
    name = f'llvm.vector.reduce.fadd.v{vector.type.count}f32'
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [start, vector], fastmath=('reassoc',))
