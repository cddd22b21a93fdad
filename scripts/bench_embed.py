"""`uce embed` beside the published program written plainly (`plain_uce.py`): the same model and cells, file to file.

    python scripts/bench_embed.py --cells human.h5ad --json speed.json --markdown speed.md
    python scripts/bench_embed.py --cells human.h5ad --mini

The model has the published four layers and sizes, random weights and random gene vectors, 5,120 wide. Each program is a
process of its own; within a round they take turns, and a ratio is taken within its round. What starting takes is the
time of the same program for the first cell alone, run beside it. `uce embed` also embeds a few of the cells a
second time, to judge its result: that is in its time and not in the cells.

Then, in one process, the sentences of `uce` go through both encoders without padding: how far are the vectors apart,
and how quick is each encoder alone? The yardstick of the distances is the same cell drawn a second time.

With --mini: seconds of `uce embed` with the bundled model, and how many of them are not encoding.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uce.jobs import Job

SPECIES, ENCODER, WIDTH = "homo_sapiens", "random-5120", 5120
PLAIN = "plain reference"
COMPARED, SENTENCE = 32, 1075  # cells of the accuracy check; tokens of a human sentence, for the arithmetic
PRODUCT = (4300, 1280, 5120)  # four sentences through a feed-forward
PRODUCTS = {PLAIN: ("float32", False), "fp32": ("float32", True), "bf16": ("bfloat16", True)}  # numbers, packed weights


@dataclass(frozen=True)
class Run:
    """A process: seconds by the clock and of processor time, peak megabytes."""

    seconds: float
    processor_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Turn:
    """A program's part of a round: the file of all cells and that of one."""

    program: str
    cells: int
    whole: Run
    start: Run

    @property
    def rates(self) -> dict[str, float]:
        """Cells per second: from file to file, of the cells behind the first, and of those by processor time."""
        whole, start = self.whole, self.start
        clock, processor = whole.seconds - start.seconds, whole.processor_seconds - start.processor_seconds
        if min(clock, processor) <= 0:
            raise SystemExit(f"{self.program}: {self.cells} cells took no longer than one; give more cells (--n).")
        return {
            "file to file": self.cells / whole.seconds,
            "after the start": (self.cells - 1) / clock,
            "after the start, by processor time": (self.cells - 1) / processor,
        }


# What is embedded, by what


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a process of its own: a child's peak memory starts at its parent's, so this one stays small."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def make_table(home: Path) -> None:
    """The human genes with random vectors in the user's folder `home`, unless they are there."""
    import numpy as np

    from uce.genes.bundled import load_bundled
    from uce.genes.tables import write_table

    path = home / "genes" / ENCODER / f"{SPECIES}.h5ad"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        table = load_bundled(SPECIES)
        vectors = np.random.default_rng(0).standard_normal((len(table), WIDTH), np.float32)
        write_table(replace(table, encoder=ENCODER, vectors=vectors), path)


def make_model(folder: Path, draws: int, max_tokens: int) -> Path:
    """The published four-layer model with random weights, unless it is there."""
    import numpy as np
    import torch

    from uce.cells.sentences import SentenceRule
    from uce.model.checkpoint import save_model
    from uce.model.encoder import Encoder, ModelConfig

    path = folder / f"random-4l-{draws}"
    if not path.exists():
        torch.manual_seed(0)
        specials = np.random.default_rng(0).standard_normal((4, WIDTH)).astype(np.float32)
        specials[0] = 0  # padding
        save_model(
            path,
            encoder=Encoder(ModelConfig(max_tokens=max_tokens)),
            rule=SentenceRule(draws=draws, max_tokens=max_tokens),
            specials=specials,
            gene_encoder=ENCODER,
            gene_tables=[],
            info={"summary": "Random weights of the published size, for measuring."},
        )
    return path


