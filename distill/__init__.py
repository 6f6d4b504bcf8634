"""The work: training, rendering, evaluation."""

from machine.interrupts import end_at_once_while_starting

end_at_once_while_starting()  # the first of what the programs import, before torch, which takes seconds

import students as students  # noqa: E402 # a config can be read once they have said what its `student` may hold
