"""Blocks of counts to blocks of vectors: one function of a block, and the loop that runs it over a source."""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix

from uce.cells.batches import length_batches
from uce.cells.parts import Block
from uce.cells.sentences import Sentences, write_sentences
from uce.devices import Precision, arithmetic
from uce.errors import UsageError
from uce.genes.tables import GeneTable
from uce.genes.vocabulary import Vocabulary, build_vocabulary, to_ranks
from uce.model.checkpoint import Model, check_table

if TYPE_CHECKING:
    from uce.cells.counts import Counts
    from uce.cells.matching import Match

BATCH_TOKENS = {"cpu": 8_192, "mps": 32_768, "cuda": 262_144}


@dataclass(frozen=True)
class Settings:
    """How to compute, whatever the cells.

    Attributes
    ----------
    device, precision
        Where and in which arithmetic the encoder runs.
    seed
        Decides every draw, together with the cell itself.
    replicates
        Draws per cell whose vectors are averaged.
    batch_size
        Cells per batch, or None for as many as fit a fixed number of tokens. It does not change the numbers.
    """

    device: torch.device
    precision: Precision
    seed: int = 0
    replicates: int = 1
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("seed", self.seed, 0, 2**63 - 1),
            ("replicates", self.replicates, 1, 1000),
            ("batch-size", self.batch_size or 1, 1, 10**6),
        ):
            if not low <= value <= high:
                msg = f"--{name} {value}: must be a whole number from {low} to {high}."
                raise UsageError(msg)


@dataclass(frozen=True)
class Reader:
    """All that turns counts of one species into vectors.

    Attributes
    ----------
    match
        Which column of the file is which gene of the table.
    vocabulary
        Token ids of the species.
    projected
        (tokens of the vocabulary, dim) float32: the first layer, which sees one token at a time, applied to each once.
    """

    model: Model
    match: "Match"
    vocabulary: Vocabulary
    projected: torch.Tensor
    settings: Settings


@dataclass(frozen=True)
class GeneStates:
    """What the encoder makes of every token of a batch of sentences of one length.

    Attributes
    ----------
    rows
        (cells,) which rows of the block they are of.
    ranks
        (cells, tokens) rank of the gene at each place, -1 for tokens that are no gene.
    states
        (cells, tokens, dim) float32, outputs of the last block.
    """

    rows: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.int32]
    states: npt.NDArray[np.float32]


def prepare_reader(model: Model, match: "Match", settings: Settings) -> Reader:
    """Build the vocabulary of a species and project it through the first layer of `model`.

    Raises
    ------
    ModelError
        The gene table holds vectors of another kind than the model reads.
    """
    vocabulary, projected = project_vocabulary(model, match.table, settings.device)
    return Reader(model, match, vocabulary, projected, settings)


def project_vocabulary(model: Model, table: GeneTable, device: torch.device) -> tuple[Vocabulary, torch.Tensor]:
    """Tokens of a species, and what the first layer of `model` makes of each: (tokens, dim) float32 on `device`.

    Raises
    ------
    ModelError
        The gene table holds vectors of another kind than the model reads.
    """
    check_table(model, table)
    vocabulary = build_vocabulary(table, model.specials, chromosome_vectors=model.chromosome_vectors or None)
    model.encoder.to(device)
    with torch.inference_mode():
        chunks = torch.split(torch.from_numpy(vocabulary.vectors), 4096)
        return vocabulary, torch.cat([model.encoder.project(chunk.to(device)) for chunk in chunks])


def embed_cells(counts: csr_matrix, reader: Reader, *, first_replicate: int = 0) -> Block:
    """Vectors of cells of one species; `counts`: (cells, columns of the file) float64 whole numbers.

    `first_replicate` shifts the draws, for a second, independent set of them.
    """
    vocabulary, settings = reader.vocabulary, reader.settings
    ranked = to_ranks(counts, reader.match.resolution.rows, vocabulary)
    vectors = np.zeros((counts.shape[0], reader.model.config.out_dim), np.float32)
    left_out = np.zeros(counts.shape[0], np.int64)
    for replicate in range(first_replicate, first_replicate + settings.replicates):
        sentences = _draw(ranked, reader, replicate)
        vectors += encode_sentences(sentences, reader)
        left_out += sentences.left_out
    if settings.replicates > 1:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.maximum(norms, 1e-12)
    genes = np.diff(ranked.indptr).astype(np.int64)
    vectors[genes == 0] = np.nan
    return Block(
        vectors,
        genes,
        np.asarray(counts.sum(axis=1), np.float64).ravel(),
        np.asarray(ranked.sum(axis=1), np.float64).ravel(),
        left_out,
    )


def _draw(ranked: csr_matrix, reader: Reader, replicate: int) -> Sentences:
    vocabulary = reader.vocabulary
    return write_sentences(
        ranked,
        vocabulary.gene_chromosomes,
        vocabulary.gene_keys,
        rule=reader.model.rule,
        seed=reader.settings.seed,
        replicate=replicate,
    )


