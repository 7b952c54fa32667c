"""How the profile of a space is written for the terminal."""

from __future__ import annotations

import textwrap

from nas.figures import number
from nas.jobs.common import MOST_WIDTH, Json, screen_width
from nas.tables import pairs, table


def profile_text(result: Json) -> str:
    """Write a profile."""
    shape = "x".join(map(str, result["input_shape"]))
    head = pairs(
        [
            ("space", f"{result['space']} version {result['version']}"),
            ("data", f"{result['data']}: {shape}, {result['classes']} classes"),
            ("candidates", result["size"]["size"]),
        ]
    )
    rows = [
        [cost, *(number(cost, item[key]) for key in _COLUMNS)]
        for cost, item in result["costs"].items()
    ]
    drawn = (
        f"Costs of {result['candidates']:,} random candidates ({result['distinct']:,} distinct "
        f"networks),\nand the ends that a short search found"
    )
    parts = [head, f"{drawn}\n{table(['cost', *_COLUMNS.values()], rows)}"]
    if result["choices"]:
        lines = [(f"{100 * item['share']:3.0f}%", item["choice"]) for item in result["choices"]]
        parts.append(f"Share of the variance of macs that a choice explains\n{pairs(lines)}")
    parts += [_latency(name, item) for name, item in result["latencies"].items()]
    parts += [f"What pays at each layer\n{text}" for text in result["variants"]]
    if result["constraints"]:
        parts.append("\n".join(_constraint(item) for item in result["constraints"]))
    return "\n\n".join(parts)


_COLUMNS = {
    "lowest_found": "lowest found",
    "min": "min",
    "median": "median",
    "max": "max",
    "highest_found": "highest found",
}


def _latency(name: str, item: Json) -> str:
    usual = ", ".join(number(name, value) for value in sorted(item["random"]))
    lines = f"Measured {name} of {item['measured']} candidates on {item['device']}\n"
    lowest = f"lowest found {number(name, item['lowest_found'])}: {item['lowest_text']}"
    width = min(screen_width(), MOST_WIDTH)
    lines += textwrap.fill(lowest, width, subsequent_indent="  ", break_on_hyphens=False)
    return f"{lines}\nrandom candidates {usual}" if usual else lines


def _constraint(item: Json) -> str:
    best = item["best_found"]
    found = "" if best is None else f" (best found {number(item['metric'], best)})"
    if item["met"] == "unknown":
        return f"{item['constraint']}: not known before candidates are trained or measured."
    if item["met"] == "yes":
        share = item["share"]
        kept = "" if share is None else f"; {100 * share:.3g}% of random candidates keep it"
        return f"{item['constraint']}: can be met{found}{kept}."
    return (
        f"{item['constraint']}: CANNOT BE MET by anything found{found}; the bound found is not "
        "a proof."
    )
