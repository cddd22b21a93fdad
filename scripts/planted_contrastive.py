"""Does the contrastive objective find planted cell types across planted datasets? A check of the mechanism.

600 genes, six types, three datasets that each multiply every gene by an own factor (log-sd 0.7), depth of log-sd 0.5
that is independent of the type. After training, the type of each cell is that of the majority of its 15 nearest cells
of the two other datasets. Prints one JSON line for each view: that accuracy (guessing: 0.17), the recall of a matcher
that sees the number of genes alone as a multiple of guessing, and the rest of the last line of the log.

    python scripts/planted_contrastive.py [--steps 400] [--seed 0] [--views panels panels+thin]
"""

import argparse
import json

import numpy as np
import torch
from scipy.sparse import csr_matrix

from uce.genes.tables import GeneTable, table_record
from uce.genes.vocabulary import Vocabulary, build_vocabulary
from uce.model.encoder import ModelConfig
from uce.training.batch import Batch, draw_sentences, pack, to_tensors, token_tables
from uce.training.corpus import Corpus, Dataset, special_vectors
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.optimizer import build_optimizer
from uce.training.settings import DataSettings, OptimizerSettings, PretrainConfig
from uce.training.stream import Cells, Stream
from uce.training.trainee import Trainee, start_linear

GENES, TYPES, DATASETS, CELLS, WIDTH = 600, 6, 3, 600, 600


def plant(random: np.random.Generator) -> tuple[Corpus, list[np.ndarray]]:
    """Three datasets in memory and the types of their cells."""
    specials = special_vectors(WIDTH)
    table = GeneTable.from_rows(
        species="homo_sapiens",
        encoder="planted",
        ids=[f"ENSG{i:011d}" for i in range(GENES)],
        symbols=[f"GENE{i}" for i in range(GENES)],
        vectors=random.normal(size=(GENES, WIDTH)),
        chromosomes=[str(1 + i % 3) for i in range(GENES)],
        starts=np.arange(GENES) + 1,
    )
    vocabulary = build_vocabulary(table, specials)
    base = random.normal(0, 1, GENES)
    types = random.normal(0, 1.5, (TYPES, GENES)) * (random.random((TYPES, GENES)) < 0.3)
    datasets, labels = [], []
    for number in range(DATASETS):
        label = random.integers(0, TYPES, CELLS)
        rates = np.exp(base + types[label] + random.normal(0, 0.7, GENES))
        depth = 1000 * np.exp(random.normal(0, 0.5, (CELLS, 1)))
        counts = csr_matrix(random.poisson(depth * rates / rates.sum(axis=1, keepdims=True)).astype(np.float64))
        datasets.append(in_memory(f"set{number}", counts, vocabulary))
        labels.append(label)
    return Corpus(tuple(datasets), (table_record(table),), specials), labels


def in_memory(name: str, counts: csr_matrix, vocabulary: Vocabulary) -> Dataset:
    """A dataset of (cells, genes) counts by row of the gene table; all genes are measured."""
    return Dataset(
        name=name,
        species="homo_sapiens",
        shards=(counts.shape[0],),
        fetch=lambda _shard, start, stop: counts[start:stop],
        fetch_genes=lambda: (np.ones(GENES, dtype=bool), counts.getnnz(axis=0)),
        vocabulary=vocabulary,
        facts={},
    )


def configure(view: str, steps: int, seed: int) -> PretrainConfig:
    """Two layers of 64, 64 cells a step."""
    model = ModelConfig(
        layers=2, dim=64, heads=4, hidden=128, protein_dim=WIDTH, out_dim=64, decoder_dim=64, norm="post",
        activation="gelu", dropout=0.0, positions="none", readout="cls+mean", max_tokens=256,
    )  # fmt: skip
    return PretrainConfig(
        data=DataSettings(corpus=""), model=model, seed=seed, steps=steps, batch_size=64, draws=96,
        late_draws=96, objective=ContrastiveSettings(view=view, panel_least=0.1, fewest_genes=5),
        optimizer=OptimizerSettings(lr=1e-3, warmup=20),
    )  # fmt: skip


def train(corpus: Corpus, config: PretrainConfig) -> tuple[Trainee, dict[str, object]]:
    """The trained encoder and the log's fields over the last 100 steps."""
    torch.manual_seed(config.seed)
    trainee = Trainee(config)
    stream, device = Stream(corpus, config), torch.device("cpu")
    tables = token_tables([corpus], device)

    def make(part: int) -> Batch:
        return config.objective.make_batch(stream.cells(part), config, part)

    start_linear(trainee.encoder, [make(config.steps + i) for i in range(16)], tables)
    optimizer = build_optimizer(trainee, config.optimizer)
    totals: dict[str, torch.Tensor] = {}
    for step in range(config.steps):
        batch = to_tensors(make(step), tables, device)
        sums = trainee(batch)
        optimizer.zero_grad()
        trainee.objective.loss(sums, batch).backward()
        optimizer.step()
        trainee.objective.constrain()
        if step >= config.steps - 100:
            totals = {name: totals.get(name, 0) + value.detach().double() for name, value in sums.items()}
    return trainee, trainee.objective.fields(totals, step=config.steps)


@torch.no_grad()
def embed(trainee: Trainee, dataset: Dataset, config: PretrainConfig) -> np.ndarray:
    """(cells, D) from sentences of all genes."""
    rows = np.arange(CELLS)
    cells = Cells(dataset, rows, rows, dataset.by_rank(dataset.stored([(0, CELLS)])))
    nothing = np.zeros(cells.counts.nnz, dtype=bool)
    sentences = draw_sentences(cells, cells.counts, nothing, config, 0, numbers=rows)
    shown, tokens, keep = pack([sentences])
    vectors = torch.from_numpy(dataset.vocabulary.vectors[shown])
    return trainee.encoder(vectors[torch.from_numpy(tokens)], torch.from_numpy(keep)).numpy()


def across_datasets(vectors: list[np.ndarray], labels: list[np.ndarray]) -> float:
    """Share of cells whose 15 nearest of the other datasets vote for their type."""
    right = []
    for number, own in enumerate(vectors):
        others = [i for i in range(len(vectors)) if i != number]
        near = np.argsort(-own @ np.concatenate([vectors[i] for i in others]).T, axis=1)[:, :15]
        votes = np.concatenate([labels[i] for i in others])[near]
        right += [np.bincount(vote).argmax() == label for vote, label in zip(votes, labels[number], strict=True)]
    return float(np.mean(right))


def main() -> None:
    """Train and judge once for each view."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--views", nargs="+", default=["panels", "panels+thin"])
    options = parser.parse_args()
    for view in options.views:
        corpus, labels = plant(np.random.default_rng(options.seed))
        config = configure(view, options.steps, options.seed)
        trainee, fields = train(corpus, config)
        vectors = [embed(trainee, dataset, config) for dataset in corpus.datasets]
        line = {
            "view": view,
            "seed": options.seed,
            "types_across_datasets": across_datasets(vectors, labels),
            "length_matcher_of_chance": fields["recall_length"] / fields["recall_chance"],
        }
        print(json.dumps({**line, **fields}), flush=True)


if __name__ == "__main__":
    main()
