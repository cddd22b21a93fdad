"""The page of an evaluation: complete, escaped, offline, the same twice, and fine in a real browser."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.evaluation.cells import Cells
from uce.evaluation.embeddings import Embedding
from uce.evaluation.report import page as html
from uce.evaluation.report import write_report
from uce.evaluation.report.figures import categorical, looks, new_figure, short, style, words
from uce.evaluation.report.figures_labels import clustered
from uce.evaluation.report.figures_names import near_labels
from uce.evaluation.report.figures_scores import dot_plot
from uce.evaluation.report.maps import Categories, draw_map
from uce.evaluation.results import NAN, EvalResult, Row, Score, unavailable

NASTY = "<script>alert('x')</script> T/B cell $\\alpha$ “CD4⁺” 細胞 " + "very long name " * 6
LABELS = ["B cell", "CD4+ T cell", "CD8+ T cell", "NK cell", "Monocyte", "Platelet", NASTY]
KINDS = {
    "uce-mini": "own", "X_other": "given", "pca": "baseline", "hvg": "baseline", "mean-genes": "baseline",
    "scvi": "baseline", "oracle": "control", "random": "control", "shuffled": "control",
}  # fmt: skip
QUALITY = {"uce-mini": 0.8, "X_other": 0.7, "pca": 0.75, "hvg": 0.72, "mean-genes": 0.6, "oracle": 0.99, "random": 0.1,
           "shuffled": 0.09}  # fmt: skip
TASK_METRICS: dict[str, Any] = {
    "scib": [("isolated_labels", "bio"), ("kmeans_nmi", "bio"), ("kmeans_ari", "bio"), ("silhouette_label", "bio"),
             ("clisi", "bio"), ("bras", "batch"), ("ilisi", "batch"), ("kbet", "batch"),
             ("graph_connectivity", "batch"),
             ("pcr_comparison", "batch"), ("scib_bio", "bio"), ("scib_batch", "batch"), ("scib_total", "total")],
    "cilisi": [("cilisi", "batch")],
    "scgraph": [("scgraph_weighted", "structure"), ("scgraph_rank", "structure")],
    "transfer": [("knn_macro_f1", "transfer"), ("logistic_macro_f1", "transfer"), ("knn_accuracy", "transfer")],
    "calibration": [("knn_ece", "calibration")],
    "unseen": [("unseen_auroc", "unseen")],
    "robustness": [("thinning_25_accuracy", "robustness")],
    "collapse": [("effective_rank", "collapse"), ("mean_cosine", "collapse")],
    "cross": [("cross_macro_f1", "cross")],
}  # fmt: skip
HEADLINE = {"scib_bio", "scib_batch", "cilisi", "scgraph_weighted", "knn_macro_f1", "knn_ece", "unseen_auroc",
            "thinning_25_accuracy", "effective_rank", "cross_macro_f1"}  # fmt: skip
pytestmark = pytest.mark.usefixtures("quick_maps")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def make_rows(rng: np.random.Generator) -> tuple[Row, ...]:
    """Every status occurs."""
    rows = []
    for name, kind in KINDS.items():
        for task, metrics in TASK_METRICS.items():
            if task == "robustness" and kind != "own":
                continue
            scores = [make_score(name, metric, family, rng) for metric, family in metrics]
            if name == "scvi":
                scores = list(unavailable(metrics, "skipped", "needs scvi-tools: pip install scvi-tools"))
            rows += [Row(name, kind, task, score) for score in scores]
    return tuple(rows)


def make_score(name: str, metric: str, family: Any, rng: np.random.Generator) -> Score:
    value = float(np.clip(QUALITY.get(name, 0.5) + rng.normal(0, 0.04), 0, 1))
    if metric == "effective_rank":
        value *= 50
    if metric == "kbet" and name == "X_other":
        return Score(metric, NAN, family, status="failed", note="ValueError: <b>no</b> neighbours & no hope")
    if metric == "scib_batch" and name == "X_other":
        return Score(metric, NAN, family, status="undefined", note="kbet is missing", headline=True)
    doubtful = (metric, name) == ("logistic_macro_f1", "hvg")
    suspect: Any = {"status": "suspect", "note": "did not converge"} if doubtful else {}
    better: Any = "lower" if metric.endswith("ece") else "higher"
    interval = {"low": value - 0.03, "high": value + 0.04} if family == "transfer" else {}
    return Score(
        metric, value, family, better=better, n_cells=400, n_groups=6, n_labels=len(LABELS), seconds=0.5,
        headline=metric in HEADLINE, **suspect, **interval,
    )  # fmt: skip


def make_cells(rng: np.random.Generator, n: int = 400, labels: tuple[str, ...] = tuple(LABELS)) -> Cells:
    share = np.linspace(2, 0.2, len(labels))
    groups = np.array([f"donor {i % 6 + 1}" for i in range(n)])
    kinds = rng.choice(labels, n, p=share / share.sum())
    return Cells("lung & <b>airway</b>", np.array([f"c{i}" for i in range(n)], dtype=object), kinds, groups, groups)


def make_embeddings(cells: Cells, rng: np.random.Generator) -> list[Embedding]:
    codes = np.unique(cells.labels, return_inverse=True)[1]
    made = []
    for name in ("uce-mini", "X_other", "pca", "oracle"):
        vectors = rng.standard_normal((len(cells), 12)) + 4 * rng.standard_normal((codes.max() + 1, 12))[codes]
        kind: Any = KINDS[name]
        made.append(Embedding(name, vectors.astype(np.float32), kind))
    there = np.arange(len(cells)) >= 5
    made[1] = replace(made[1], vectors=made[1].vectors[there], rows=np.flatnonzero(there), left_out=5)
    return made


def make_details(rng: np.random.Generator, labels: tuple[str, ...] = tuple(LABELS)) -> dict[str, Any]:
    judged = list(QUALITY)
    return {
        "scib": {name: {"isolated_labels": [NASTY], "kbet_skipped": ["Platelet"], "effective_batches": 2.1,
                        "version": "0.5.10", "notes": ["k-means by scikit-learn."]} for name in judged},
        "cilisi": {name: {"labels": [{"label": label, "cilisi": rng.random(), "ceiling": 0.8, "cells": 50 - 3 * i}
                                     for i, label in enumerate(labels)],
                          "skipped": [{"label": "Mast cell", "reason": "6 cells"}]} for name in judged},
        "transfer": {name: make_transfer(rng, labels, QUALITY[name]) for name in judged},
        "calibration": {name: make_calibration(QUALITY[name]) for name in judged},
        "unseen": {name: {"score": "relative_distance", "labels": [
            {"label": label, "cells": 90 - 9 * i, "auroc": QUALITY[name] - 0.02 * i, "aupr": 0.5, "fpr95": 0.4,
             "called": {labels[(i + 1) % len(labels)]: 0.7, labels[(i + 2) % len(labels)]: 0.3}}
            for i, label in enumerate(labels[:6])]} for name in judged},
        "robustness": {"uce-mini": {
            "curves": {
                "thinning": [{"level": level, "cosine": 0.5 + level / 200, "overlap": 0.3 + level / 160,
                              "accuracy": 0.6 + level / 400, "mean_genes_accuracy": 0.5 + level / 400}
                             for level in (100, 75, 50, 25, 10, 5)],
                "panel": [{"level": level, "cosine": 0.9, "overlap": 0.6, "accuracy": 0.8} for level in (5000, 500)],
                "dropout": [{"level": level, "cosine": 0.9, "overlap": None, "accuracy": 0.8} for level in (1, 5, 10)]},
            "checks": [{"name": "column_shuffle", "passed": True, "value": 1e-7, "note": ""},
                       {"name": "company", "passed": False, "value": 0.2, "note": "depends on its company"},
                       {"name": "precision", "passed": None, "value": 0.001, "note": "bf16"}],
            "noise_floor": {"cosine": 0.957, "label_flips": 0.01}}},
        "collapse": {name: {"spectrum": list(1 - 0.9 ** np.arange(1, 51)),
                            "gates": ["raw mean cosine 0.95"] * (name == "hvg"),
                            "cosine_histogram": make_histogram(QUALITY[name])} for name in judged},
        "cross": {name: {
            "directions": [{"from": "human", "to": "mouse <i>", "labels": list(labels), "per_label": [],
                            "macro_f1": 0.6, "confusion": make_confusion(rng, len(labels), 0.6)}],
            "retrieval": [{"label": "B cell", "rank": 1}],
            "overcorrection": [{"check": "absorbed", "value": 0.4, "verdict": "over-corrected", "note": "Platelet"}]}
            for name in judged},
    }  # fmt: skip


def make_histogram(shift: float) -> dict[str, list[float]]:
    edges = np.linspace(-1, 1, 41)
    middle = (edges[:-1] + edges[1:]) / 2
    return {"edges": list(edges), "raw": list(np.exp(-((middle - shift + 0.3) ** 2) / 0.02)),
            "centred": list(np.exp(-(middle**2) / 0.05))}  # fmt: skip


def make_confusion(rng: np.random.Generator, n: int, right: float) -> list[list[int]]:
    counts = rng.multinomial(60, [1 / n] * n, size=n) * (1 - right) + 60 * right * np.eye(n)
    return [[int(value) for value in row] for row in counts]


def make_transfer(rng: np.random.Generator, labels: tuple[str, ...], right: float) -> dict[str, Any]:
    probe = {
        "labels": list(labels),
        "confusion": make_confusion(rng, len(labels), right),
        "per_label": [{"label": label, "support": 100 - 9 * i, "precision": right, "recall": right,
                       "f1": right - 0.02 * i}
                      for i, label in enumerate(labels)],
        "per_group": [{"group": f"donor {i}", "macro_f1": right - 0.03 * i, "accuracy": right, "cells": 60}
                      for i in range(6)],
    }  # fmt: skip
    return {"split": "donors, five folds", "watermark": False, "probes": {"knn": probe, "logistic": probe}}


def make_calibration(right: float) -> dict[str, Any]:
    bins = [{"confidence": 0.1 * i + 0.05, "accuracy": right * (0.1 * i + 0.05), "count": 5 * i} for i in range(10)]
    curve = [{"coverage": 0.05 * i, "accuracy": 1 - (1 - right) * 0.05 * i} for i in range(1, 21)]
    return {"knn": {"before": {"bins": bins}, "after": {"bins": bins}, "coverage": curve, "coverage_at_95": 0.4}}


def make_result(seed: int = 0) -> tuple[EvalResult, Cells, list[Embedding]]:
    rng = np.random.default_rng(seed)
    cells = make_cells(rng)
    comparisons = tuple(
        {"metric": "knn_macro_f1", "first": "uce-mini", "other": other, "difference": gap, "median": gap,
         "low": gap - 0.03, "high": gap + 0.03, "share_above": 0.9, "p": 0.04, "p_holm": 0.08, "n_cells": 400,
         "n_groups": 6, "by": "group", "verdict": verdict, "note": ""}
        for other, gap, verdict in (("X_other", 0.1, "better"), ("pca", 0.01, "tie"), ("mean-genes", 0.2, "better"))
    )  # fmt: skip
    entries = tuple(
        {"name": name, "kind": kind, "title": f"what {name} is", "status": "ok", "note": "", "dim": 12, "cells": 400,
         "left_out": 5 if name == "X_other" else 0, "transductive": name == "scvi", "seconds": 1.5, "record": {}}
        for name, kind in KINDS.items()
    )  # fmt: skip
    facts = {"name": cells.name, "file": "lung.h5ad", "columns": {"label": "cell_type", "batch": "donor"}, "cells": 500,
             "without_label": 90, "lacking": {"donor": 10}, "labels": len(LABELS), "groups": 6, "batches": 6,
             "judged": 400, "subsamples": 1, "cells_of_one": 400, "species": "human"}  # fmt: skip
    leak = {"status": "unknown", "note": "no manifest", "rows": [{"manifest": "corpus", "dataset": "lung <atlas>"}]}
    environment = {"uce": "0.1.0", "packages": {"numpy": "2"}, "settings": {"max_cells": 20000, "seeds": 3, "seed": 0},
                   "seconds_by_task": {"uce-mini": {"scib": 3.5}}}  # fmt: skip
    banners = ("the control random is on the wrong side <in> bio",)
    result = EvalResult(make_rows(rng), make_details(rng), {}, comparisons, facts, entries, leak, banners, environment)
    return result, cells, make_embeddings(cells, rng)


@pytest.fixture(scope="module")
def quick_maps() -> Any:
    """UMAPs are tested where they are made; here any coordinates do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uce.evaluation.report.sections_checks.umap_coordinates", lambda vectors, seed: vectors[:, :2])
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, quick_maps: None) -> Path:
    """A report of everything there is."""
    folder = tmp_path_factory.mktemp("report")
    result, cells, embeddings = make_result()
    result.write(folder)
    return write_report(result, cells, embeddings, folder / "report.html")


