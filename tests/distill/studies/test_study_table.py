"""The table of a study against figures worked out by hand."""

from __future__ import annotations

import pytest

from distill.studies.outcome import RATE, SECONDS, STEPS, Outcome
from distill.studies.schema import StudyConfig
from distill.studies.study_table import Spread, csv_columns, csv_rows, markdown, spoiled, summarize

PSNR = "PSNR, dB, to the teacher"
TEACHER, TRUTH, LPIPS = ("psnr", "teacher"), ("psnr", "ground_truth"), ("lpips_vgg", "teacher")


def make_study(**changes) -> StudyConfig:
    settings = {"name": "toy", "base": "a.yaml", "arms": {"plain": {}, "full": {}}, "baseline": "plain"}
    return StudyConfig(**{**settings, **changes})


def outcome(arm, seed, psnr, status="done", remark="", budget="", lpips=0.1, made_with="a laptop") -> Outcome:
    figures = {TEACHER: psnr, LPIPS: lpips, STEPS: 500.0, SECONDS: 2.0 + seed, RATE: 1e6}
    figures = {} if status == "diverged" else figures
    return Outcome(arm, budget, seed, status, figures, remark, made_with)


SOUND = [outcome("plain", seed, psnr) for seed, psnr in enumerate((20.0, 22.0, 24.0))]
SOUND += [outcome("full", seed, psnr, lpips=0.2) for seed, psnr in enumerate((21.0, 24.0, 27.0))]


def cells(text: str) -> list[dict[str, str]]:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_mean_and_sample_deviation_and_differences_by_seed() -> None:
    plain, full = summarize(make_study(), SOUND)
    assert plain.spreads[TEACHER] == Spread(3, 22.0, 2.0)
    assert full.spreads[TEACHER] == Spread(3, 24.0, 3.0)
    assert full.differences[TEACHER] == Spread(3, 2.0, 1.0)  # of 1, 2 and 3; unpaired it would be 3.6
    assert plain.differences == {}
    assert (TEACHER in full.best, LPIPS in full.best) == (True, False)  # less LPIPS is better
    assert (TEACHER in plain.best, LPIPS in plain.best) == (False, True)
    assert plain.remarks == full.remarks == ""


def test_one_value_has_no_deviation() -> None:
    assert Spread.of([3.0]) == Spread(1, 3.0, None)
    assert Spread.of([]) is None
    row = cells(markdown(make_study(seeds=(0,)), summarize(make_study(seeds=(0,)), SOUND[:1]), "command"))[0]
    assert row[PSNR] == "20.00" and row["n"] == "1"
    text = markdown(make_study(seeds=(3,)), [], "command")
    assert "Seed 3 alone" in text and "standard deviation" not in text


def test_the_markdown_table() -> None:
    text = markdown(make_study(), summarize(make_study(), SOUND), "python tools/ablate.py")
    plain, full = cells(text)
    assert plain[PSNR] == "22.00 ± 2.00" and full[PSNR] == "**24.00 ± 3.00**"
    assert plain[f"{PSNR}: difference to plain"] == "" and full["n"] == "3"
    assert full[f"{PSNR}: difference to plain"] == "+2.00 ± 1.00"
    assert plain["LPIPS (VGG), to the teacher"] == "**0.1000 ± 0.0000**"
    assert (full["steps"], full["seconds"], full["samples/s"]) == ("500 ± 0", "3.00 ± 1.00", "1,000,000 ± 0")
    assert "6 of 6 runs finished." in text and "python tools/ablate.py" in text
    assert "6 runs: a laptop" in text and "do not compare" not in text


@pytest.mark.parametrize(("status", "psnr"), [("collapsed", 9.5), ("diverged", 0.0)])
def test_a_failed_run_is_named_and_in_no_mean_or_difference(status, psnr) -> None:
    outcomes = [*SOUND[:4], outcome("full", 1, psnr, status, "step 3: loss | nan"), SOUND[5]]
    rows = summarize(make_study(), outcomes)
    assert rows[1].spreads[TEACHER].n == 2 and rows[1].spreads[TEACHER].mean == 24.0
    assert rows[1].differences[TEACHER].n == 2 and rows[1].differences[TEACHER].mean == 2.0
    full = cells(markdown(make_study(), rows, "command").replace("\\|", "/"))[1]
    assert full["n"] == "2 of 3"
    assert full["remarks"] == f"seed 1 {status.upper()} (step 3: loss / nan)"
    line = next(line for line in csv_rows(rows) if line["arm"] == "full" and line["metric"] == "psnr")
    assert line["n"] == 2 and status.upper() in line["remarks"]
    assert line.get("seed_1") == (9.5 if status == "collapsed" else None)


