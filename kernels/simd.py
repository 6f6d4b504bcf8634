"""Vectors of a few lanes inside numba kernels: values of SIMD registers, which numba itself does not know.

LLVM's own vectoriser turns a loop over samples into gathers, element by element; a table entry's features, or a layer's
outputs, are neighbours in memory, and one load takes them all. Arithmetic on vectors is written with operators.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit
from numba.core import cgutils, config, types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from kernels.threads import FAST, INNER


def widest(features: str) -> int:
    """float32 in a register of a processor of these features: with AVX-512 twice as many as with AVX2."""
    return 16 if "+avx512f" in features.split(",") else 8


LANES = widest(get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES)
_LLVM = {types.float32: ir.FloatType(), types.int32: ir.IntType(32)}
_FLAGS = ("contract", "nsz")


class Vector(types.Type):
    """Numba's type of a vector: ``lanes`` values of float32 or int32."""

    def __init__(self, element: types.Type, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(f"{element}x{lanes}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(_LLVM[vector.element], vector.lanes))


def _pointer(context, builder, array_type, array, index, element):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), element.as_pointer())


def _lanes(count):
    """Of a literal, or of a tuple that has as many members: what a kernel is compiled for by its arguments."""
    return count.count if isinstance(count, types.UniTuple) else count.literal_value


@intrinsic(prefer_literal=True)
def load(typing, array, index, lanes):
    """``lanes`` neighbours of a flat array from ``index`` on; int16 is taken for the bits of a float16."""
    half = array.dtype == types.int16
    vector = Vector(types.float32 if half else array.dtype, _lanes(lanes))

    def generate(context, builder, signature, args):
        place = ir.VectorType(ir.HalfType() if half else _LLVM[vector.element], vector.lanes)
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], place)
        value = builder.load(pointer, align=array.dtype.bitwidth // 8)
        return builder.fpext(value, ir.VectorType(ir.FloatType(), vector.lanes)) if half else value

    return vector(array, types.intp, lanes), generate


@intrinsic
def store(typing, array, index, value):
    """Writes a vector to a flat array from ``index`` on."""

    def generate(context, builder, signature, args):
        place = ir.VectorType(_LLVM[value.element], value.lanes)
        builder.store(args[2], _pointer(context, builder, signature.args[0], args[0], args[1], place), align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, value), generate


def _first_lanes(builder, count):
    """Mask of the lanes below ``count``, an integer of a pointer's width that is not negative."""
    whole = ir.VectorType(count.type, LANES)
    first = builder.insert_element(ir.Constant(whole, ir.Undefined), count, ir.Constant(ir.IntType(32), 0))
    counts = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))
    return builder.icmp_unsigned("<", ir.Constant(whole, list(range(LANES))), counts)


def _masked(builder, name, result, arguments):
    """Calls LLVM's masked load or store of ``LANES`` float32."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.{name}.v{LANES}f32.p0")
    return builder.call(function, arguments)


@intrinsic
def load_part(typing, array, index, count):
    """The ``count`` neighbours of a flat array of float32 from ``index`` on, at most ``LANES``; zeros behind them."""
    vector = Vector(types.float32, LANES)

    def generate(context, builder, signature, args):
        place = ir.VectorType(ir.FloatType(), LANES)
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], place)
        zeros = ir.Constant(place, [0.0] * LANES)
        return _masked(builder, "load", place, [pointer, ir.IntType(32)(4), _first_lanes(builder, args[2]), zeros])

    return vector(array, types.intp, types.intp), generate


@intrinsic
def store_part(typing, array, index, value, count):
    """Writes a vector's first ``count`` lanes to a flat array of float32 from ``index`` on."""

    def generate(context, builder, signature, args):
        place = ir.VectorType(ir.FloatType(), LANES)
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], place)
        _masked(builder, "store", ir.VoidType(), [args[2], pointer, ir.IntType(32)(4), _first_lanes(builder, args[3])])
        return context.get_dummy_value()

    return types.none(array, types.intp, Vector(types.float32, LANES), types.intp), generate


@intrinsic
def prefetch(typing, array, index):
    """Asks for an element of a flat array that will be read soon: many are waited for at once, few loads are."""

    def generate(context, builder, signature, args):
        number = ir.IntType(32)
        place = _pointer(context, builder, signature.args[0], args[0], args[1], ir.IntType(8))
        hint = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], hint)
        builder.call(function, [place, number(0), number(3), number(1)])  # for reading, into all caches, data
        return context.get_dummy_value()

    return types.none(array, types.intp), generate