def first_cells(source: Path, folder: Path, cells: int) -> Path:
    """A file of the first cells of another, counts and names alone, unless it is there."""
    import anndata
    import pandas as pd

    path = folder / f"{source.stem}-{cells}.h5ad"
    if not path.exists():
        read = anndata.read_h5ad(source)
        if read.n_obs < cells:
            raise SystemExit(f"{source}: {read.n_obs:,} cells; give --n {read.n_obs} at most, or a larger file.")
        few = anndata.AnnData(
            read.X[:cells], obs=pd.DataFrame(index=read.obs_names[:cells]), var=pd.DataFrame(index=read.var_names)
        )
        few.write_h5ad(path)
    return path


# Whole programs, in turns


def run(words: list[str]) -> Run:
    """Run Python with these words, to its end."""
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"python {' '.join(words)}\nfailed: {errors.read().decode(errors='replace')[-1500:]}")
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def plain_words(model: Path, source: Path, output: Path) -> list[str]:
    """The plain reference's command."""
    script = Path(__file__).with_name("plain_uce.py")
    return [str(script), str(source), "-o", str(output), "--model", str(model), "--species", "human"]


def uce_words(model: Path | str, precision: str, source: Path, output: Path) -> list[str]:
    """The command of `uce embed`."""
    options = ["--model", str(model), "--species", "human", "--precision", precision, "--device", "cpu", "--overwrite"]
    return ["-m", "uce", "embed", str(source), "-o", str(output), *options]


def take_turns(
    programs: dict[str, Callable[[Path, Path], list[str]]], whole: Path, one: Path, cells: int, rounds: int
) -> list[list[Turn]]:
    """Rounds of one turn each."""
    output = whole.with_suffix(".out.h5ad")
    done = []
    for number, (name, words) in product(range(rounds), programs.items()):
        turn = Turn(name, cells, start=run(words(one, output)), whole=run(words(whole, output)))
        output.unlink()
        print(f"round {number + 1}, {name}: {turn.whole.seconds:.1f} s, {turn.start.seconds:.1f} s for one cell")
        done.append(turn)
    return [done[first : first + len(programs)] for first in range(0, len(done), len(programs))]


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and range."""
    found = sorted(values)
    return {"median": median(found), "least": found[0], "most": found[-1]}


def summarise(rounds: list[list[Turn]]) -> list[dict[str, Any]]:
    """A row per program: medians and ranges over the rounds, ratios to the first program within each."""
    rows = []
    for place, first in enumerate(rounds[0]):
        turns, references = ([turns[which] for turns in rounds] for which in (place, 0))
        rates, theirs = ([turn.rates for turn in some] for some in (turns, references))
        rows.append(
            {
                "program": first.program,
                "seconds": spread(turn.whole.seconds for turn in turns),
                "seconds_of_one_cell": spread(turn.start.seconds for turn in turns),
                "peak_mb": max(turn.whole.peak_mb for turn in turns),
                "peak_mb_of_one_cell": max(turn.start.peak_mb for turn in turns),
                "rates": {kind: spread(rate[kind] for rate in rates) for kind in first.rates},
                "times": {
                    kind: spread(ours[kind] / its[kind] for ours, its in zip(rates, theirs, strict=True))
                    for kind in first.rates
                },
            }
        )
    return rows


# The same sentences through both encoders, in one process


@contextmanager
def opened(model: Path, source: Path, precision: str) -> "Iterator[Job]":
    """A job of the package, ready to encode."""
    from uce.embedding import make_settings
    from uce.jobs import Request

    with Request(source, model, make_settings(0, 1, "auto", precision, "cpu"), species=SPECIES).open() as job:
        yield job


def chosen_precision(model: Path, source: Path) -> str:
    """What `--precision auto` is for this model here."""
    with opened(model, source, "auto") as job:
        return job.settings.precision


def by_engine(job: "Job", cells: int, first_replicate: int = 0) -> Any:
    """Vectors of the first cells by the package's own engine."""
    from uce.engines import embed_rows

    counts = job.counts.read(0, cells)
    return embed_rows(counts, job.readers, job.species[:cells], first_replicate=first_replicate).vectors