def test_a_baseline_that_failed_gives_no_difference_for_that_seed() -> None:
    rows = summarize(make_study(), [outcome("plain", 0, 20.0, "collapsed"), *SOUND[1:]])
    assert rows[1].differences[TEACHER] == Spread(2, 2.5, pytest.approx(0.5**0.5))


def test_an_incomplete_study_has_a_table_that_says_so() -> None:
    study = make_study(budgets={"short": {}, "long": {}})
    rows = summarize(study, [outcome("plain", 0, 20.0, budget="short")])
    assert [(row.arm, row.budget) for row in rows] == [
        ("plain", "short"), ("full", "short"), ("plain", "long"), ("full", "long"),
    ]  # fmt: skip
    text = markdown(study, rows, "command")
    assert "1 of 12 runs finished: the table is not complete." in text
    table = cells(text)
    assert table[0]["remarks"] == "not run yet: seed 1, 2" and table[3]["n"] == "0 of 3"
    assert table[0][PSNR] == "20.00"  # nothing to be better than
    assert table[3][PSNR] == table[3]["steps"] == ""
    assert "**" not in text


def test_references_that_some_runs_lack_are_empty_there() -> None:
    with_truth = Outcome("full", "", 0, "done", {TEACHER: 21.0, TRUTH: 19.0})
    rows = summarize(make_study(), [SOUND[0], with_truth])
    plain, full = cells(markdown(make_study(), rows, "command"))
    assert (plain["PSNR, dB, to ground truth"], full["PSNR, dB, to ground truth"]) == ("", "19.00")
    assert full["PSNR, dB, to ground truth: difference to plain"] == ""


def test_the_csv_has_every_seeds_value() -> None:
    study = make_study()
    lines = csv_rows(summarize(study, SOUND))
    assert set(lines[0]) <= set(csv_columns(study))
    by_figure = {(line["arm"], line["metric"]): line for line in lines}
    line = by_figure["full", "psnr"]
    assert [line[f"seed_{seed}"] for seed in (0, 1, 2)] == [21.0, 24.0, 27.0]
    assert (line["mean"], line["sd"], line["difference"], line["difference_sd"]) == (24.0, 3.0, 2.0, 1.0)
    assert by_figure["plain", "seconds"]["seed_2"] == 4.0 and "difference" not in by_figure["plain", "psnr"]


def test_runs_of_several_machines_are_not_passed_off_as_one() -> None:
    outcomes = [*SOUND[:5], outcome("full", 2, 27.0, made_with="a server")]
    text = markdown(make_study(), summarize(make_study(), outcomes), "command")
    assert "do not compare" in text and "- 5 runs: a laptop" in text and "- 1 run: a server" in text


def by_budget(**psnr) -> list[Outcome]:
    """Of the arm plain: a value of each seed by budget."""
    return [
        outcome("plain", seed, value, budget=name) for name, found in psnr.items() for seed, value in enumerate(found)
    ]


def test_a_longer_budget_that_is_worse_is_named_with_the_best_shorter_one() -> None:
    study = make_study(budgets={"s1": {}, "s2": {}, "s3": {}}, never_worse=0.1)
    # Seed by seed: s2 is 0.06 below s1, s3 another 0.06 below s2; no neighbours differ by more than is allowed.
    rows = summarize(study, by_budget(s1=(30.0, 31.0), s2=(29.94, 30.94), s3=(29.88, 30.88)))
    expected = "More training made plain worse: s3 is 0.12 dB below s1 against the teacher, where 0.1 dB are allowed."
    assert spoiled(study, rows) == [expected]
    assert f"**{expected}**" in markdown(study, rows, "command")


def test_what_longer_training_does_not_spoil_is_not_named() -> None:
    study = make_study(budgets={"s1": {}, "s2": {}}, never_worse=0.1)
    within = summarize(study, by_budget(s1=(30.0,), s2=(29.91,)))
    unpaired = summarize(study, [*by_budget(s1=(20.0, 31.0)), outcome("plain", 0, 25.0, budget="s2")])
    failed = summarize(study, [*by_budget(s1=(30.0,)), outcome("plain", 0, 9.5, "collapsed", budget="s2")])
    assert [spoiled(study, rows) for rows in (within, unpaired, failed, summarize(study, []))] == [[]] * 4
    worse = by_budget(s1=(30.0,), s2=(20.0,))
    silent = make_study(budgets={"s1": {}, "s2": {}})
    assert spoiled(silent, summarize(silent, worse)) == []
