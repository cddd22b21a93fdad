"""Seconds of one training update on the CPU: this package beside the published loop written plainly in torch.

    python scripts/bench_training.py --json training.json
    python scripts/bench_training.py --published --steps 3

Both get the same batches (sentences, questions and labels of simulated cells, made before the clock starts), in
float32, with the same shape of encoder and head, dropout and AdamW, and take turns in one process. What differs is how
it is computed. The plain loop looks up and projects the gene vector of every token and of every question, runs
`nn.TransformerEncoder` over all tokens of the padded sentences, and applies the head to every pair of cell and gene. It
comes twice: padded to the longest sentence there may be, as copies of the training code do, and to the longest of the
batch. Ours is `Trainer.update`, with what it does beside: a second head that is compared with, clipping, checks.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from uce.cells.sentences import SentenceRule
from uce.genes.tables import GeneTable, table_record
from uce.genes.vocabulary import build_vocabulary
from uce.model.blocks import dense
from uce.model.encoder import ModelConfig
from uce.model.initial import sinusoidal_positions
from uce.training.batch import Batch, to_tensors, token_tables
from uce.training.corpus import Corpus, Dataset, special_vectors
from uce.training.objectives.masked import MaskedSettings
from uce.training.settings import DataSettings, OptimizerSettings, PretrainConfig, RunSettings
from uce.training.stopping import Stopping
from uce.training.stream import Cells, Stream
from uce.training.trainer import Trainer

Made = tuple[Cells, Batch]
CPU = torch.device("cpu")
GENES = 19_000  # of a species
CHROMOSOMES = 25
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Contender:
    """A way to train; `step` is one update on a batch."""

    name: str
    step: Callable[[Made], object]


class PlainModel(nn.Module):
    """The published encoder and head as modules of torch, without anything that saves work."""

    positions: Tensor

    def __init__(self, model: ModelConfig, hidden: tuple[int, ...]) -> None:
        super().__init__()
        dim, drop = model.dim, model.dropout
        self.scale = math.sqrt(dim)
        self.tokens = nn.Sequential(nn.Linear(model.protein_dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.dropout = nn.Dropout(drop)
        layer = nn.TransformerEncoderLayer(dim, model.heads, model.hidden, drop, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, model.layers, enable_nested_tensor=False)
        self.decoder = _blocks(dim, model.decoder_dim, model.out_dim, model.out_dim, dropout=drop)
        self.decoder.append(nn.Linear(model.out_dim, model.out_dim))
        self.genes = nn.Sequential(nn.Linear(model.protein_dim, model.out_dim), nn.GELU(), nn.LayerNorm(model.out_dim))
        self.head = _blocks(2 * model.out_dim, *hidden, dropout=drop)
        self.head.append(nn.Linear(hidden[-1], 1))
        self.register_buffer("positions", sinusoidal_positions(model.max_tokens, dim))

    def forward(self, vectors: Tensor, keep: Tensor, queries: Tensor) -> Tensor:
        """Logits (B, Q) of sentences (B, L, P), true where `keep` (B, L), and genes (B, Q, P)."""
        x = self.tokens(F.normalize(vectors, dim=2)) * self.scale
        x = self.dropout(x + self.positions[: x.shape[1]])
        x = self.encoder(x, src_key_padding_mask=~keep)
        cells = F.normalize(self.decoder(x[:, 0]), dim=1)
        asked = self.genes(queries)
        pairs = torch.cat([cells[:, None].expand(-1, asked.shape[1], -1), asked], dim=2)
        logits: Tensor = self.head(pairs).squeeze(2)
        return logits


def _blocks(*widths: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(*(dense(*pair, dropout=dropout) for pair in pairwise(widths)))


class PlainLoop:
    """The update of the plain loop; sentences are padded to `length`, or where that is None to the longest."""

    def __init__(self, config: PretrainConfig, corpus: Corpus, *, length: int | None) -> None:
        assert isinstance(config.objective, MaskedSettings), "the published objective"
        torch.manual_seed(config.seed)
        self.model = PlainModel(config.model, config.objective.hidden)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.optimizer.lr, weight_decay=0.01)
        self.tables, self.length = token_tables([corpus], CPU), length

    def step(self, made: Made) -> float:
        """One update; returns the mean cross-entropy of the questions."""
        batch = to_tensors(made[1], self.tables, CPU)
        asked = batch["asked"]
        missing = (self.length or batch["tokens"].shape[1]) - batch["tokens"].shape[1]
        tokens, keep = (F.pad(batch[name], (0, missing)) for name in ("tokens", "keep"))
        logits = self.model(batch["vectors"][tokens], keep, batch["queries"][asked])
        loss = F.binary_cross_entropy_with_logits(logits, batch["labels"])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())


class Ours:
    """The update of this package, as `uce pretrain` makes it."""

    def __init__(self, config: PretrainConfig, corpus: Corpus, run: Path) -> None:
        from accelerate import Accelerator

        self.trainer = Trainer(config, corpus, Accelerator(mixed_precision=config.precision), run, None, start=None)
        self.done, self.stopping = 0, Stopping()

    def step(self, made: Made) -> None:
        """One update."""
        self.trainer.update(self.done, iter([made]), self.stopping)
        self.done += 1


def simulated_corpus(*, cells: int, genes: int, width: int) -> Corpus:
    """Cells in memory. How often a gene is seen is logit-normal (-4, 2), as in shallow data, so cells share genes."""
    random = np.random.default_rng(0)
    table = GeneTable.from_rows(
        species="homo_sapiens",
        encoder="simulated",
        ids=[f"G{gene:05d}" for gene in range(genes)],
        vectors=random.standard_normal((genes, width), dtype=np.float32),
        chromosomes=[str(1 + gene % CHROMOSOMES) for gene in range(genes)],
        starts=np.arange(genes) + 1,
    )
    specials = special_vectors(width)
    vocabulary = build_vocabulary(table, specials)
    rates = 1 / (1 + np.exp(-random.normal(-4, 2, genes)))
    counts = csr_matrix((random.random((cells, genes)) < rates) * (1.0 + random.poisson(1.0, (cells, genes))))
    seen = np.asarray((counts > 0).sum(axis=0)).ravel()
    dataset = Dataset(
        name="simulated",
        species="homo_sapiens",
        shards=(cells,),
        fetch=lambda _shard, start, stop: counts[start:stop],
        fetch_genes=lambda: (np.ones(genes, dtype=bool), seen),
        vocabulary=vocabulary,
        facts={"cells": cells},
        fetch_labels=lambda _column: None,
    )
    return Corpus((dataset,), (table_record(table),), specials, gene_encoder="simulated", sha256="simulated")


def configure(model: ModelConfig, objective: MaskedSettings, *, cells: int, steps: int, draws: int) -> PretrainConfig:
    """A run of the published objective on this shape of encoder."""
    return PretrainConfig(
        data=DataSettings(corpus="simulated"),
        model=model,
        steps=steps,
        batch_size=cells,
        draws=draws,
        rule=SentenceRule(draws=draws, max_tokens=model.max_tokens),
        objective=objective,
        optimizer=OptimizerSettings(lr=LEARNING_RATE, warmup=0),
        run=RunSettings(workers=0),
    )


def contenders(config: PretrainConfig, corpus: Corpus, run: Path) -> list[Contender]:
    """Ours first; the others are measured against it."""
    most = config.model.max_tokens
    return [
        Contender("uce", Ours(config, corpus, run).step),
        Contender(f"plain loop, padded to {most:,}", PlainLoop(config, corpus, length=most).step),
        Contender("plain loop, padded to the longest", PlainLoop(config, corpus, length=None).step),
    ]


def compare(config: PretrainConfig, corpus: Corpus, *, rounds: int) -> dict[str, Any]:
    """Medians and ranges over the rounds, each on a batch of its own; a ratio is taken within its round."""
    stream = Stream(corpus, config)

    def make(part: int) -> Made:
        cells = stream.cells(part)
        return cells, config.objective.make_batch(cells, config, part)

    make(rounds + 1)  # pays for compiling what draws sentences
    began = time.perf_counter()
    batches = [make(part) for part in range(rounds + 1)]
    making = (time.perf_counter() - began) / len(batches)
    with tempfile.TemporaryDirectory() as folder:
        ways = contenders(config, corpus, Path(folder))
        # The first round is not told: it takes memory and starts threads.
        runs = [take_turns(ways, made, first=number) for number, made in enumerate(batches)][1:]
    tokens = [int(made[1].keep.sum()) for made in batches[1:]]
    rows = [_row(way.name, [run[way.name] for run in runs], [run["uce"] for run in runs], tokens) for way in ways]
    return {"tokens": tokens, "seconds_to_make_a_batch": making, "rows": rows}


def take_turns(ways: list[Contender], made: Made, *, first: int) -> dict[str, float]:
    """Seconds of an update with each way, another one first in each round."""
    seconds = {}
    for place in range(len(ways)):
        way = ways[(first + place) % len(ways)]
        began = time.perf_counter()
        way.step(made)
        seconds[way.name] = time.perf_counter() - began
    return seconds


def _row(name: str, seconds: list[float], ours: list[float], tokens: list[int]) -> dict[str, Any]:
    return {
        "name": name,
        "seconds": median(seconds),
        "seconds_range": [min(seconds), max(seconds)],
        "tokens_per_second": median(n / s for n, s in zip(tokens, seconds, strict=True)),
        "times_ours": [theirs / own for theirs, own in zip(seconds, ours, strict=True)],
    }


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{'':36}{'seconds an update (range)':>28}{'tokens/s':>12}  times as long, by round")
    for row in result["rows"]:
        seconds = f"{row['seconds']:.2f} ({row['seconds_range'][0]:.2f}-{row['seconds_range'][1]:.2f})"
        ratios = f"{median(row['times_ours']):.2f}: " + " ".join(f"{ratio:.2f}" for ratio in row["times_ours"])
        print(f"{row['name']:36}{seconds:>28}{row['tokens_per_second']:>12,.0f}  {ratios}")
    print(f"a batch is made ahead of its update, in {result['seconds_to_make_a_batch']:.3f} s of another thread")


def main() -> int:
    """Measure, print, and write the figures where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", action="store_true", help="4 layers x 1280, vectors of 5120, 1,024 questions")
    parser.add_argument("--cells", type=int, help="of an update (16; 4 with --published)")
    parser.add_argument("--steps", type=int, default=5, help="rounds, after one that is not told (5)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures there")
    args = parser.parse_args()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    if args.published:
        shape, cells, objective = ModelConfig(), args.cells or 4, MaskedSettings(queries=1024, hidden=(2048, 512, 128))
    else:
        shape = ModelConfig(dim=256, heads=4, hidden=1024, protein_dim=1280, out_dim=256, decoder_dim=256)
        cells, objective = args.cells or 16, MaskedSettings()
    config = configure(shape, objective, cells=cells, steps=args.steps + 2, draws=1024)
    corpus = simulated_corpus(cells=max(256, cells * (args.steps + 2)), genes=GENES, width=shape.protein_dim)
    facts = {
        "model": f"{shape.layers} layers x {shape.dim}, vectors of {shape.protein_dim}",
        "cells": cells,
        "questions to a cell": objective.queries,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    result = compare(config, corpus, rounds=args.steps)
    show(result)
    if args.json:
        args.json.write_text(json.dumps(facts | result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