def plainly(job: "Job", model: Path) -> Callable[[int], Any]:
    """A function that sends the package's sentences of the first cells through the plain encoder."""
    import numpy as np
    import plain_uce
    import torch

    from uce import load_model
    from uce.cells.sentences import write_sentences
    from uce.genes.vocabulary import build_vocabulary, to_ranks

    (reader,) = job.readers.values()
    known, loaded = reader.vocabulary, load_model(model)
    plain = plain_uce.PlainUCE(loaded.config, loaded.encoder.state_dict())
    table = torch.from_numpy(build_vocabulary(reader.match.table, loaded.specials).vectors)

    def encode(cells: int) -> Any:
        ranked = to_ranks(job.counts.read(0, cells), reader.match.resolution.rows, known)
        written = write_sentences(ranked, known.gene_chromosomes, known.gene_keys, rule=loaded.rule)
        vectors = np.zeros((cells, loaded.config.out_dim), np.float32)
        for length in np.unique(written.lengths):
            (rows,) = np.nonzero(written.lengths == length)
            for some in np.array_split(rows, -(-len(rows) // plain_uce.BATCH)):
                tokens = torch.from_numpy(written.tokens[some, :length]).long()
                vectors[some] = plain_uce.encode(plain, table[tokens], torch.ones(tokens.shape)).numpy()
        return vectors

    return encode


def compare(model: Path, source: Path, cells: int, rounds: int) -> dict[str, Any]:
    """Distances of the package's vectors from the plain ones, and the rates of the encoders, who take turns."""
    import numpy as np

    def distance(one: Any, other: Any) -> dict[str, float]:
        cosines = np.einsum("ij,ij->i", *(a / np.linalg.norm(a, axis=1, keepdims=True) for a in (one, other)))
        return {"largest_difference": float(np.abs(one - other).max()), "least_cosine": float(cosines.min())}

    with ExitStack() as stack:
        jobs = {kind: stack.enter_context(opened(model, source, kind)) for kind in ("fp32", "bf16")}
        ways: dict[str, Callable[[int], Any]] = {PLAIN: plainly(jobs["fp32"], model)}
        ways |= {kind: partial(by_engine, job) for kind, job in jobs.items()}
        vectors = {way: encode(1) for way, encode in ways.items()}  # what happens once, happens here
        seconds, products = {way: list[float]() for way in ways}, dict.fromkeys(PRODUCTS, 0.0)
        for _ in range(rounds):
            for way, encode in ways.items():
                began = time.perf_counter()
                vectors[way] = encode(cells)
                seconds[way].append((time.perf_counter() - began) / cells)
            for way, (kind, packed) in PRODUCTS.items():
                products[way] = max(products[way], product_rate(kind, packed=packed))
        again = by_engine(jobs["fp32"], cells, first_replicate=1)
    return {
        "cells": cells,
        "fp32": distance(vectors["fp32"], vectors[PLAIN]),
        "bf16": distance(vectors["bf16"], vectors[PLAIN]),
        "another draw": distance(again, vectors["fp32"]),
        "seconds_a_cell": {way: spread(taken) for way, taken in seconds.items()},
        "times": {way: spread(np.divide(seconds[PLAIN], taken).tolist()) for way, taken in seconds.items()},
        "products_gflops": products,
    }


def product_rate(kind: str, *, packed: bool) -> float:
    """GFLOP/s of a bare matrix product of the encoder's size on all threads, the best of ten.

    By `linear` of torch, as in the plain encoder, or by oneDNN with the weights laid out for it beforehand.
    """
    import torch

    rows, inner, columns = PRODUCT
    tokens, weight = (torch.randn(shape).to(getattr(torch, kind)) for shape in ((rows, inner), (columns, inner)))
    multiply = partial(torch.nn.functional.linear, tokens, weight)
    if packed:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        multiply = partial(torch.ops.mkldnn._linear_pointwise, tokens, laid_out, None, "none", [], "")
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - began)
    return 2 * rows * inner * columns / best / 1e9


def work(tokens: int) -> dict[str, float]:
    """GFLOP a cell of the published four layers: all of it, and what is left if nothing is computed in vain.

    Not needed: projections (a table), the first layer's query, key and value (a table), the last layer and the decoder
    for other tokens than CLS.
    """
    dim, hidden, decoder = 1280, 5120, 1280 * 1024 + 1024 * 1280 + 2 * 1280 * 1280
    layer = 2 * tokens * (4 * dim * dim + 2 * dim * hidden) + 4 * tokens * tokens * dim
    whole = 2 * tokens * WIDTH * dim + 4 * layer + 2 * tokens * decoder
    return {"plain": whole / 1e9, "least": (3 * layer - 2 * tokens * 3 * dim * dim) / 1e9}


# What came out


def machine() -> dict[str, Any]:
    """The processor in words, its instructions for matrices, and what runs on it."""
    from uce.devices import processor_name

    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in words],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "torch": version("torch"),
    }


