"""What a GPU does, in one call: the encoder, whole embeddings, the tokeniser, training, and memory that runs out.

    python scripts/bench_gpu.py --json gpu.json --markdown gpu.md
    python scripts/bench_gpu.py --device cpu --small --json small.json      # does everything run?

Weights, gene vectors (5,120 wide) and cells are random: nothing here depends on what they say. Shares of the peak (MFU)
are of products of large matrices measured on this device in the same call, not of a data sheet; operations are those
that the encoder as it stands carries out for these sentences. Each row is written as it is measured. The same call
again measures what is missing, and what failed for another reason than memory; so it may be interrupted.
"""

import argparse
import gc
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from csv import DictReader, DictWriter
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from bench_memory import simulate
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from uce.cells.counts import open_counts
from uce.cells.parts import BLOCK_CELLS
from uce.cells.sentences import SentenceRule, write_sentences
from uce.config import read_config
from uce.corpus.build import build_corpus
from uce.corpus.quality import SWITCHES, QualityRules
from uce.devices import Precision, pick_device, processor_name
from uce.errors import UsageError
from uce.genes.bundled import load_bundled
from uce.genes.collection import load_gene_table, table_path
from uce.genes.resolver import resolve
from uce.genes.tables import write_table
from uce.genes.vocabulary import build_vocabulary, to_ranks
from uce.model.checkpoint import save_model
from uce.model.encoder import Encoder, ModelConfig
from uce.model.inference import FirstBlock, first_block, prepare
from uce.training.corpus import open_corpus, special_vectors
from uce.training.costs import training_flops_per_token
from uce.training.counting import FLOP_COUNTS
from uce.training.loop import pretrain
from uce.training.records import read_metrics
from uce.training.settings import PretrainConfig

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
SPECIES, ENCODER = "homo_sapiens", "random-wide"
PARTS = ("peak", "encoder", "embed", "tokeniser", "training", "memory")
PRECISIONS = ("bf16", "tf32", "fp32")
ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
VOCABULARY = 20_000  # tokens of a species
NOT_OF_CPUS = {"tf32", "cudnn", "efficient"}
SCARCE = 4 << 30  # bytes that are left free to see how memory that runs out is borne
MOST_SECONDS = 240  # of one embedding
TOO_MANY = 1024  # cells of a batch that do not fit there


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    model: ModelConfig
    rule: SentenceRule
    matrix: int  # rows and columns of the matrices whose product is the peak
    length: int  # tokens of a sentence
    tokens: int  # of a usual batch
    block: int  # cells are simulated in multiples of it
    blocks: int  # of a long file, for a model of one layer
    cells: int  # of an update in training
    steps: int  # of training; the last third is told
    training: tuple[str, ...] = ()  # further settings


FULL = Size(ModelConfig(), SentenceRule(), 8192, 1075, 262_144, BLOCK_CELLS, 160, 128, 60)
SMALL = Size(
    ModelConfig(dim=64, heads=2, hidden=128, protein_dim=32, out_dim=64, decoder_dim=32, max_tokens=256),
    SentenceRule(draws=64, max_tokens=256),
    matrix=256,
    length=61,  # like no width: torch compiles anew where sizes that were equal are so no more
    tokens=18 * 61,
    block=264,
    blocks=8,
    cells=8,
    steps=6,
    training=("draws=64", "late_draws=64", "objective.queries=32", "objective.hidden=[16,8]"),
)


@dataclass(frozen=True)
class Case:
    """A way to run the encoder; `share` is of the usual batch.

    With `looked_up` the first block's queries, keys and values are gathered, as an embedding does it.
    """

    precision: str
    compiled: bool
    attention: str
    share: float = 1.0
    looked_up: bool = False

    @property
    def name(self) -> str:
        """All of it."""
        words = [self.precision, *["compiled"] * self.compiled, self.attention, f"{self.share:g}"]
        return ", ".join([*words, *["looked up"] * self.looked_up])


SHALLOW = (
    Case("fp32", False, "efficient"),
    Case("fp32", False, "math", 0.25),
    Case("tf32", False, "efficient"),
    Case("tf32", True, "efficient"),
    Case("bf16", False, "any"),
    *(Case("bf16", False, name) for name in ("flash", "cudnn", "efficient")),
    Case("bf16", False, "math", 0.25),
    *(Case("bf16", True, "flash", share) for share in (0.25, 0.5, 1.0, 2.0, 4.0)),
    *(Case("bf16", True, "cudnn", share) for share in (1.0, 2.0)),
    Case("bf16", True, "efficient"),
    *(Case("bf16", compiled, "any", looked_up=True) for compiled in (False, True)),
)
DEEP = (
    Case("tf32", True, "efficient"),
    Case("bf16", False, "any"),
    *(Case("bf16", True, "flash", share) for share in (0.5, 1.0, 2.0)),
    Case("bf16", True, "cudnn"),
    Case("bf16", True, "any", looked_up=True),
)


