"""The work: training, rendering, evaluation."""

import gc

from machine.interrupts import end_at_once_while_starting

end_at_once_while_starting()  # the first of what the programs import, before torch, which takes seconds

# Imports make some hundred thousand objects and no garbage: looking for it took a fifth of a program's start.
_collects = gc.isenabled()
gc.disable()
try:
    import students as students  # a config can be read once they have said what its `student` may hold
finally:
    gc.freeze()  # nor is it looked for among them later
    if _collects:
        gc.enable()