@intrinsic
def trailing_zeros(typing, bits):
    """How many zeros are below the lowest bit that is set of a uint64, which is not 0; int64."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic(prefer_literal=True)
def splat(typing, value, lanes):
    """A float32 or int32 in every one of ``lanes``."""
    element = types.float32 if isinstance(value, types.Float) else types.int32
    vector = Vector(element, _lanes(lanes))

    def generate(context, builder, signature, args):
        empty = ir.Constant(ir.VectorType(_LLVM[element], vector.lanes), ir.Undefined)
        first = builder.insert_element(empty, args[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
        return builder.shuffle_vector(first, empty, zeros)

    return vector(element, lanes), generate


@intrinsic
def joined(typing, first, second):
    """The lanes of a vector and behind them those of another of the same type."""

    def generate(context, builder, signature, args):
        mask = ir.VectorType(ir.IntType(32), 2 * first.lanes)
        return builder.shuffle_vector(*args, ir.Constant(mask, [*range(2 * first.lanes)]))

    return Vector(first.element, 2 * first.lanes)(first, second), generate


def _emitter(vector, floats, integers):
    return floats if vector.element == types.float32 else integers


def _operation(floats, integers, *, arguments=2):
    """An intrinsic of one or two vectors of the same type from what emits it for either element; None: for none."""

    def typed(*vectors):
        first = vectors[0]
        emit = _emitter(first, floats, integers) if isinstance(first, Vector) else None
        if emit is None or any(vector != first for vector in vectors):
            return None
        result, emit_lanes = emit

        def generate(context, builder, signature, args):
            return emit_lanes(builder, *args)

        return (Vector(result, first.lanes) if result else first)(*vectors), generate

    if arguments == 1:
        return intrinsic(lambda typing, a: typed(a))
    return intrinsic(lambda typing, a, b: typed(a, b))


def _float(name):
    return None, lambda builder, a, b: getattr(builder, name)(a, b, flags=_FLAGS)


def _integer(name):
    return None, lambda builder, a, b: getattr(builder, name)(a, b)


def _lesser(builder, a, b):
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _greater(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _lesser_unsigned(builder, a, b):
    return builder.select(builder.icmp_unsigned("<", a, b), a, b)


def _converted(name, element):
    return element, lambda builder, a: getattr(builder, name)(a, ir.VectorType(_LLVM[element], a.type.count))


minimum = _operation((None, _lesser), (None, _lesser_unsigned))  # of integers the unsigned one
maximum = _operation((None, _greater), None)
to_integer = _operation(_converted("fptosi", types.int32), None, arguments=1)  # towards zero
to_float = _operation(None, _converted("sitofp", types.float32), arguments=1)
from_bits = _operation(None, _converted("bitcast", types.float32), arguments=1)
_OPERATORS = {
    operator.add: (_float("fadd"), _integer("add")),
    operator.sub: (_float("fsub"), _integer("sub")),
    operator.mul: (_float("fmul"), _integer("mul")),
    operator.truediv: (_float("fdiv"), None),
    operator.xor: (None, _integer("xor")),
    operator.and_: (None, _integer("and_")),
}


def _operator(symbol, floats, integers):
    """Gives vectors an operator as numba gives numbers theirs.

    An ``overload`` of many uses takes a kernel a third longer to compile: each use is a function to look through.
    """

    @type_callable(symbol)
    def type_of_vectors(context):
        def typed(a, b):
            return a if isinstance(a, Vector) and a == b and _emitter(a, floats, integers) else None

        return typed

    @lower_builtin(symbol, Vector, Vector)
    def of_vectors(context, builder, signature, args):
        _, emit_lanes = _emitter(signature.return_type, floats, integers)
        return emit_lanes(builder, *args)


for _symbol, _its in _OPERATORS.items():
    _operator(_symbol, *_its)

# 2 ** x from -0.5 to 0.5: its Taylor series, whose next term is 1.3e-7 of the sum at most.
_SERIES = tuple(np.float32(np.log(2) ** k / np.prod(range(1, k + 1))) for k in range(7))
_LOG2_E, _BIAS, _HALF = np.float32(1 / np.log(2)), np.float32(127), np.float32(0.5)
_LEAST, _MOST, _EXPONENT = np.float32(-87), np.float32(88), np.int32(1 << 23)


@njit(**FAST, **INNER)
def exponential(x):
    """e ** x of a vector of float32; x is taken for -87 below that, for 88 above.

    Off by 1e-6 of the value near 0, by 1e-5 at the ends.
    """
    bias, half = splat(_BIAS, LANES), splat(_HALF, LANES)
    # What is no number passes where it is the second of two that are compared.
    x = minimum(splat(_MOST, LANES), maximum(splat(_LEAST, LANES), x)) * splat(_LOG2_E, LANES)
    power = to_integer(x + bias + half)  # of a positive number: rounded down
    rest = x - (to_float(power) - bias)
    result = splat(_SERIES[6], LANES)
    result = result * rest + splat(_SERIES[5], LANES)
    result = result * rest + splat(_SERIES[4], LANES)
    result = result * rest + splat(_SERIES[3], LANES)
    result = result * rest + splat(_SERIES[2], LANES)
    result = result * rest + splat(_SERIES[1], LANES)
    result = result * rest + splat(_SERIES[0], LANES)
    return result * from_bits(power * splat(_EXPONENT, LANES))