class Sheet:
    """Rows in the order they were measured, in a JSON file and as Markdown.

    Parameters
    ----------
    path, markdown
        Where to; None: nowhere.
    facts
        About the device and the libraries. Rows that another device or library has left are refused.
    """

    def __init__(self, path: Path | None, markdown: Path | None, facts: Row) -> None:
        self.path, self.markdown, self.facts = path, markdown, facts
        self.rows: list[Row] = []
        if path and path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["facts"] != facts:
                raise SystemExit(f"{path} holds rows of another device, version or size. Choose another --json.")
            self.rows = [row for row in found["rows"] if row.get("failed", "out of memory") == "out of memory"]

    def measure(self, part: str, name: str, function: Callable[[], Row]) -> None:
        """Add the row that `function` gives, unless there is one; an error becomes the row's `failed`."""
        if any((row["part"], row["name"]) == (part, name) for row in self.rows):
            return
        try:
            with warnings.catch_warnings():  # torch warns of each attention that it does not have
                warnings.simplefilter("ignore")
                row = function()
        except torch.cuda.OutOfMemoryError:
            row = {"failed": "out of memory"}
        except Exception as error:  # one row is not worth the others
            row = {"failed": (str(error).strip() or type(error).__name__).splitlines()[0][:200]}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.rows.append({"part": part, "name": name, **row})
        print(f"{part}: {name}: " + ", ".join(f"{key} {shown(value)}" for key, value in row.items()), flush=True)
        self.write()

    def write(self) -> None:
        """Both files as of now."""
        if self.path:
            content = {"facts": self.facts, "rows": self.rows, "goals": self.goals}
            self.path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if self.markdown:
            self.markdown.write_text(self.tables, encoding="utf-8")

    @property
    def goals(self) -> list[Row]:
        """What was to be reached and what was; none of tiny shapes."""
        return [] if self.facts.get("size") == "small" else goals(self.rows)

    @property
    def tables(self) -> str:
        """Markdown: a table for each part, and one of the goals."""
        lines = [", ".join(f"{name} {shown(value)}" for name, value in self.facts.items())]
        parts = {part: [row for row in self.rows if row["part"] == part] for part in PARTS} | {"goals": self.goals}
        for title, rows in parts.items():
            if rows:
                columns = [name for name in dict.fromkeys(key for row in rows for key in row) if name != "part"]
                lines += ["", f"## {title}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
                lines += [f"| {' | '.join(shown(row.get(name)) for name in columns)} |" for row in rows]
        return "\n".join(lines) + "\n"

    def peak(self, precision: str) -> float | None:
        """Measured operations a second."""
        found = [row["tflops"] * 1e12 for row in self.rows if row["part"] == "peak" and row["name"] == precision]
        return found[0] if found else None


class Workshop:
    """A folder in which everything that a row needs is made when it is first needed."""

    def __init__(self, folder: Path, size: Size, cells_folder: Path | None) -> None:
        self.folder, self.size, self.cells_folder = folder, size, cells_folder
        os.environ["UCE_HOME"] = str(folder / "home")

    @cached_property
    def encoder(self) -> str:
        """Kind of the gene vectors: random signs, as wide as the model reads, which are packed quickly."""
        table, path = load_bundled(SPECIES), table_path(SPECIES, ENCODER)
        path.parent.mkdir(parents=True, exist_ok=True)
        signs = np.random.default_rng(0).integers(0, 2, (len(table), self.size.model.protein_dim), dtype=np.int8)
        write_table(replace(table, encoder=ENCODER, vectors=(2 * signs - 1).astype(np.float32)), path)
        return ENCODER

    def model(self, layers: int) -> Path:
        """The folder of an untrained model."""
        folder = self.folder / f"{layers}-layers"
        if folder.exists():
            return folder
        torch.manual_seed(0)
        specials = special_vectors(self.size.model.protein_dim)
        return save_model(
            folder,
            encoder=Encoder(replace(self.size.model, layers=layers)),
            rule=self.size.rule,
            specials=specials,
            gene_encoder=self.encoder,
            gene_tables=[],
            info={},
        )

    def cells(self, blocks: int) -> tuple[Path, int]:
        """A file of simulated cells, and how many there are."""
        path, cells = self.folder / f"{blocks}-blocks.h5ad", blocks * self.size.block
        if not path.exists():
            simulate(path.with_suffix(".part"), cells)
            path.with_suffix(".part").rename(path)
        return path, cells

    @cached_property
    def corpus(self) -> Path:
        """Simulated cells, or the human ones of the list of training cells."""
        manifest, folder = self.folder / "manifest.csv", self.cells_folder or self.folder
        rows: list[dict[str, str]] = []
        if self.cells_folder:
            with (ROOT / "data_manifests" / "training_cells.csv").open(encoding="utf-8") as stream:
                rows = [row for row in DictReader(stream) if (row["species"], row["role"]) == (SPECIES, "train")]
        else:
            path, _ = self.cells(4)
            rows = [{"dataset": "simulated", "file": path.name, "species": SPECIES, "split": "train"}]
        with manifest.open("w", encoding="utf-8", newline="") as stream:
            writer = DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        rules = QualityRules(off=() if self.cells_folder else SWITCHES)
        build_corpus(manifest, self.folder / "corpus", folder=folder, encoder=self.encoder, rules=rules)
        return self.folder / "corpus"


def seconds_of(function: Callable[[], object], device: torch.device, *, most: float = 2.0) -> list[float]:
    """Of calls after two that are not told: at least three, and until `most` seconds are over."""
    seconds: list[float] = []
    for number in range(52):
        began = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds += [time.perf_counter() - began] if number >= 2 else []
        if len(seconds) >= 3 and sum(seconds) > most:
            break
    return seconds


@contextmanager
def multiplying(precision: str) -> Iterator[None]:
    """A context in which float32 is multiplied as TF32 where `precision` says so."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def memory_of(device: torch.device, row: Row) -> Iterator[None]:
    """A context that puts the most memory of the device it took into a row."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield
    row["peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def measure_peak(precision: str, size: int, device: torch.device) -> Row:
    """The best of several products of square matrices, ten at a time."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(10):
            a @ b

    with multiplying(precision):
        return {"matrix": size, "tflops": 20 * size**3 / min(seconds_of(multiply, device)) / 1e12}


@lru_cache
def cell_flops(config: ModelConfig, length: int, *, looked_up: bool = False) -> int:
    """Operations of `Encoder.encode` for a sentence, counted as it runs on tensors without numbers."""
    counter = FlopCounterMode(display=False, custom_mapping=FLOP_COUNTS)
    with FakeTensorMode(), torch.no_grad(), counter:
        known = torch.empty(1, length, 3 * config.dim) if looked_up else None
        Encoder(config).eval().encode(torch.empty(1, length, config.dim), qkv=known)
    return counter.get_total_flops()


@lru_cache(maxsize=1)
def ready(config: ModelConfig, device: torch.device, case: Case) -> tuple[Encoder, Tensor, FirstBlock | None]:
    """An encoder as an embedding runs it, and its tables of random tokens.

    It is compiled anew for each attention, which is part of what is compiled.
    """
    if case.compiled:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    with torch.device(device), torch.no_grad():
        encoder, projected = Encoder(config).eval(), torch.randn(VOCABULARY, config.dim)
        first = first_block(encoder, projected) if case.looked_up else None
    precision: Precision = "bf16" if case.precision == "bf16" else "fp32"
    return prepare(encoder, device, precision, compiled=case.compiled), projected, first


def measure_encoder(config: ModelConfig, case: Case, size: Size, device: torch.device, peak: float | None) -> Row:
    """Cells a second of sentences that are projected already."""
    cells = max(1, int(case.share * size.tokens) // size.length)
    encoder, projected, first = ready(config, device, replace(case, share=1.0))
    ids = torch.randint(VOCABULARY, (cells, size.length), device=device)

    def encode() -> Tensor:
        return encoder.encode(projected[ids], qkv=first(ids) if first else None)

    row: Row = {"layers": config.layers, "precision": case.precision, "compiled": case.compiled}
    row |= {"attention": case.attention, "tokens": cells * size.length}
    chosen: AbstractContextManager[None] = nullcontext()
    if case.attention != "any":
        chosen = sdpa_kernel(ATTENTION[case.attention])
    with torch.inference_mode(), multiplying(case.precision), chosen, memory_of(device, row):
        seconds = median(seconds_of(encode, device))
    rate = cell_flops(config, size.length, looked_up=case.looked_up) * cells / seconds
    row |= {"cells_per_second": cells / seconds, "tflops": rate / 1e12, "mfu": rate / peak if peak else None}
    if case.compiled:
        # Fewer than all: torch went on without for the rest.
        frames = torch._dynamo.utils.counters["frames"]
        row["graphs"] = f"{frames['ok']} of {frames['total']}"
    return row


def embed(shop: Workshop, layers: int, blocks: int, device: str, *options: str) -> tuple[int, float]:
    """Cells, and seconds of `uce embed` in a process of its own, from its start to its end."""
    model, (cells, number) = shop.model(layers), shop.cells(blocks)
    command = [sys.executable, "-m", "uce", "embed", str(cells), "--model", str(model), "--species", "human"]
    with tempfile.TemporaryDirectory(dir=shop.folder) as folder:
        where = ["-o", str(Path(folder) / "out.h5ad"), "--device", device]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, *where, *options], check=False, capture_output=True, text=True, timeout=MOST_SECONDS
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or ["it did not say why"]
        raise RuntimeError(f"uce embed ended with {done.returncode}: {why[0]}")
    return number, seconds


def measure_embed(shop: Workshop, layers: int, device: str, *options: str) -> Row:
    """Cells a second of a whole embedding, and without its start: those that a file has more than a short one."""
    few, short = embed(shop, layers, 1, device, *options)
    many, long = embed(shop, layers, max(2, shop.size.blocks // layers), device, *options)
    row: Row = {"layers": layers, "cells": many, "seconds": long, "cells_per_second": many / long}
    # Of a tiny model both may last as long.
    return row | {"steady_cells_per_second": (many - few) / (long - short) if long > short else None}


def measure_tokeniser(shop: Workshop) -> Row:
    """Cells a second of reading a file, and of writing the sentences of its cells."""
    table = load_gene_table("human")
    path, cells = shop.cells(8)
    vocabulary = build_vocabulary(table, special_vectors(table.dim))
    places, keys, rule = vocabulary.gene_chromosomes, vocabulary.gene_keys, shop.size.rule
    times = []
    with open_counts(path) as counts:
        rows = resolve(counts.var.index.tolist(), table).rows
        for start in range(0, cells, shop.size.block):
            began = time.perf_counter()
            block = counts.read(start, start + shop.size.block)
            read = time.perf_counter()
            write_sentences(to_ranks(block, rows, vocabulary), places, keys, rule=rule)
            times.append((read - began, time.perf_counter() - read))
    # Not of the first block, which pays for compiling.
    reading, writing = (shop.size.block / median(column) for column in zip(*times[1:], strict=True))
    return {"read_cells_per_second": reading, "cells_per_second": writing}


def measure_training(shop: Workshop, device: torch.device, peak: float | None, cells: int, *options: str) -> Row:
    """The last third of a short run of `configs/uce_4l.yaml`, with `cells` at a time."""
    size = shop.size
    shape = [f"model.{name}={value}" for name, value in asdict(size.model).items()]
    shape += [f"rule.{name}={value}" for name, value in asdict(size.rule).items()]
    steps = [f"steps={size.steps}", f"run.log_every={size.steps // 3}", "run.snapshot_every=1000000"]
    batch = [f"data.corpus={shop.corpus}", f"batch_size={cells}", "accumulate=1", "validation.every=0"]
    changes = [*shape, *steps, *batch, *size.training, *options]
    config = read_config(PretrainConfig, ROOT / "configs" / "uce_4l.yaml", overrides=changes)
    row: Row = {"cells_at_a_time": cells}
    if "run.compile=true" in options:
        torch._dynamo.reset()  # nothing is left of what other rows compiled
    with tempfile.TemporaryDirectory(dir=shop.folder) as run:
        with memory_of(device, row):
            pretrain(config, out=run)
        *_, last = read_metrics(Path(run))
    rates = {name: last[name] for name in ("cells_per_second", "tokens_per_second", "waiting", "padding")}
    flops = training_flops_per_token(config, open_corpus(config.data)) * last["tokens_per_second"]
    return row | rates | {"tflops": flops / 1e12, "mfu": flops / peak if peak else None}


def measure_scarce(shop: Workshop, layers: int, device: torch.device, *options: str) -> Row:
    """An embedding beside a process that has taken the memory of the GPU but for a little."""
    row: Row = {"layers": layers}
    taken = None
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        taken = torch.empty(max(0, free - SCARCE), dtype=torch.uint8, device=device)
        row["left_gb"] = SCARCE / 1e9
    cells, seconds = embed(shop, layers, 4, device.type, *options)
    del taken
    return row | {"cells": cells, "cells_per_second": cells / seconds}


def goals(rows: list[Row]) -> list[Row]:
    """What was to be reached, beside the best that was; `reached` is None where it was not measured."""

    def best(part: str, key: str, **where: object) -> float | None:
        fitting = (row for row in rows if row["part"] == part and where.items() <= row.items())
        return max((row[key] for row in fitting if row.get(key) is not None), default=None)

    encoder = best("encoder", "cells_per_second", layers=4, precision="bf16")
    tried = [row for row in rows if row["part"] == "memory"]
    finished = sum("failed" not in row for row in tried) / len(tried) if tried else None
    wanted = (
        ("33 layers, bf16: share of the measured peak", best("encoder", "mfu", layers=33, precision="bf16"), 0.6),
        ("33 layers, bf16: cells/s", best("encoder", "cells_per_second", layers=33, precision="bf16"), 300),
        ("4 layers, bf16: cells/s", encoder, 2500),
        ("4 layers, bf16, from file to vectors: cells/s", best("embed", "steady_cells_per_second", layers=4), 2500),
        ("sentences: cells/s, more than the encoder", best("tokeniser", "cells_per_second"), encoder or 2500),
        ("little memory: share of the embeddings that finished", finished, 1),
    )
    return [
        {"goal": name, "wanted": least, "measured": value, "reached": None if value is None else value >= least}
        for name, value, least in wanted
    ]


def shown(value: object) -> str:
    """A value as tables have it: three digits, or whole from a thousand on; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def describe(device: torch.device, *, small: bool) -> Row:
    """The device and the libraries."""
    facts: Row = {"device": processor_name(), "size": "small" if small else "full", "cores": os.cpu_count()}
    facts |= {"python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        properties = torch.cuda.get_device_properties(device)
        facts |= {"device": properties.name, "memory_gb": round(properties.total_memory / 1e9)}
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
        facts["driver"] = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split()[0]
    return facts


def measure(sheet: Sheet, shop: Workshop, device: torch.device, layers: list[int], parts: list[str]) -> None:
    """All rows of some parts; a share of the peak needs the part `peak` before it."""
    size = shop.size
    if "peak" in parts:
        for precision in PRECISIONS:
            sheet.measure("peak", precision, partial(measure_peak, precision, size.matrix, device))
    for count in layers:
        if "encoder" in parts:
            config = replace(size.model, layers=count)
            for case in SHALLOW if count <= 8 else DEEP:
                if device.type == "cpu" and not NOT_OF_CPUS.isdisjoint((case.precision, case.attention)):
                    continue
                work = partial(measure_encoder, config, case, size, device, sheet.peak(case.precision))
                sheet.measure("encoder", f"{count} layers, {case.name}", work)
            ready.cache_clear()
        if "embed" in parts:
            # One way for deep models, which take long; compiling on a CPU gains nothing.
            ways = [["--compile"], []] if device.type == "cuda" else [[]]
            for words in ways[: 1 if count > 8 else 2]:
                call = ["--precision", "bf16", *words]
                work = partial(measure_embed, shop, count, device.type, *call)
                sheet.measure("embed", f"{count} layers, {' '.join(call)}", work)
    if "tokeniser" in parts:
        sheet.measure("tokeniser", "reading and writing", partial(measure_tokeniser, shop))
    if "memory" in parts:
        for words in ([], ["--batch-size", str(TOO_MANY)]):
            call = ["--precision", "bf16", *words]
            sheet.measure("memory", " ".join(call), partial(measure_scarce, shop, min(layers), device, *call))
    if "training" in parts:
        less, quick = "run.recompute=true", "run.compile=true"
        for cells, *words in ((32,), (128,), (128, less), (128, quick), (512, less), (512, quick, less)):
            cells_at_a_time = max(2, cells * size.cells // 128)
            work = partial(measure_training, shop, device, sheet.peak("bf16"), cells_at_a_time, *words)
            sheet.measure("training", f"{cells_at_a_time} cells, {' '.join(words) or 'as it is'}", work)


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(cuda)")
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 33], help="of the encoders (4 33)")
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS), help="what to measure (all)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows there, and go on with what is there")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the tables there")
    parser.add_argument("--small", action="store_true", help="tiny shapes and files: to see that everything runs")
    parser.add_argument(
        "--cells-folder",
        type=Path,
        metavar="FOLDER",
        help="of data_manifests/training_cells.csv: train on its human cells",
    )
    args = parser.parse_args()
    try:
        device = pick_device(args.device)
    except UsageError as error:
        parser.error(str(error))
    # A row says how many graphs there are; why there are not more would be pages.
    torch._logging.set_logs(dynamo=logging.CRITICAL)  # type: ignore[attr-defined]
    if device.type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    sheet = Sheet(args.json, args.markdown, describe(device, small=args.small))
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), SMALL if args.small else FULL, args.cells_folder)
        measure(sheet, shop, device, args.layers, args.parts)
    sheet.write()
    print(sheet.tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