def small(result: EvalResult, **changes: Any) -> EvalResult:
    """With the two cheapest tasks only."""
    rows = tuple(row for row in result.rows if row.task in ("cilisi", "collapse"))
    return replace(result, **{"rows": rows, "details": {}, "comparisons": (), **changes})


class Parsed(HTMLParser):
    """Elements with their attributes, and the entries of every table: id -> rows of (text, value)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[list[Any]]]] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        self._open.append(tag)
        rows = next(reversed(self.tables.values()), [])
        if tag == "table":
            self.tables[str(found["id"])] = []
        elif tag == "tr":
            rows.append([])
        elif tag in ("td", "th"):
            rows[-1].append(["", found.get("data-value")])

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open[-2:]) and "small" not in self._open[-2:]:
            next(reversed(self.tables.values()))[-1][-1][0] += data
        if not {"script", "style"} & set(self._open[-2:]):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag]


@pytest.fixture(scope="module")
def parsed(report: Path) -> Parsed:
    return Parsed(report)


def test_nothing_is_loaded_from_anywhere(report: Path, parsed: Parsed) -> None:
    addresses = [
        str(found[key]) for _, found in parsed.elements for key in ("src", "href", "data", "srcset") if key in found
    ]
    assert len(addresses) > 20
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not re.search(r"url\(|@import", report.read_text(encoding="utf-8"))
    policy = next(found["content"] for found in parsed.all("meta") if "http-equiv" in found)
    assert str(policy).startswith("default-src 'none'; img-src data:")
    for image in parsed.all("img"):
        kind, content = str(image["src"]).split(";base64,")
        if kind.endswith("svg+xml"):
            links = re.findall(r'href="([^"]*)', base64.b64decode(content).decode())
            assert all(link.startswith(("#", "data:")) for link in links)


def test_every_picture_says_what_it_shows(parsed: Parsed) -> None:
    images = parsed.all("img")
    assert len(images) >= 30
    assert all(len(str(image["alt"])) > 40 for image in images)
    told = next(str(image["alt"]) for image in images if str(image["alt"]).startswith("Dot plot of k-NN macro F1"))
    assert "scvi skipped" in told
    assert re.search(r"uce-mini 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)", told)


def test_the_headline_table_is_that_of_results_json(report: Path, parsed: Parsed) -> None:
    scores = json.loads((report.parent / "results.json").read_text(encoding="utf-8"))["scores"]
    metrics = [metric for metric in dict.fromkeys(s["metric"] for s in scores) if metric in HEADLINE]
    head, *body = parsed.tables[html.identifier("Headline scores")]
    assert [text for text, _ in head] == ["embedding", "kind", *map(words, metrics)]
    assert [row[0][0] for row in body] == list(KINDS)
    by_name = {(s["embedding"], s["metric"]): s for s in scores}
    for row in body:
        for metric, (text, value) in zip(metrics, row[2:], strict=True):
            score = by_name.get((row[0][0], metric))
            if score is None or score["value"] is None:
                assert value == ""
                assert text == ("–" if score is None else score["status"])
            else:
                assert float(value) == score["value"]
                assert text == html.number(score["value"])


def test_what_data_call_themselves_is_text(report: Path, parsed: Parsed) -> None:
    assert len(parsed.all("script")) == 1
    assert not re.search(r"<script>alert|<b>no|<i>|<in>|<atlas>|<b>airway", report.read_text(encoding="utf-8"))
    for said in (NASTY.strip(), "lung & <b>airway</b>", "ValueError: <b>no</b> neighbours & no hope", "lung <atlas>"):
        assert said in parsed.text


def test_statuses_are_named_with_their_reason(parsed: Parsed) -> None:
    for said in (
        "scvi has no numbers. Skipped: needs scvi-tools: pip install scvi-tools",
        "X_other: kBET failed: ValueError: <b>no</b> neighbours & no hope",
        "X_other: scIB batch undefined: kbet is missing",
        "hvg: Logistic macro F1 suspect: did not converge",
        "the control random is on the wrong side <in> bio",
        "hvg: raw mean cosine 0.95",
        "Whether the model was trained on these cells is not known: no manifest.",
        "a tie with PCA (difference 0.010; 95 % interval −0.020 to 0.040)",
        "better than the mean of gene vectors (difference 0.200; 95 % interval 0.170 to 0.230)",
    ):
        assert said in parsed.text


def test_a_section_stands_where_its_task_was_asked(tmp_path: Path) -> None:
    result, cells, _ = make_result()
    scores = unavailable(TASK_METRICS["transfer"], "skipped", "one donor")
    rows = [Row("uce-mini", "own", "transfer", score) for score in scores]
    kept = tuple(row for row in small(result).rows if row.embedding in ("uce-mini", "pca"))
    asked = small(result, rows=(*kept, *rows))
    text = Parsed(write_report(asked, cells, [], tmp_path / "report.html")).text
    assert "Labels carried to held-out donors" in text
    assert "everything skipped: one donor" in text
    assert "Types the reference lacks" not in text
    assert "Biology kept, batches mixed" not in text
    assert "Maps" not in text
    assert "No paired comparison could be made" in text


def test_where_nothing_can_be_drawn_the_first_section_says_why(tmp_path: Path) -> None:
    result, cells, _ = make_result()
    lone = "one shared label (B cell): every answer is right"
    rows = tuple(
        Row(
            name,
            KINDS[name],
            "cross",
            Score("cross_knn_f1_forward", NAN, "cross", status="undefined", note=lone, headline=True),
        )
        for name in ("uce-mini", "pca")
    )
    page = write_report(small(result, rows=rows), cells, [], tmp_path / "report.html").read_text(encoding="utf-8")
    first = page[page.index("All rows at a glance</h2>") : page.index("</section>")]
    assert "<img" not in first
    assert f"Cross k-NN F1 forward: undefined, {lone}." in first


def test_scores_without_cells_trained_on_stand_beside_the_full_ones(tmp_path: Path) -> None:
    result, cells, _ = make_result()
    extra = tuple(
        Row(name, KINDS[name], "transfer", Score(f"{probe}_macro_f1_not_trained_on", value, "transfer"))
        for name, value in (("uce-mini", 0.25), ("pca", 0.5))
        for probe in ("knn", "logistic")
    )
    written = write_report(replace(result, rows=(*result.rows, *extra)), cells, [], tmp_path / "report.html")
    (rows,) = (rows for name, rows in Parsed(written).tables.items() if name.startswith("with-and-without-the-cells"))
    assert [row[0][0] for row in rows[1:]] == ["uce-mini", "pca"]
    assert [float(row[2][1]) for row in rows[1:]] == [0.25, 0.5]


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    pages = []
    for name in ("a.html", "b.html"):
        result, cells, embeddings = make_result()
        details = {"collapse": result.details["collapse"]}
        pages.append(write_report(small(result, details=details), cells, embeddings[1:2], tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    result, cells, embeddings = make_result(seed=1)
    assert write_report(small(result), cells, [], tmp_path / "c.html").read_bytes() != pages[0]


def test_many_labels_and_no_batch(tmp_path: Path) -> None:
    result, _, _ = make_result()
    rng = np.random.default_rng(3)
    labels = tuple(f"type {i:02d}" for i in range(70))
    cells = replace(make_cells(rng, 600, labels), batches=None)
    embeddings = make_embeddings(cells, rng)[:1]
    details = {"transfer": {"uce-mini": make_transfer(rng, labels, 0.9)}}
    rows = tuple(row for row in result.rows if row.task == "transfer" and row.embedding == "uce-mini")
    page = Parsed(write_report(small(result, rows=rows, details=details), cells, embeddings, tmp_path / "report.html"))
    assert f"{len(set(cells.labels)) - 40} more" in page.text
    assert "uce-mini, by label" in page.text
    assert "by batch" not in page.text.lower()
    told = [str(image["alt"]) for image in page.all("img")]
    assert any(text.startswith("Heat map, uce-mini") for text in told)
    assert any(text.startswith("F1 of every label (the largest 60 of 70)") for text in told)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.64349, "0.643"), (NAN, "–"), (None, "–"), (12034, "12,034"), (-0.02, "−0.020"), (0.00004, "4.0e−05"),
     (38.48, "38.5"), (np.float32(0.5), "0.500"), (np.int64(7), "7"), (0.0, "0.000"), ("T/B", "T/B"), (True, "True")],
)  # fmt: skip
def test_numbers_read_well(value: object, shown: str) -> None:
    assert html.number(value) == shown


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.text(max_size=80), st.integers(2, 40))
def test_any_text_comes_back_as_it_was(text: str, name: str, length: int) -> None:
    found = Fragment(html.table("A table", ["name", "value"], [[text, 1.5]]))
    assert found.cells[2:] == [text, "1.500"]
    assert len(short(name, length)) <= length
    assert re.fullmatch(r"[a-z0-9-]+", html.identifier("x" + name))


class Fragment(HTMLParser):
    """The texts of the entries of one table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th"):
            self.cells.append("")
        self._inside = tag in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


