"""The picture of a gene table: where its genes lie, how alike their vectors are, where those come from, the verdict."""

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uce.files import atomic_path, picture_path, printable
from uce.genes.catalogue import species_label
from uce.genes.judging.health import TableHealth
from uce.genes.judging.measures import Floats, centred, family_pairs, pair_cosines, random_pairs, same_symbol
from uce.genes.tables import UNPLACED, GeneTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CHROMOSOMES, MOST_BARS = 40, 8
_BLUE, _GREY, _ORANGE, _GREEN = "#4477aa", "#9aa0a6", "#dd6622", "#228855"
_VERDICTS = {"sound": "#1f6b3b", "doubtful": "#9a5b00", "not usable": "#b00020"}


def draw_table(table: GeneTable, health: TableHealth, path: str | Path, *, against: Sequence[GeneTable] = ()) -> Path:
    """Draw a gene table: genes per chromosome, cosines of pairs, origins of the vectors; the verdict is the title.

    Parameters
    ----------
    health
        What `judge_table` said of it.
    against
        The tables it was judged by; pairs of one symbol with the first that shares symbols are drawn.

    Raises
    ------
    UsageError
        The ending is not that of a picture.
    """
    path = picture_path(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.4), layout="constrained")
    axes = figure.subplot_mosaic([["places", "places", "places"], ["cosines", "cosines", "origins"]])
    _draw_places(axes["places"], table)
    _draw_cosines(axes["cosines"], table, health, against)
    _draw_origins(axes["origins"], table)
    for panel in axes.values():
        panel.spines[["top", "right"]].set_visible(False)
    headline, reason = _title(health)
    figure.suptitle(headline, fontsize=13, fontweight="bold", color=_VERDICTS[health.verdict])
    axes["places"].set_title(f"{reason}\n\nGenes per chromosome or scaffold".strip(), fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format=path.suffix.lower()[1:])
    return path


def _title(health: TableHealth) -> tuple[str, str]:
    """The verdict, and the first sentence of what was found first, wrapped."""
    said = (*health.problems, *health.warnings)
    if not said:
        return _plain(health.headline, 200), ""
    more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
    first = re.split(r"\. (?=[A-Z])", said[0])[0].rstrip(".")
    return _plain(health.headline, 200), "\n".join(textwrap.wrap(_plain(first, 400) + more, 130))


def _plain(text: str, limit: int = 24) -> str:
    """Text of a file as a picture can show it: no formulas, no letters that the font lacks."""
    return printable(text.encode("ascii", "replace").decode(), limit=limit).replace("$", r"\$")


def chromosome_bars(table: GeneTable) -> list[tuple[str, int]]:
    """Names and numbers of genes: the 40 largest chromosomes in natural order, all others as one, the unplaced last."""
    counts = Counter(table.chromosomes.tolist())
    unplaced = counts.pop(UNPLACED, 0)
    largest = sorted(counts, key=lambda name: (-counts[name], name))
    shown = sorted(largest[:MOST_CHROMOSOMES], key=_natural)
    bars = [(name, counts[name]) for name in shown]
    if rest := largest[MOST_CHROMOSOMES:]:
        bars.append((f"{len(rest):,} others", sum(counts[name] for name in rest)))
    return bars + ([(UNPLACED, unplaced)] if unplaced else [])


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = (part for part in re.split(r"([0-9]+)", name) if part)
    return [(False, int(part), "") if part[0] in "0123456789" else (True, 0, part) for part in parts]


def _draw_places(axes: "Axes", table: GeneTable) -> None:
    bars = chromosome_bars(table)
    # The end of a long name is what tells scaffolds apart.
    names = [_plain(name if len(name) <= 14 else f"...{name[-11:]}") for name, _ in bars]
    counts = [count for _, count in bars]
    colours = [_GREY if name == UNPLACED or name.endswith(" others") else _BLUE for name, _ in bars]
    axes.bar(range(len(bars)), counts, color=colours, width=min(0.8, 0.05 * len(bars)))
    axes.set_xticks(range(len(bars)), names, rotation=90 if max(map(len, names)) > 3 and len(bars) > 8 else 0)
    axes.set_xlim(-0.7, len(bars) - 0.3)
    axes.set_ylabel("genes")


def _draw_cosines(axes: "Axes", table: GeneTable, health: TableHealth, against: Sequence[GeneTable]) -> None:
    units = centred(table.vectors)
    kinds = [("random pairs", _GREY, pair_cosines(units, random_pairs(len(table))))]
    if health.families:
        label = f"pairs of one family, {health.families.auc:.0%} above random"
        kinds.append((label, _BLUE, pair_cosines(units, family_pairs(table.symbols)[0])))
    for other, test in zip(against, health.orthologues, strict=True):
        if test.auc is not None:
            pairs = same_symbol(table, other)
            label = f"one symbol, {species_label(other.species)}, {test.auc:.0%} above others"
            kinds.append((_plain(label, 80), _ORANGE, pair_cosines(units, pairs, centred(other.vectors))))
            break
    bins = _bins([found for _, _, found in kinds])
    for label, colour, found in kinds:
        heights = np.histogram(found, bins)[0]
        axes.stairs(heights / max(1, heights.max()), bins, lw=1.8, color=colour, label=f"{label} ({len(found):,})")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    axes.set_ylim(0, 1.1 + 0.12 * len(kinds))
    axes.set_yticks([])
    axes.set_ylabel("pairs, each curve to the same height", fontsize=9)
    axes.set_xlabel(f"cosine, mean vector taken off (with it, random pairs have {health.raw.mean:.3f})")
    axes.set_title("How alike the vectors are", fontsize=10)


def _bins(found: Sequence[Floats]) -> Floats:
    values = np.concatenate(found)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    number = 25 if min(map(len, found)) < 500 else 61
    return np.linspace(min(-0.2, low), max(0.2, high) + 1e-3, number, dtype=np.float32)


def _draw_origins(axes: "Axes", table: GeneTable) -> None:
    counted = Counter(table.origins.tolist()).most_common()
    bars = [*counted[: MOST_BARS - 1], ("others", sum(n for _, n in counted[MOST_BARS - 1 :]))]
    title = "Where the vectors come from"
    if len(counted) == 1 and table.proteins.any():
        title = "Proteins per gene"
        numbers = np.minimum(table.proteins, MOST_BARS)
        bars = [(f"{n}{' or more' if n == MOST_BARS else ''}", int((numbers == n).sum())) for n in range(MOST_BARS + 1)]
    bars = [(name, count) for name, count in bars if count][::-1]
    drawn = axes.barh([_plain(name) for name, _ in bars], [count for _, count in bars], color=_GREEN, height=0.6)
    axes.bar_label(drawn, [f"{count:,}" for _, count in bars], padding=3, fontsize=8.5)
    axes.margins(x=0.25)
    axes.set_xlabel("genes")
    axes.set_title(title, fontsize=10)
    axes.set_ylim(min(-0.8, len(bars) - 4.2), len(bars) - 0.2)
    axes.locator_params(axis="x", nbins=4)
