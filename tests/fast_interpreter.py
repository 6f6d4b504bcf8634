"""Triton's interpreter without the work that changes no result, which is well over half of its time.

Kernels run here on blocks of a few hundred values: what takes the time is not numpy but the types and shapes that the
interpreter makes anew for every value, and compares as objects of its language.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import copysign

_OPERANDS = "binary_op_type_checking_impl"


def spare_the_interpreter() -> None:
    """Puts swifter parts in the place of the interpreter's own.

    Raises:
        ImportError, AttributeError: this Triton's interpreter has other parts; nothing is changed.
    """
    from triton.language import core
    from triton.runtime import interpreter

    builder, semantic = interpreter.interpreter_builder, interpreter.interpreter_semantic
    # Whether a sum or product of integers overflows is computed for each, and looked at only in debug mode.
    options = builder.options if builder.options.debug else replace(builder.options, sanitize_overflow=False)
    changes = (
        (builder, "options", options),
        (interpreter, "_patch_lang", _patch_once(interpreter, interpreter._patch_lang)),
        (interpreter, "_patch_attr", _patch_attribute(semantic)),
        (interpreter, "_get_np_dtype", _numpy_type(interpreter._get_np_dtype)),
        (core.block_type, "__init__", _block_type(core.block_type.__init__)),
        (core.block_type, "to_ir", _itself),
        (core.pointer_type, "to_ir", _itself),
        (core.dtype, "__eq__", _equal(core.dtype.__eq__)),
        (core.tensor, "__init__", _tensor(core.tensor.__init__)),
        (core, "_unwrap_if_constexpr", _unwrapped(core, core._unwrap_if_constexpr)),
        (interpreter.TensorHandle, "__init__", _handle(interpreter.TensorHandle, core.pointer_type)),
        (type(semantic), "broadcast_impl_value", _broadcast(core, type(semantic).broadcast_impl_value)),
        (type(semantic), _OPERANDS, _operands(core, getattr(type(semantic), _OPERANDS))),
    )
    for place, name, part in changes:
        setattr(place, name, part)


def _patch_once(interpreter, patch: Callable) -> Callable:
    """The language is made the interpreter's at the first launch, not anew at every call, and stays so."""
    from triton.language import core

    @cache
    def languages_seen_by(function):
        names = function.__globals__.values()
        return [module for module in (interpreter.tl, core) if any(value is module for value in names)]

    def patch_what_is_not_yet(function):
        if any(core.is_builtin(language.load) for language in languages_seen_by(function)):
            patch(function)
            core.tensor.__index__ = _number  # Triton 3.6's refuses a loop's bound from numpy 2.4 on
        return interpreter._LangPatchScope()  # has nothing to restore

    return patch_what_is_not_yet


def _number(self) -> int:
    return int(self.handle.data.item())


def _patch_attribute(semantic) -> Callable:
    def patch(place, name, member, builder, scope):
        function = getattr(member, "__wrapped__", member)  # the wrapper asks whether there is a semantic

        def call(*args, _semantic=None, **named):
            return function(*args, _semantic=semantic, **named)

        scope.set_attr(place, name, call)

    return patch


def _numpy_type(of_type: Callable) -> Callable:
    known = {}

    def look_up(of):
        name = of.scalar.name
        if name not in known:
            known[name] = of_type(of)
        return known[name]

    return look_up


def _block_type(initialize: Callable) -> Callable:
    known = {}

    def look_up(self, element_ty, shape):
        key = element_ty.name, *(getattr(size, "value", size) for size in shape)
        if key not in known:
            initialize(self, element_ty, shape)
            known[key] = vars(self).copy()
        vars(self).update(known[key])

    return look_up


def _itself(of, builder):
    """To the interpreter's builder a type is what it is to the language."""
    return of


def _equal(compare: Callable) -> Callable:
    return lambda self, other: self is other or compare(self, other)


def _tensor(initialize: Callable) -> Callable:
    shapes = {}

    def look_up(self, handle, type):
        sizes = tuple(type.shape) if type.is_block() else ()
        if sizes not in shapes:
            initialize(self, handle, type)
            shapes[sizes] = self.numel, self.shape
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.numel, self.shape = shapes[sizes]

    return look_up


def _unwrapped(core, original: Callable) -> Callable:
    return lambda value: value if type(value) is core.tensor else original(value)


def _handle(handle, pointer: type) -> Callable:
    """Without what a dataclass does for each; values larger than their type are still refused."""
    refuse = handle.__post_init__

    def initialize(self, data, dtype, attr=None):
        self.data, self.dtype, self.attr = data, dtype, {} if attr is None else attr
        if not isinstance(dtype, pointer) and data.itemsize > 1 and data.itemsize * 8 > dtype.primitive_bitwidth:
            refuse(self)

    return initialize


def _operands(core, original: Callable) -> Callable:
    """The operands of an operation, of one type and shape: what these are follows from types, and from a number.

    Two blocks whose types the original has left as they are once are only brought to one shape from then on; beside a
    block the same number becomes the very same constant.
    """
    kept, constants = set(), {}

    def of_blocks(self, lhs, rhs, *options, **named):
        key = lhs.dtype.name, rhs.dtype.name, options, *named.items()
        if key in kept:
            return self.broadcast_impl_value(lhs, rhs)
        found = original(self, lhs, rhs, *options, **named)
        if all(one.dtype.name == before for one, before in zip(found, key[:2], strict=True)):
            kept.add(key)
        return found

    def beside_number(self, lhs, rhs, *options, **named):
        numbers = type(rhs) in (int, float)
        block, number = (lhs, rhs) if numbers else (rhs, lhs)
        key = numbers, block.dtype.name, tuple(block.type.shape), type(number), number, options, *named.items()
        if key in constants:
            return (block, constants[key]) if numbers else (constants[key], block)
        found = original(self, lhs, rhs, *options, **named)
        constant = found[1 if numbers else 0]
        # Nothing equals what is no number, and -0.0 equals 0.0.
        if found[0 if numbers else 1] is block and number == number and (number or copysign(1, number) > 0):
            constants[key] = constant
        return found

    def operands(self, lhs, rhs, *options, **named):
        tensors = type(lhs) is core.tensor, type(rhs) is core.tensor
        if all(tensors):
            return of_blocks(self, lhs, rhs, *options, **named)
        number = rhs if tensors[0] else lhs
        if any(tensors) and type(number) in (int, float) and (lhs if tensors[0] else rhs).type.is_block():
            return beside_number(self, lhs, rhs, *options, **named)
        return original(self, lhs, rhs, *options, **named)

    return operands


def _broadcast(core, original: Callable) -> Callable:
    """Of two blocks with as many axes; all else, and what does not fit, is the original's."""

    def broadcast(self, lhs, rhs):
        if not (lhs.type.is_block() and rhs.type.is_block()):
            return original(self, lhs, rhs)
        shapes = [list(part.type.shape) for part in (lhs, rhs)]
        if shapes[0] == shapes[1]:
            return lhs, rhs
        common = [max(sizes) for sizes in zip(*shapes, strict=False)]
        if any(len(shape) > len(common) for shape in shapes) or any(
            size not in (1, most) for shape in shapes for size, most in zip(shape, common, strict=True)
        ):
            return original(self, lhs, rhs)
        return tuple(
            part if shape == common else widened(self, part, common)
            for part, shape in zip((lhs, rhs), shapes, strict=True)
        )

    def widened(semantic, part, shape):
        handle = semantic.builder.create_broadcast(part.handle, shape)
        return semantic.tensor(handle, core.block_type(part.type.scalar, shape))

    return broadcast
