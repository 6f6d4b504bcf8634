"""The benchmark's figures as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill.benchmarks.measurement import Limits, Timing
from distill.reports.markdown_table import escape_markdown, markdown_table
from settings.words import counted

COLUMNS = (
    *("case", "implementation", "min_s", "median_s", "max_s", "rounds", "speed_up"),
    *("items", "unit", "items_per_s", "steps_per_s", "gpu_peak_gib", "bytes", "flops", "roofline_s"),
    *("roofline_fraction", "failure"),
    *("device", "device_name", "threads", "torch", "date", "command", "copy_bytes_per_s", "matmul_flops_per_s"),
)
_LONGEST = 200  # characters of a failure
_HEADER = "what", "implementation", "min ms", "median ms", "max ms", "speed-up", "rate", "GPU peak GiB", "of roofline"


def rows_of(
    timings: Sequence[Timing], limits: Limits | None, circumstances: Mapping[str, object]
) -> list[dict[str, object]]:
    """A dict of ``COLUMNS`` per timing, those of one case together; None is not measured or not counted.

    What has neither figures nor a failure has not had its turn yet, and no row.

    Args:
        limits: of the device; None: not measured.
        circumstances: the same in all rows: ``device``, ``device_name``, ``threads``, ``torch``, ``date``, ``command``.
    """
    timings = [timing for timing in timings if timing.seconds or timing.failure]
    first: dict[str, float] = {}
    order = list(dict.fromkeys(timing.case.name for timing in timings))
    rows = []
    for timing in sorted(timings, key=lambda timing: order.index(timing.case.name)):
        case = timing.case
        row = dict.fromkeys(COLUMNS) | {"case": case.name, "implementation": case.implementation, **circumstances}
        row |= {"bytes": case.bytes, "flops": case.flops, "unit": case.unit}
        if limits is not None:
            row |= {"copy_bytes_per_s": limits.bytes_per_s, "matmul_flops_per_s": limits.flops_per_s}
        if timing.seconds:
            row |= _figures(timing, first.setdefault(case.name, timing.median), limits)
        if timing.failure is not None:
            row["failure"] = _one_line(timing.failure)
        rows.append(row)
    return rows


def _figures(timing: Timing, first: float, limits: Limits | None) -> dict[str, object]:
    """Columns of what was measured.

    Args:
        first: median seconds of the first of the same case.
    """
    case, median = timing.case, timing.median
    items = case.items() if callable(case.items) else case.items
    least = None if limits is None else limits.least_seconds(case)
    return {
        "min_s": min(timing.seconds),
        "median_s": median,
        "max_s": max(timing.seconds),
        "rounds": len(timing.seconds),
        "speed_up": first / median,
        "items": items,
        "items_per_s": None if items is None else items / median,
        "steps_per_s": 1 / median if case.name.startswith("training") else None,
        "gpu_peak_gib": timing.peak_gib,
        "roofline_s": least,
        "roofline_fraction": None if least is None else least / median,
    }


def _one_line(error: Exception) -> str:
    """What an error says first; compilers say more than a cell holds."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"[:_LONGEST]


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Where and when, then a line per row: times, speed-up over the first of its case, rate (or why there are no
    figures), memory, roofline.

    The values may be a CSV's texts. No rows: an empty text.
    """
    if not rows:
        return ""
    first = rows[0]
    threads = counted(int(first["threads"]), "CPU thread")
    about = f"{first['device_name']}, {threads}, torch {first['torch']}, {first['date']}, `{first['command']}`."
    if not _missing(first["copy_bytes_per_s"]):
        copies, products = (_scaled(first[name], 1e9) for name in ("copy_bytes_per_s", "matmul_flops_per_s"))
        about += f" Copies {copies} GB/s, multiplies {products} GFLOP/s."
    lines = []
    for row in rows:
        times = [_number(row, name, 1e3, ".2f") for name in ("min_s", "median_s", "max_s")]
        memory, share = _number(row, "gpu_peak_gib", 1, ".2f"), _number(row, "roofline_fraction", 100, ".1f")
        names = str(row["case"]), str(row["implementation"])
        speed_up = _number(row, "speed_up", 1, ".1f")
        lines.append([*names, *times, speed_up, _rate(row), memory, share and f"{share} %"])
    return f"{about}\n\n{markdown_table(_HEADER, lines, '---')}"


def _number(row: Mapping[str, object], name: str, unit: float, spec: str) -> str:
    return "" if _missing(row[name]) else f"{unit * float(row[name]):{spec}}"


def _rate(row: Mapping[str, object]) -> str:
    parts = [] if _missing(row["steps_per_s"]) else [f"{_rounded(float(row['steps_per_s']))} steps/s"]
    if not _missing(row["items_per_s"]):
        parts.append(f"{_rounded(float(row['items_per_s']))} {row['unit']}/s")
    if not _missing(row.get("failure")):  # a column that earlier versions did not have
        parts.append(f"not measured: {escape_markdown(str(row['failure']))}")
    return ", ".join(parts)


def _rounded(value: float) -> str:
    """Three digits or all before the point, with thousands set off."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _scaled(value: object, unit: float) -> str:
    return _rounded(float(value) / unit)


def _missing(value: object) -> bool:
    return value is None or value == ""