def test_every_look_is_its_own() -> None:
    found = looks(KINDS | {f"baseline {i}": "baseline" for i in range(4)})
    assert len({(look.colour, look.marker) for name, look in found.items() if KINDS.get(name) != "control"}) == 10
    assert not found["oracle"].filled
    assert found["pca"].face == found["pca"].colour
    colours = categorical(40)
    assert len(set(colours)) == 40
    assert all(html.ink_on(colour) in ("#000000", "#ffffff") for colour in colours)


def test_labels_that_are_mistaken_for_each_other_stand_together() -> None:
    counts = 100 * np.eye(6)
    for i, j in ((0, 5), (1, 3), (2, 4)):
        counts[i, j] = counts[j, i] = 60
    order = list(clustered(counts))
    assert sorted(order) == list(range(6))
    assert all(abs(order.index(i) - order.index(j)) == 1 for i, j in ((0, 5), (1, 3), (2, 4)))


def test_maps_stay_small_and_number_their_labels() -> None:
    rng = np.random.default_rng(5)
    labels = np.array([f"type {i:02d}" for i in rng.integers(0, 45, 5000)])
    points = rng.standard_normal((5000, 2)).astype(np.float32)
    points[:10] = np.nan
    found = Categories(labels)
    assert len(found.names) == 40
    assert "5 more" in found.legend()
    assert list(found.counts) == sorted(found.counts, reverse=True)
    with style():
        drawn = draw_map(points, labels, found, title="worst", numbered=True, order=rng.permutation(5000))
    assert len(drawn.data) < 300_000  # twelve embeddings by label and batch, in base64: under 10 MB
    assert drawn.address.startswith("data:image/png;base64,")


