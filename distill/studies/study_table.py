"""A study's outcomes as one table: means, spreads, differences to the baseline; failed runs are said, not averaged."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distill.reports.markdown_table import REFERENCES, escape_markdown, markdown_table
from distill.studies.outcome import PER_RAY, RATE, RAYS, SECONDS, STEPS, Figure, Outcome
from distill.studies.schema import METRICS, StudyConfig

_MEANINGS = {
    STEPS: "steps",
    SECONDS: "seconds",
    RATE: "samples/s",
    RAYS: "rays/s",
    PER_RAY: "samples/ray",
}


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation; the latter None for a single value."""

    n: int
    mean: float
    sd: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None for no values."""
        if not values:
            return None
        return cls(len(values), statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Row:
    """An arm with a budget.

    Attributes:
        outcomes: by seed, those there are.
        spreads: of the runs that neither diverged nor collapsed.
        differences: to the baseline, over the seeds for which both arms have a figure.
        best: figures in which no arm with this budget has a better mean, where there is another to compare with.
        remarks: which runs failed or are missing.
    """

    arm: str
    budget: str
    outcomes: dict[int, Outcome]
    spreads: dict[Figure, Spread]
    differences: dict[Figure, Spread]
    best: frozenset[Figure]
    remarks: str


def summarize(study: StudyConfig, outcomes: Iterable[Outcome]) -> list[Row]:
    """A row per budget and arm in the study's order, also where no run is finished yet."""
    by_place: dict[tuple[str, str], dict[int, Outcome]] = {}
    for outcome in outcomes:
        by_place.setdefault((outcome.arm, outcome.budget), {})[outcome.seed] = outcome
    rows = []
    for budget in study.budgets or ("",):
        found = {arm: by_place.get((arm, budget), {}) for arm in study.arms}
        spreads = {arm: _spreads(found[arm]) for arm in study.arms}
        for arm in study.arms:
            differences = {} if arm == study.baseline else _differences(found[arm], found[study.baseline])
            remarks = _remarks(found[arm], study.seeds)
            best = frozenset(figure for figure in spreads[arm] if _is_best(arm, figure, spreads))
            rows.append(Row(arm, budget, found[arm], spreads[arm], differences, best, remarks))
    return rows


def markdown(study: StudyConfig, rows: Sequence[Row], command: str) -> str:
    """The table for people, with what it shows above and what it was made with below."""
    figures = _figures(rows)
    finished, wanted = sum(len(row.outcomes) for row in rows), len(rows) * len(study.seeds)
    header = ["arm", "budget", "n"]
    for figure in figures:
        metric, reference = figure
        name = METRICS[metric].title + (f", to {REFERENCES[reference]}" if reference else "")
        header += [name, f"{name}: difference to {study.baseline}"] if len(study.arms) > 1 else [name]
    header += [*_MEANINGS.values(), "remarks"]
    table = markdown_table(header, (_cells(study, row, figures) for row in rows), "---")
    seeds = ", ".join(map(str, study.seeds))
    spread = f"Mean ± sample standard deviation over seeds {seeds}; differences are taken seed by seed."
    if len(study.seeds) == 1:
        spread = f"Seed {seeds} alone, so nothing says how much of a difference is chance."
    about = (
        f"Held-out frames. {spread} n counts the runs in the mean; runs that collapsed or diverged are not in it and "
        "are named under remarks. "
        "Bold: the best mean with that budget. seconds: training alone; samples/s, rays/s and samples/ray: means over "
        "the logged steps."
    )
    state = f"{finished} of {wanted} runs finished" + ("." if finished == wanted else ": the table is not complete.")
    made_with = Counter(outcome.made_with for row in rows for outcome in row.outcomes.values())
    notes = [f"- {count} run{'s' * (count != 1)}: {what}" for what, count in made_with.most_common()]
    if len(made_with) > 1:
        notes.insert(0, "The runs were made with different machines or versions: times do not compare.\n")
    warnings = [line for sentence in spoiled(study, rows) for line in (f"**{sentence}**", "")]
    head = [f"# Study {study.name}", "", about, "", f"{state} Command: `{command}`", "", *warnings]
    return "\n".join([*head, table, "", *notes, ""])


def spoiled(study: StudyConfig, rows: Iterable[Row]) -> list[str]:
    """A sentence for each arm and reference that longer training made worse by more than ``study.never_worse``.

    A budget is compared with the best of the shorter ones, seed by seed: a slow decline adds up. Runs that diverged
    or collapsed are in no comparison; the table's remarks name them.
    """
    if study.never_worse is None:
        return []
    sentences = []
    by_place = {(row.arm, row.budget): row.outcomes for row in rows}
    for arm in study.arms:
        for number, longer in enumerate(study.budgets):
            losses: dict[str, list[tuple[float, str]]] = {}
            for shorter in list(study.budgets)[:number]:
                changes = _differences(by_place[arm, longer], by_place[arm, shorter])
                for (metric, reference), change in changes.items():
                    if metric == "psnr":
                        losses.setdefault(reference, []).append((-change.mean, shorter))
            for reference, found in losses.items():
                loss, shorter = max(found)
                if loss > study.never_worse:
                    sentences.append(
                        f"More training made {arm} worse: {longer} is {loss:.2f} dB below {shorter} against "
                        f"{REFERENCES[reference]}, where {study.never_worse:g} dB are allowed."
                    )
    return sentences


