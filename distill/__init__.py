"""The work: training, rendering, evaluation."""

import students as students  # a config can be read once the students have said what its `student` may hold
