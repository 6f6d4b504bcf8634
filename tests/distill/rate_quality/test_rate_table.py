"""The front of rate and quality, and what is said of it."""

import pytest
from matplotlib.figure import Figure

from distill.rate_quality.rate_table import RatePoint, draw, markdown, pareto, rows_of, which_form

MIB = 2**20


def point(form, size, psnr, truth=None):
    figures = {"teacher": {"psnr": psnr, "ssim": 0.9, "lpips_vgg": None}}
    if truth is not None:
        figures["ground_truth"] = {"psnr": truth, "ssim": 0.8, "lpips_vgg": 0.1}
    return RatePoint(form, "whole | raw", int(size * MIB), figures, 12.0)


POINTS = [
    point("student", 0.1, 30.0),
    point(".spz", 0.2, 29.0),
    point("student", 0.5, 33.0),
    point(".spz", 2.0, 35.0),
    point(".ply", 2.0, 34.0),
    point(".ply", 9.0, 35.0),
]


def test_no_point_of_the_front_has_a_smaller_or_equal_one_as_good():
    assert [(each.form, each.psnr("teacher")) for each in pareto(POINTS, "teacher")] == [
        ("student", 30.0),
        ("student", 33.0),
        (".spz", 35.0),
    ]


def test_the_sentence_names_a_form_from_the_size_where_it_takes_over():
    assert which_form(POINTS, "teacher") == (
        "Best PSNR against the teacher for its size: student from 0.1 MiB (30.00 dB there), "
        ".spz from 2 MiB (35.00 dB there)."
    )


def test_rows_are_from_small_to_large_and_a_reference_that_some_lack_stays_out():
    rows = rows_of([*POINTS, point("x", 0.01, 10.0, truth=11.0)])
    assert [row["bytes"] for row in rows] == sorted(row["bytes"] for row in rows)
    assert rows[0]["pareto_teacher"] and rows[0]["psnr_ground_truth"] is None and rows[0]["lpips_vgg_teacher"] is None
    assert [row["pareto_teacher"] for row in rows_of(POINTS)] == [True, False, True, True, False, False]


def test_the_table_marks_the_front_and_the_plot_is_a_png(tmp_path):
    text = markdown([point("student", 1, 30.0, 28.0), point(".spz", 2, 29.0, 28.5)], "Title", "About.")
    assert text.startswith("# Title\n\nAbout. Bold:")
    line = next(line for line in text.splitlines() if line.startswith("| .spz"))
    assert "| 29.00 |" in line and "| **28.50** | 0.8000 |" in line and r"whole \| raw" in line
    draw(POINTS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("sizes", "labels"),
    [
        ([0.05, 9.0], ["0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10"]),
        ([0.21, 0.3, 0.45], ["0.25", "0.3", "0.35", "0.4", "0.45"]),
        ([0.7, 1.4], ["0.8", "1", "1.2", "1.4"]),  # not 1 alone
    ],
)
def test_sizes_along_the_axis_can_be_read_however_far_they_are_apart(tmp_path, monkeypatch, sizes, labels):
    found, save = [], Figure.savefig

    def noted(figure, *given, **options):
        save(figure, *given, **options)
        (axes,) = figure.axes
        low, high = axes.get_xlim()
        for minor in (False, True):
            texts = zip(axes.get_xticklabels(minor=minor), axes.get_xticks(minor=minor), strict=True)
            found.append([text.get_text() for text, at in texts if low <= at <= high])

    monkeypatch.setattr(Figure, "savefig", noted)
    draw([point("student", size, 30.0 + size) for size in sizes], tmp_path / "plot.png")
    assert found == [labels, []]