def csv_columns(study: StudyConfig) -> tuple[str, ...]:
    """Columns of ``csv_rows``."""
    spread = ("n", "mean", "sd", "difference_n", "difference", "difference_sd")
    seeds = (f"seed_{seed}" for seed in study.seeds)
    return ("arm", "budget", "metric", "reference", *spread, *seeds, "remarks")


def csv_rows(rows: Sequence[Row]) -> list[dict[str, object]]:
    """A line per arm, budget and figure; of each seed the value, also of a collapsed run, which no mean contains."""
    lines = []
    for row in rows:
        for figure in [*_figures(rows), *_MEANINGS]:
            spread, difference = row.spreads.get(figure), row.differences.get(figure)
            line: dict[str, object] = {
                "arm": row.arm,
                "budget": row.budget,
                "metric": figure[0],
                "reference": figure[1],
                "n": spread.n if spread else 0,
                "remarks": row.remarks,
            }
            if spread:
                line |= {"mean": spread.mean, "sd": spread.sd}
            if difference:
                line |= {"difference_n": difference.n, "difference": difference.mean, "difference_sd": difference.sd}
            line |= {f"seed_{seed}": outcome.figures.get(figure) for seed, outcome in row.outcomes.items()}
            lines.append(line)
    return lines


def _spreads(outcomes: dict[int, Outcome]) -> dict[Figure, Spread]:
    sound = [outcome for outcome in outcomes.values() if outcome.status == "done"]
    figures = dict.fromkeys(figure for outcome in sound for figure in outcome.figures)
    return {
        figure: Spread.of([outcome.figures[figure] for outcome in sound if figure in outcome.figures])
        for figure in figures
    }


def _differences(outcomes: dict[int, Outcome], baseline: dict[int, Outcome]) -> dict[Figure, Spread]:
    pairs = [
        (outcome.figures, baseline[seed].figures)
        for seed, outcome in outcomes.items()
        if seed in baseline and outcome.status == baseline[seed].status == "done"
    ]
    figures = dict.fromkeys(figure for mine, theirs in pairs for figure in mine if figure in theirs)
    return {
        figure: Spread.of([mine[figure] - theirs[figure] for mine, theirs in pairs if figure in mine.keys() & theirs])
        for figure in figures
    }


def _is_best(arm: str, figure: Figure, spreads: dict[str, dict[Figure, Spread]]) -> bool:
    metric = figure[0]
    others = [found[figure].mean for name, found in spreads.items() if name != arm and figure in found]
    if metric not in METRICS or not others:
        return False
    mean = spreads[arm][figure].mean
    return mean >= max(others) if METRICS[metric].higher_is_better else mean <= min(others)


def _remarks(outcomes: dict[int, Outcome], seeds: Sequence[int]) -> str:
    failed = [
        f"seed {seed} {outcome.status.upper()}" + (f" ({outcome.remark})" if outcome.remark else "")
        for seed, outcome in sorted(outcomes.items())
        if outcome.status != "done"
    ]
    missing = [str(seed) for seed in seeds if seed not in outcomes]
    if missing:
        failed.append(f"not run yet: seed {', '.join(missing)}")
    return "; ".join(failed)


def _figures(rows: Sequence[Row]) -> list[Figure]:
    """Figures that any run has, in the order of the runs' files; training's own are in columns of their own."""
    every = (figure for row in rows for outcome in row.outcomes.values() for figure in outcome.figures)
    return [figure for figure in dict.fromkeys(every) if figure not in _MEANINGS]


def _cells(study: StudyConfig, row: Row, figures: Sequence[Figure]) -> list[str]:
    sound = sum(outcome.status == "done" for outcome in row.outcomes.values())
    cells = [row.arm, row.budget, f"{sound}" if sound == len(study.seeds) else f"{sound} of {len(study.seeds)}"]
    for figure in figures:
        digits = METRICS[figure[0]].digits
        text = _text(row.spreads.get(figure), digits)
        cells.append(f"**{text}**" if figure in row.best else text)
        if len(study.arms) > 1:
            cells.append(_text(row.differences.get(figure), digits, "+"))
    cells += [_text(row.spreads.get(figure), _whole(row.spreads.get(figure))) for figure in _MEANINGS]
    return [*cells, escape_markdown(row.remarks)]


def _whole(spread: Spread | None) -> int:
    """Decimals of a count or a time: none, but for one that is small."""
    return 0 if spread is None or not spread.mean else max(0, 2 - math.floor(math.log10(abs(spread.mean))))


def _text(spread: Spread | None, digits: int, sign: str = "") -> str:
    if spread is None:
        return ""
    text = f"{spread.mean:{sign},.{digits}f}"
    return text if spread.sd is None else f"{text} ± {spread.sd:,.{digits}f}"
