"""Registers that machine code reads before it writes them, in the text of ``nvdisasm -c``.

Of kernels that spill the descriptors of Hopper's wgmma, ptxas 12.8 (Triton 3.6's) makes code that adds to one before
its base is there: ``UIADD3 UR25, UP1, UR25, 0x20`` with nothing above it that writes UR25. An H200 then multiplied by
what lay elsewhere in shared memory, or ended the process.
"""

from __future__ import annotations

import re

_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([\w.]+)\s*(.*?)\s*;")
_DESCRIPTORS = re.compile(r"gdesc\[UR(\d+)\]")


def unwritten(sass: str) -> list[str]:
    """Instructions that read a uniform register to which no instruction above them writes, "address name operands"."""
    written: set[int] = set()
    found = []
    for address, name, operands in _INSTRUCTION.findall(sass):
        target, read = _target(name, operands)
        registers = {int(number) for number in re.findall(r"\bUR(\d+)", read)}
        if descriptors := _DESCRIPTORS.search(operands):
            # Two registers each: the left factor's descriptor, unused where that is in registers, and the right one's.
            first = int(descriptors[1])
            left_in_registers = re.match(r"R\d+, R\d+", operands) is not None
            registers = set(range(first + 2 * left_in_registers, first + 4))
        if not registers <= written:
            found.append(f"{address} {name} {operands}")
        if target is not None:
            written |= set(range(target, target + _registers_of(name)))
    return found


def _target(name: str, operands: str) -> tuple[int | None, str]:
    """The uniform register that an instruction writes, if it does, and the operands that it reads."""
    if "SETP" not in name:
        operands = re.sub(r"^(U?P\w+, )+", "", operands)  # predicates that are written, too
    first, _, rest = operands.partition(",")
    target = re.fullmatch(r"UR(\d+)", first)
    return (int(target[1]), rest) if target else (None, operands)


def _registers_of(name: str) -> int:
    return 4 if ".128" in name else 2 if ".64" in name or ".WIDE" in name else 1
