"""How the files of a rate study are drawn, whose times are compared."""

from types import SimpleNamespace

import torch

from distill.rate_quality import form_measurement
from distill.rate_quality.form_measurement import FormMeasurement


def test_a_teacher_s_forms_are_drawn_with_one_thread_of_torch_as_students_are(monkeypatch, three_torch_threads):
    threads = []

    def planes(*_):
        threads.append(torch.get_num_threads())
        return torch.zeros(2, 2, 5)

    monkeypatch.setattr(form_measurement, "blended_planes", planes)
    measurement = FormMeasurement.__new__(FormMeasurement)
    measurement.source, measurement.cameras = SimpleNamespace(rasterizer=lambda gaussians: None), None
    measurement.references = SimpleNamespace(background=(1.0, 1.0, 1.0))
    assert measurement._drawn(None)(0).rgb.eq(1).all() and threads == [1] and torch.get_num_threads() == 3
