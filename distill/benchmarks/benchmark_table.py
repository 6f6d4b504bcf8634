"""The benchmark's figures as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill.benchmarks.measurement import Limits, Timing
from distill.reports.markdown_table import markdown_table

COLUMNS = (
    *("case", "implementation", "min_s", "median_s", "max_s", "rounds", "speed_up"),
    *("items", "unit", "items_per_s", "steps_per_s", "gpu_peak_gib", "bytes", "flops", "roofline_s"),
    "roofline_fraction",
    *("device", "device_name", "threads", "torch", "date", "command", "copy_bytes_per_s", "matmul_flops_per_s"),
)
_HEADER = "what", "implementation", "min ms", "median ms", "max ms", "speed-up", "rate", "GPU peak GiB", "of roofline"


def rows_of(timings: Sequence[Timing], limits: Limits, circumstances: Mapping[str, object]) -> list[dict[str, object]]:
    """A dict of ``COLUMNS`` per timing, those of one case together; None is not measured or not counted.

    Args:
        circumstances: the same in all rows: ``device``, ``device_name``, ``threads``, ``torch``, ``date``, ``command``.
    """
    first: dict[str, float] = {}
    rows = []
    order = list(dict.fromkeys(timing.case.name for timing in timings))
    for timing in sorted(timings, key=lambda timing: order.index(timing.case.name)):
        case, median = timing.case, timing.median
        least = limits.least_seconds(case)
        rows.append(
            {
                "case": case.name,
                "implementation": case.implementation,
                "min_s": min(timing.seconds),
                "median_s": median,
                "max_s": max(timing.seconds),
                "rounds": len(timing.seconds),
                "speed_up": first.setdefault(case.name, median) / median,
                "items": case.items,
                "unit": case.unit,
                "items_per_s": None if case.items is None else case.items / median,
                "steps_per_s": 1 / median if case.name.startswith("training") else None,
                "gpu_peak_gib": timing.peak_gib,
                "bytes": case.bytes,
                "flops": case.flops,
                "roofline_s": least,
                "roofline_fraction": None if least is None else least / median,
                "copy_bytes_per_s": limits.bytes_per_s,
                "matmul_flops_per_s": limits.flops_per_s,
                **circumstances,
            }
        )
    return rows


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Where and when, then a line per row: times, speed-up over the first of its case, rate, memory, roofline.

    The values may be a CSV's texts. No rows: an empty text.
    """
    if not rows:
        return ""
    first = rows[0]
    about = (
        f"{first['device_name']}, {first['threads']} CPU threads, torch {first['torch']}, {first['date']}, "
        f"`{first['command']}`. Copies {_scaled(first['copy_bytes_per_s'], 1e9)} GB/s, multiplies "
        f"{_scaled(first['matmul_flops_per_s'], 1e9)} GFLOP/s."
    )
    lines = []
    for row in rows:
        times = [f"{1e3 * float(row[name]):.2f}" for name in ("min_s", "median_s", "max_s")]
        memory = "" if _missing(row["gpu_peak_gib"]) else f"{float(row['gpu_peak_gib']):.2f}"
        share = "" if _missing(row["roofline_fraction"]) else f"{100 * float(row['roofline_fraction']):.1f} %"
        names = str(row["case"]), str(row["implementation"])
        lines.append([*names, *times, f"{float(row['speed_up']):.1f}", _rate(row), memory, share])
    return f"{about}\n\n{markdown_table(_HEADER, lines, '---')}"


def _rate(row: Mapping[str, object]) -> str:
    parts = [] if _missing(row["steps_per_s"]) else [f"{_rounded(float(row['steps_per_s']))} steps/s"]
    if not _missing(row["items_per_s"]):
        parts.append(f"{_rounded(float(row['items_per_s']))} {row['unit']}/s")
    return ", ".join(parts)


def _rounded(value: float) -> str:
    """Three digits or all before the point, with thousands set off."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _scaled(value: object, unit: float) -> str:
    return _rounded(float(value) / unit)


def _missing(value: object) -> bool:
    return value is None or value == ""
