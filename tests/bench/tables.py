"""What was measured, as a table: medians, and ratios of runs that belong together."""

from __future__ import annotations

import statistics
from typing import Any

Run = dict[str, Any]
"""One server's figures in one round."""

BASELINE = "lighttpd"


def print_table(
    title: str, columns: dict[str, str], runs: dict[str, list[Run]], baseline: str = BASELINE
) -> None:
    """Medians of *columns* (heading to key); the first also as ratio to the baseline's."""
    first, *others = columns.values()
    headings = [next(iter(columns)), f"x {baseline} (quartiles)", *list(columns)[1:]]
    print(f"\n## {title}\n\n| | {' | '.join(headings)} |\n|---{'|---' * len(headings)}|")
    for name, mine in runs.items():
        cells = [f"{median(mine, first):.2f}", ratio(mine, runs[baseline], first)]
        cells += [f"{median(mine, key):.0f}" for key in others]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def median(runs: list[Run], key: str) -> float:
    return statistics.median(float(run[key]) for run in runs)


def ratio(mine: list[Run], base: list[Run], key: str) -> str:
    """The median of the rounds' ratios, with its quartiles."""
    ratios = [run[key] / other[key] for run, other in zip(mine, base, strict=True) if other[key]]
    if len(ratios) < 2:
        return "".join(f"{ratio:.2f}" for ratio in ratios)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"