def tell(value: dict[str, float], form: str = ".1f") -> str:
    """Median and range in words."""
    return f"{value['median']:{form}} ({value['least']:{form}}-{value['most']:{form}})"


def goal(text: str, *, reached: bool) -> str:
    """A line of the verdict."""
    return f"- {'reached' if reached else 'NOT reached'}: {text}"


def report(facts: dict[str, Any]) -> str:
    """Everything in Markdown."""
    here, near, gflop = facts["machine"], facts["accuracy"], facts["gflop_a_cell"]
    rows = {row["program"]: row for row in facts["programs"]}
    lines = [
        f"{here['processor']}, {here['cores']} cores ({', '.join(here['instructions'])}), {here['memory_gb']} GB, "
        f"torch {here['torch']}; {facts['cells']:,} cells, {facts['rounds']} rounds, medians (ranges); `auto` is "
        f"{facts['auto']}.",
        "",
        "| program | seconds | for one cell | cells/s | after the start | peak MB | for one cell |",
        "| --- " * 7 + "|",
    ]
    for name, row in rows.items():
        told = [tell(row["seconds"]), tell(row["seconds_of_one_cell"])]
        told += [tell(row["rates"][kind], ".2f") for kind in ("file to file", "after the start")]
        told += [f"{row[key]:,.0f}" for key in ("peak_mb", "peak_mb_of_one_cell")]
        lines.append(f"| {name} | {' | '.join(told)} |")
    kinds = rows[PLAIN]["times"]
    lines += ["", f"| times as quick | {' | '.join(kinds)} |", "| --- " * (1 + len(kinds)) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(tell(times, '.2f') for times in row['times'].values())} |")
    lines += [
        "",
        f"The same {near['cells']} sentences, without padding, against the plain encoder in float32:",
        "",
        "| vectors | largest difference | least cosine |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {near[key]['largest_difference']:.1e} | {near[key]['least_cosine']:.7f} |"
            for name, key in (("float32", "fp32"), ("bfloat16", "bf16"), ("another draw (yardstick)", "another draw"))
        ),
        "",
        f"Encoders alone: a cell of {SENTENCE:,} tokens is {gflop['plain']:.0f} GFLOP plainly, {gflop['least']:.0f} if "
        "nothing is computed in vain.",
        "",
        "| encoder | seconds a cell | times | GFLOP a cell | GFLOP/s | bare product GFLOP/s | seconds a cell at that |",
        "| --- " * 7 + "|",
    ]
    for way, product_speed in near["products_gflops"].items():
        seconds = near["seconds_a_cell"][way]
        needed = gflop["plain"] if way == PLAIN else gflop["least"]
        told = [tell(seconds, ".2f"), tell(near["times"][way], ".2f"), f"{needed:.0f}"]
        told += [f"{needed / seconds['median']:,.0f}", f"{product_speed:,.0f}", f"{needed / product_speed:.2f}"]
        lines.append(f"| {way} | {' | '.join(told)} |")
    return "\n".join([*lines, "", *verdict(rows, near, gflop, facts["auto"]), ""])


