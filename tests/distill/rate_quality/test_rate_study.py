"""How the files of a rate study are drawn, whose times are compared."""

from types import SimpleNamespace

import torch

from distill.rate_quality import rate_study
from distill.rate_quality.rate_study import RateStudy


def test_a_teacher_s_forms_are_drawn_with_one_thread_of_torch_as_students_are(monkeypatch, three_torch_threads):
    threads = []

    def planes(*_):
        threads.append(torch.get_num_threads())
        return torch.zeros(2, 2, 5)

    monkeypatch.setattr(rate_study, "blended_planes", planes)
    study = RateStudy.__new__(RateStudy)
    study.source = SimpleNamespace(rasterizer=lambda gaussians: None)
    study.teacher = SimpleNamespace(views=SimpleNamespace(cameras=None))
    study.references = SimpleNamespace(background=(1.0, 1.0, 1.0))
    assert study._drawn(None)(0).rgb.eq(1).all() and threads == [1] and torch.get_num_threads() == 3
