"""What an embedding costs against the number of cells and the length of sentences: time and peak memory, two pictures.

    python scripts/bench_cost.py --out docs/results

Cells: whole processes of `uce embed` on simulated cells with the tiny model of `bench_memory.py`, so that what is
measured is everything around the encoder. Sentences: the published four layers with random weights on a few of those
cells, one process for each length and precision, its encoder alone in the time, all of it in the memory.
"""

import argparse
import json
import math
import os
import resource
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from bench_embed import apart, by_engine, machine, make_model, make_table, opened
from bench_memory import make_model as make_tiny_model
from bench_memory import measure, simulate

COLOURS = {"fp32": "#4477aa", "bf16": "#ee6677", "tiny": "#4477aa"}


def simulated(folder: Path, cells: int) -> Path:
    """Where the file of so many simulated cells is, or will be."""
    return folder / f"simulated-{cells}.h5ad"


def cost_of_cells(folder: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Seconds and peak memory of `uce embed` for each number of cells."""
    model = folder / "tiny"
    if not model.exists():
        apart(make_tiny_model, folder)
    rows = []
    for cells in sizes:
        source = simulated(folder, cells)
        if not source.exists():
            apart(simulate, source, cells)
        seconds, peak = measure(source, model)
        rows.append({"line": "tiny", "cells": cells, "seconds": seconds, "peak_mb": peak})
        print(f"{cells:,} cells: {seconds:.1f} s, {peak:,.0f} MB")
    return rows


def encode(model: Path, source: Path, precision: str, cells: int, rounds: int) -> tuple[float, float]:
    """Seconds a cell, the median of the rounds after one to warm up, and peak megabytes of this process."""
    seconds = []
    with opened(model, source, precision) as job:
        by_engine(job, cells)
        for _ in range(rounds):
            began = time.perf_counter()
            by_engine(job, cells)
            seconds.append((time.perf_counter() - began) / cells)
    return median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cost_of_tokens(folder: Path, source: Path, draws: list[int], few: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds a cell and peak memory of the published size for each number of genes drawn, in both precisions.

    The cells are the first few of `source`.
    """
    apart(make_table, folder / "home")
    rows = []
    for drawn, precision in product(draws, ("fp32", "bf16")):
        # Every sentence fits: CLS, and two tokens for each of at most 256 chromosomes and scaffolds.
        model = apart(make_model, folder, drawn, drawn + 513)
        seconds, peak = apart(encode, model, source, precision, few, rounds)
        rows.append({"line": precision, "draws": drawn, "seconds": seconds, "peak_mb": peak})
        print(f"{drawn:,} genes drawn, {precision}: {seconds:.2f} s a cell, {peak:,.0f} MB")
    return rows


def draw(rows: list[dict[str, Any]], x: str, labels: tuple[str, str], path: Path) -> None:
    """Time above memory against `x`, a line for each kind of row; both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with mpl.rc_context({"font.size": 15, "svg.hashsalt": "uce"}):
        figure = Figure(figsize=(6, 7.5), layout="constrained")
        panels = figure.subplots(2, 1, sharex=True)
        for axes, key, label in zip(panels, ("seconds", "peak_mb"), (labels[1], "peak memory (MB)"), strict=True):
            for place, line in enumerate(dict.fromkeys(row["line"] for row in rows)):
                points = [(row[x], row[key]) for row in rows if row["line"] == line]
                axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[line], label=line, linewidth=2, markersize=8)
                for point in points:
                    above = (0, -22 if place else 10)
                    axes.annotate(
                        f"{float(f'{point[1]:.3g}'):,g}",
                        point,
                        above,
                        textcoords="offset points",
                        ha="center",
                        fontsize=12,
                    )
            exponents = [math.log10(row[key]) for row in rows]
            axes.set(xscale="log", yscale="log", ylabel=label)
            axes.set_ylim(10 ** math.floor(min(exponents)), 10 ** math.ceil(max(exponents)))
            axes.set_xticks(sorted({row[x] for row in rows}))
            axes.margins(x=0.12)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
                axis.set_minor_formatter(NullFormatter())
            axes.grid(visible=True, alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        panels[1].set_xlabel(labels[0])
        if len({row["line"] for row in rows}) > 1:
            panels[0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, print, write the numbers and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="(1000 10000 100000)")
    parser.add_argument("--draws", type=int, nargs="+", default=[500, 1_000, 2_000], help="(500 1000 2000)")
    parser.add_argument("--few", type=int, default=8, help="cells for each number of draws (8)")
    parser.add_argument("--rounds", type=int, default=3, help="of these cells, whose median is told (3)")
    parser.add_argument("--folder", type=Path, help="keep models and files there, and use those that are there")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of speed_cost.json and the two pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["UCE_HOME"] = str(folder / "home")
        cells = cost_of_cells(folder, args.cells)
        tokens = cost_of_tokens(folder, simulated(folder, min(args.cells)), args.draws, args.few, args.rounds)
    facts = {"machine": machine(), "cells": cells, "tokens": tokens, "few": args.few, "rounds": args.rounds}
    (args.out / "speed_cost.json").write_text(json.dumps(facts, indent=1) + "\n")
    draw(cells, "cells", ("cells of the file", "time of uce embed (s)"), args.out / "speed_cells.svg")
    draw(tokens, "draws", ("genes drawn a cell", "time a cell (s)"), args.out / "speed_tokens.svg")


if __name__ == "__main__":
    main()