def encode_sentences(sentences: Sentences, reader: Reader) -> npt.NDArray[np.float32]:
    """Unit vectors (cells, dim) of sentences, zero where a sentence is empty.

    Only sentences of one length share a batch, so there is no padding and a cell's company cannot reach its vector.
    """
    out = np.zeros((len(sentences.lengths), reader.model.config.out_dim), np.float32)
    for rows, _, vectors in _in_batches(reader.model.encoder.encode, sentences, reader):
        out[rows] = vectors
    return out


def stream_gene_states(counts: csr_matrix, reader: Reader) -> Generator[GeneStates, None, None]:
    """The encoder's last states of all tokens of cells, batch by batch; the sentences are those of `embed_cells`."""
    vocabulary = reader.vocabulary
    sentences = _draw(to_ranks(counts, reader.match.resolution.rows, vocabulary), reader, 0)
    for rows, tokens, states in _in_batches(reader.model.encoder.hidden_states, sentences, reader):
        yield GeneStates(rows, np.maximum(tokens - vocabulary.first_gene, -1), states)


def _in_batches(
    encode: Callable[[torch.Tensor], torch.Tensor], sentences: Sentences, reader: Reader
) -> Generator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]], None, None]:
    """Rows, tokens and `encode`'s result of each batch of sentences of one length; no batch for an empty sentence."""
    settings = reader.settings
    max_tokens = BATCH_TOKENS[settings.device.type]
    batches = length_batches(
        sentences.lengths,
        max_tokens=max_tokens if settings.batch_size is None else 2**62,
        max_cells=settings.batch_size or max_tokens,
    )
    for rows in batches:
        tokens = sentences.tokens[rows, : sentences.lengths[rows[0]]]
        # Entered anew for each batch: a generator must not leave torch's mode changed while its caller runs.
        with torch.inference_mode():
            ids = torch.from_numpy(tokens).to(settings.device)
            result = _encode(encode, reader.projected, ids, settings).float().cpu().numpy()
        yield rows, tokens, result


def _encode(
    encode: Callable[[torch.Tensor], torch.Tensor], projected: torch.Tensor, ids: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """Encode (cells, tokens) ids; where the accelerator's memory does not hold the batch, in halves."""
    try:
        with arithmetic(settings.device, settings.precision):
            return encode(projected[ids.long()])
    except torch.cuda.OutOfMemoryError:
        if len(ids) == 1:
            raise
    torch.cuda.empty_cache()
    halves = ids.tensor_split(2)
    return torch.cat([_encode(encode, projected, half, settings) for half in halves])


def embed_rows(
    counts: csr_matrix, readers: Mapping[str, Reader], species: npt.NDArray[np.str_], *, first_replicate: int = 0
) -> Block:
    """Vectors of rows that may be of several species; `species`: (rows,) keys of `readers`."""
    if len(readers) == 1:
        return embed_cells(counts, next(iter(readers.values())), first_replicate=first_replicate)
    rows = {name: np.flatnonzero(species == name) for name in readers}
    parts = {
        name: embed_cells(counts[where], readers[name], first_replicate=first_replicate)
        for name, where in rows.items()
        if len(where)
    }
    order = np.argsort(np.concatenate([rows[name] for name in parts]), kind="stable")
    return Block(
        *(
            np.concatenate([getattr(part, field) for part in parts.values()])[order]
            for field in ("vectors", "genes", "total", "covered", "left_out")
        )
    )


def sentence_lengths(
    counts: csr_matrix, readers: Mapping[str, Reader], species: npt.NDArray[np.str_]
) -> npt.NDArray[np.int64]:
    """Tokens that the encoder reads of each cell, (cells,); the cells of one species after those of another."""
    found = []
    for name, reader in readers.items():
        rows = np.flatnonzero(species == name) if len(readers) > 1 else np.arange(counts.shape[0])
        ranked = to_ranks(counts[rows], reader.match.resolution.rows, reader.vocabulary)
        found.append(_draw(ranked, reader, 0).lengths.astype(np.int64))
    return np.concatenate(found)


def stream_blocks(
    counts: "Counts",
    readers: Mapping[str, Reader],
    species: npt.NDArray[np.str_],
    ranges: list[tuple[int, int]],
    *,
    num_workers: int = 1,
) -> Generator[Block, None, None]:
    """The blocks of the row `ranges`, in their order, the next one read while one is computed (unless no workers)."""
    if not num_workers or not ranges:
        for start, stop in ranges:
            yield embed_rows(counts.read(start, stop), readers, species[start:stop])
        return
    with ThreadPoolExecutor(1, thread_name_prefix="uce-read") as pool:
        pending = [pool.submit(counts.read, *ranges[0])]
        for (start, stop), following in zip(ranges, [*ranges[1:], None], strict=True):
            block = pending.pop().result()
            if following:
                pending.append(pool.submit(counts.read, *following))
            yield embed_rows(block, readers, species[start:stop])
