"""What all pictures share: style, colours that colour-blind readers can tell apart, and the way to an SVG.

Pictures are narrow (`WIDTH`), so that their letters can be read on a phone, and white, so that they can be read on a
dark page. Equal data give equal bytes.
"""

import colorsys
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uce.evaluation.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.1
"""Inches of a picture that fits a phone."""
GREY, INK, FAINT, ALARM = "#7a7f85", "#22272b", "#d9dcdf", "#b3261e"

# Okabe and Ito (2008), without yellow and black: too faint on white, and too strong beside the others.
_HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a4c93", "#8c6d31")
_MARKERS = ("o", "s", "^", "v", "P", "X", "h", "p")
_ABBREVIATIONS = {
    "ari": "ARI", "asw": "ASW", "auroc": "AUROC", "aupr": "AUPR", "bras": "BRAS", "cilisi": "CiLISI", "clisi": "cLISI",
    "ece": "ECE", "f1": "F1", "fpr95": "FPR at 95 % TPR", "hvg": "HVG", "ilisi": "iLISI", "kbet": "kBET", "knn": "k-NN",
    "nmi": "NMI", "pca": "PCA", "pca50": "PCA-50", "pcr": "PCR", "scgraph": "scGraph", "scib": "scIB",
    "kmeans": "k-means", "leiden": "Leiden", "corr": "correlation", "offdiag": "off the diagonal", "umap": "UMAP",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "axes.grid": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
    "figure.facecolor": "white",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "uce",
    "savefig.dpi": 220,
}


@dataclass(frozen=True)
class Look:
    """How an embedding is drawn, the same in every picture.

    Attributes
    ----------
    colour, marker
        Own and given embeddings have colours, baselines are grey with a marker each, controls are hollow.
    filled
        False for controls.
    """

    colour: str
    marker: str = "o"
    filled: bool = True

    @property
    def line(self) -> Any:
        """How its curve is dashed."""
        dashes = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (10, 2)), (0, (5, 4)), (0, (3, 1, 1, 1)), (0, (1, 4)))
        return "-" if self.colour != GREY else dashes[_MARKERS.index(self.marker) if self.marker in _MARKERS else 0]

    @property
    def face(self) -> str:
        """Colour of the inside of its marker."""
        return self.colour if self.filled else "white"


def looks(kinds: Mapping[str, str]) -> dict[str, Look]:
    """Name of an embedding -> how it is drawn, from name -> `own`, `given`, `baseline` or `control`."""
    found = {}
    counts = {"colour": 0, "baseline": 0, "control": 0}
    for name, kind in kinds.items():
        group = kind if kind in counts else "colour"
        place = counts[group]
        counts[group] += 1
        marker = _MARKERS[place % len(_MARKERS)]
        if group == "colour":
            found[name] = Look(categorical(place + 1)[place], marker)
        else:
            found[name] = Look(GREY, "D" if group == "control" else marker, group == "baseline")
    return found


def categorical(count: int) -> list[str]:
    """Colours for categories: eight hues that colour-blind readers can tell apart, then the same lighter and darker.

    Beyond eight, no set of colours is safe alone: a picture must say by a number or a name too which is which.
    """
    shades = (0.0, 0.45, -0.4, 0.7, -0.62)
    return [_shade(_HUES[i % len(_HUES)], shades[i // len(_HUES) % len(shades)]) for i in range(count)]


def _shade(colour: str, amount: float) -> str:
    """Towards white for a positive amount, towards black for a negative one."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    light = light + (1 - light) * amount if amount > 0 else light * (1 + amount)
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, light, saturation))


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the reports, and show nothing on a screen."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names may be in any script
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # names may be too long
        yield


def new_figure(height: float, *, width: float = WIDTH) -> "Figure":
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def picture(figure: "Figure", alt: str, *, dots: bool = False, trim: bool = False) -> Picture:
    """A figure as SVG, or as PNG where it has thousands of `dots`; equal figures give equal bytes.

    `trim` cuts off what is empty, for figures whose size follows their names.
    """
    buffer = io.BytesIO()
    if dots:
        figure.savefig(buffer, format="png", metadata={"Software": None})
        return Picture(_fewer_colours(buffer), alt, figure.get_figwidth() * 96)
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing, bbox_inches="tight" if trim else None, pad_inches=0.06)
    width = re.search(rb'width="([\d.]+)pt"', buffer.getvalue())
    assert width is not None
    return Picture(buffer.getvalue(), alt, float(width[1]) * 96 / 72)


def _fewer_colours(png: io.BytesIO) -> bytes:
    """The same picture with 256 colours at most: a third of the bytes."""
    from PIL import Image

    smaller = io.BytesIO()
    Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


_NAMES = {
    "thinning_25_accuracy": "Labels right, 25 % of the counts",
    "panel_1000_accuracy": "Labels right, 1,000 genes",
}


def words(name: str) -> str:
    """The name of a metric for a reader: `knn_macro_f1` is `k-NN macro F1`."""
    if name in _NAMES:
        return _NAMES[name]
    parts = [_ABBREVIATIONS.get(part, part) for part in name.replace("-", " ").split("_")]
    text = " ".join(parts)
    return text if parts[0] in _ABBREVIATIONS.values() else text[:1].upper() + text[1:]


def short(text: object, length: int = 26) -> str:
    """One line of at most `length` letters; the middle is left out, as ends of names often differ."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    keep = length - 1
    return (
        line if len(line) <= length else f"{line[: (keep + 1) // 2].rstrip()}…{line[len(line) - keep // 2 :].lstrip()}"
    )


def between(names: Sequence[str]) -> str:
    """Names as a sentence has them: a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def draw_point(axes: "Axes", x: float, y: float, look: Look, **more: Any) -> None:
    """One marker of an embedding."""
    options = {"s": 26, "zorder": 3, "linewidths": 1.0} | more
    axes.scatter([x], [y], marker=look.marker, facecolor=look.face, edgecolor=look.colour, **options)