def verdict(rows: dict[str, Any], near: dict[str, Any], gflop: dict[str, float], auto: str) -> list[str]:
    """Each goal, reached or not, and how far ten times is."""
    (exact, fast), near_exact = (rows[name]["times"] for name in ("uce fp32", "uce auto")), near["fp32"]
    times, slower, peak = fast["file to file"]["median"], exact["file to file"]["median"], rows["uce auto"]["peak_mb"]
    whole = near["seconds_a_cell"][PLAIN]["median"]
    floor = gflop["least"] / near["products_gflops"]["bf16"]
    return [
        goal(
            f"auto ({auto}) at least 5 times (8 aimed at), cosine at least .9995: {times:.2f} times, "
            f"{near[auto]['least_cosine']:.6f}",
            reached=times >= 5 and near[auto]["least_cosine"] >= 0.9995,
        ),
        goal(
            f"float32 at least 1.6 times, no difference above 1e-5: {slower:.2f} times, "
            f"{near_exact['largest_difference']:.1e}",
            reached=slower >= 1.6 and near_exact["largest_difference"] <= 1e-5,
        ),
        goal(f"peak below 2.5 GB: {peak / 1000:.2f} GB", reached=peak < 2500),
        f"- ten times: auto is at {times:.2f} from file to file, {fast['after the start']['median']:.2f} after the "
        f"start, its encoder alone at {near['times'][auto]['median']:.2f}. A plain cell takes {whole:.2f} s; "
        f"{gflop['least']:.0f} GFLOP at the rate of a bare bfloat16 product take {floor:.2f} s, so {whole / floor:.1f} "
        "times is the most that products of that rate allow here.",
    ]


def measure_mini(cells: Path, one: Path, n: int, rounds: int) -> str:
    """The bundled model: seconds for all cells, and those that are not encoding."""
    words = partial(uce_words, "uce-mini", "auto")
    turns = [turns[0] for turns in take_turns({"uce-mini": words}, cells, one, n, rounds)]
    whole, start = (spread(runs) for runs in zip(*((t.whole.seconds, t.start.seconds) for t in turns), strict=True))
    return "\n".join(
        [
            f"`uce embed` of {n:,} cells with uce-mini: {tell(whole)} s, of one cell {tell(start)} s.",
            "",
            goal(f"all within 30 s: {whole['median']:.1f} s", reached=whole["median"] < 30),
            goal(f"less than 5 s not encoding: {start['median']:.1f} s", reached=start["median"] < 5),
            f"- peak memory: {max(turn.whole.peak_mb for turn in turns):,.0f} MB",
            "",
        ]
    )


def measure_all(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The programs in turns, then the encoders."""
    apart(make_table, folder / "home")
    model = apart(make_model, folder, 1024, 1536)
    cells, one, few = (apart(first_cells, args.cells, folder, n) for n in (args.n, 1, min(args.n, COMPARED)))
    programs: dict[str, Callable[[Path, Path], list[str]]] = {PLAIN: partial(plain_words, model)}
    programs |= {f"uce {kind}": partial(uce_words, model, kind) for kind in ("fp32", "auto")}
    auto = apart(chosen_precision, model, one)
    if auto == "fp32":
        programs["uce bf16"] = partial(uce_words, model, "bf16")
    rounds = take_turns(programs, cells, one, args.n, args.rounds)
    return {
        "machine": machine(),
        "cells": args.n,
        "source": args.cells.name,
        "rounds": args.rounds,
        "auto": auto,
        "programs": summarise(rounds),
        "runs": [[asdict(turn) for turn in turns] for turns in rounds],
        "accuracy": apart(compare, model, few, min(args.n, COMPARED), args.rounds),
        "gflop_a_cell": work(SENTENCE),
    }


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, required=True, help=".h5ad of human cells with counts in X")
    parser.add_argument("--n", type=int, help="so many cells of it (100; with --mini 700)")
    parser.add_argument("--rounds", type=int, default=3, help="in which all take turns (3)")
    parser.add_argument("--folder", type=Path, help="keep model and files there, and use those that are there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed there")
    parser.add_argument("--mini", action="store_true", help="the bundled model instead, without a reference")
    args = parser.parse_args()
    args.n = args.n or (700 if args.mini else 100)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["UCE_HOME"] = str(folder / "home")
        if args.mini:
            cells, one = (apart(first_cells, args.cells, folder, n) for n in (args.n, 1))
            text = measure_mini(cells, one, args.n, args.rounds)
        else:
            facts = measure_all(args, folder)
            text = report(facts)
            if args.json:
                args.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"\n{text}")
    if args.markdown:
        args.markdown.write_text(text)


if __name__ == "__main__":
    main()