def test_a_metric_that_nobody_has_is_drawn_with_its_reasons() -> None:
    scores = {"uce-mini": Score("cilisi", NAN, "batch", status="skipped", note="one batch")}
    drawn = dot_plot("cilisi", scores, looks({"uce-mini": "own"}))
    assert drawn.alt == "Dot plot of CiLISI. uce-mini skipped."
    assert drawn.data.startswith(b"<?xml")


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12), st.integers(1, 20))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_names_stand_beside_their_points_and_on_nothing_else(places: list[tuple[float, float]], length: int) -> None:
    with style():
        figure = new_figure(3.9, width=4.4)
        axes = figure.subplots()
        axes.set(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
        near_labels(axes, [(x, y, f"{i}".ljust(length, "n"), "#000000") for i, (x, y) in enumerate(places)])
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == len(places)
    for i, box in enumerate(boxes):
        assert axes.bbox.containsx(box.x0)
        assert axes.bbox.containsx(box.x1)
        assert not any(box.overlaps(other) for other in boxes[:i])


FRAME = """<!doctype html><iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>
<script>addEventListener("message", ({ data }) => {
  document.body.append(Object.assign(document.createElement("pre"), { textContent: data }));
});</script>"""
CATCH = """<head><script>
  window.errors = [];
  addEventListener("error", (event) => errors.push(String(event.message)));
</script>"""
CHECK = """
<script>addEventListener("load", () => {
  const wide = document.documentElement, found = { errors, inner: innerWidth };
  found.overflow = wide.scrollWidth - wide.clientWidth;
  found.images = document.images.length;
  found.empty = [...document.images].filter((image) => !image.naturalWidth || !image.clientWidth).length;
  const table = document.querySelector("table[id^=headline]"), heading = table.tHead.rows[0].cells[2];
  const values = () => [...table.tBodies[0].rows].map((row) => row.cells[2].dataset.value);
  heading.querySelector("button").click();
  found.up = values(); found.sorted = heading.getAttribute("aria-sort");
  heading.querySelector("button").click();
  found.down = values();
  const every = document.querySelector("table[id^=every-score]").closest(".table");
  const field = every.querySelector("input[type=search]");
  field.value = "kbet x_other"; field.dispatchEvent(new Event("input"));
  found.shown = [...every.querySelectorAll("tbody tr")].filter((row) => !row.hidden).length;
  let saved = null;
  URL.createObjectURL = (blob) => { saved = blob; return "#"; };
  table.closest(".table").querySelector(".tools button").click();
  saved.text().then((text) => parent.postMessage(JSON.stringify({ ...found, saved: text }), "*"));
});</script></body>"""


def browse(*options: str, page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *options]
    return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=300, check=True)


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to look at the page with")


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_it_fits_and_its_tables_work(report: Path, tmp_path: Path, width: int) -> None:
    text = re.sub(r"<meta http-equiv[^>]*>", "", report.read_text(encoding="utf-8"))
    text = text.replace("<head>", CATCH).replace("</body>", CHECK)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    frame = tmp_path / "frame.html"  # a window cannot be as narrow as a phone, a frame can
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    options = ("--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom")
    dom = browse(*options, page=frame, profile=tmp_path / "profile").stdout
    inner = re.search(r"<pre>(.*)</pre>", dom, re.DOTALL)
    assert inner is not None, dom[-2000:]
    found = json.loads(unescape(inner[1]))
    assert found["inner"] == width
    assert found["errors"] == []
    assert found["overflow"] <= 0
    assert found["images"] >= 30
    assert found["empty"] == 0
    there = [value for value in found["up"] if value]
    assert found["sorted"] == "ascending"
    assert [float(value) for value in there] == sorted(float(value) for value in there)
    assert found["up"][: len(there)] == there
    assert found["down"] == [*reversed(there), *[""] * (len(found["up"]) - len(there))]
    assert found["shown"] == 2
    lines = found["saved"].splitlines()
    assert lines[0].split("\t")[:3] == ["embedding", "kind", "scIB bio"]
    assert {line.split("\t")[0] for line in lines[1:]} == set(KINDS)


@needs_browser
def test_it_prints_and_the_console_stays_silent(report: Path, tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    options = ("--enable-logging=stderr", f"--print-to-pdf={pdf}")
    done = browse(*options, page=report, profile=tmp_path / "profile")
    assert "CONSOLE" not in done.stderr
    assert len(re.findall(rb"/Type /Page\b", pdf.read_bytes())) >= 5
