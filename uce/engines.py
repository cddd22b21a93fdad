"""Blocks of counts to blocks of vectors: one function of a block, and the loop that runs it over a source."""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix

from uce.cells.batches import length_batches
from uce.cells.parts import Block
from uce.cells.sentences import Sentences, write_sentences
from uce.devices import PrecisionChoice, memory_bytes
from uce.errors import UsageError
from uce.genes.tables import GeneTable
from uce.genes.vocabulary import Vocabulary, build_vocabulary, to_ranks
from uce.model.checkpoint import Model, check_table
from uce.model.encoder import Encoder, ModelConfig
from uce.model.inference import FirstBlock, first_block, prepare
from uce.model.precision import choose_precision

if TYPE_CHECKING:
    from uce.cells.counts import Counts
    from uce.cells.matching import Match

BATCH_TOKENS = {"cpu": 8_192, "mps": 32_768, "cuda": 262_144}
_CACHED = 1 << 22  # numbers that a processor's cache holds; a larger batch of wide tokens is slower, not faster
_SHARE = 0.5  # of a graphics processor's free memory, for one batch


@dataclass(frozen=True)
class Settings:
    """How to compute, whatever the cells.

    Attributes
    ----------
    device, precision
        Where and in which arithmetic the encoder runs; `auto` is settled when the model is known.
    seed
        Decides every draw, together with the cell itself.
    replicates
        Draws per cell whose vectors are averaged.
    batch_size
        Cells per batch, or None for as many as the device computes best. It does not change the numbers.
    compiled
        Blocks through torch.compile.
    cycles
        How often a recursive encoder runs its blocks; None: as often as in training.
    """

    device: torch.device
    precision: PrecisionChoice
    seed: int = 0
    replicates: int = 1
    batch_size: int | None = None
    compiled: bool = False
    cycles: int | None = None

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("seed", self.seed, 0, 2**63 - 1),
            ("replicates", self.replicates, 1, 1000),
            ("batch-size", self.batch_size or 1, 1, 10**6),
            ("cycles", 1 if self.cycles is None else self.cycles, 1, 1000),
        ):
            if not low <= value <= high:
                msg = f"--{name} {value}: must be a whole number from {low} to {high}."
                raise UsageError(msg)


@dataclass
class Room:
    """How many tokens a batch may have; less after the device's memory did not hold one."""

    tokens: int


@dataclass(frozen=True)
class Reader:
    """All that turns counts of one species into vectors.

    Attributes
    ----------
    match
        Which column of the file is which gene of the table.
    vocabulary
        Token ids of the species, without vectors: `projected` is all that is read of them.
    projected
        (tokens of the vocabulary, dim) float32: the first layer, which sees one token at a time, applied to each once.
    first
        The same for the queries, keys and values of the first block, where that is exact.
    encoder
        The model's, as it runs on the device.
    room
        Shared by the readers of a job.
    """

    model: Model
    match: "Match"
    vocabulary: Vocabulary
    projected: torch.Tensor
    first: FirstBlock | None
    encoder: Encoder
    settings: Settings
    room: Room


@dataclass(frozen=True)
class Drawn:
    """Cells of one species, read and written as sentences: what is left is to encode them.

    Attributes
    ----------
    sentences
        One for each replicate.
    genes, total, covered
        (cells,) as in `Block`.
    reader
        Of their species.
    """

    sentences: list[Sentences]
    genes: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]
    covered: npt.NDArray[np.float64]
    reader: Reader


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


def prepare_readers(model: Model, matches: Mapping[str, "Match"], settings: Settings) -> dict[str, Reader]:
    """A reader for each species: settle the precision, ready the encoder, project the vocabularies.

    Raises
    ------
    UsageError
        Cycles are asked for, and the model has none.
    ModelError
        A gene table holds vectors of another kind than the model reads.
    """
    if settings.cycles is not None and model.config.kind != "recursive":
        msg = f"--cycles {settings.cycles}: {model.name} runs its blocks once; only a recursive model has cycles."
        raise UsageError(msg)
    precision = choose_precision(settings.precision, model.encoder, settings.device)
    settings = replace(settings, precision=precision)
    encoder = prepare(model.encoder, settings.device, precision, compiled=settings.compiled)
    encoder.cycles = settings.cycles or encoder.cycles
    room = Room(batch_tokens(model.config, settings.device))
    readers = {}
    for name, match in matches.items():
        vocabulary, projected = project_vocabulary(model, match.table, encoder)
        # Gene vectors of the published kind take 400 MB, which the table has already.
        vocabulary = replace(vocabulary, vectors=np.zeros((0, match.table.dim), np.float32))
        with torch.inference_mode():
            first = first_block(model.encoder, projected)
        readers[name] = Reader(model, match, vocabulary, projected, first, encoder, settings, room)
    return readers


def prepare_reader(model: Model, match: "Match", settings: Settings) -> Reader:
    """The reader of one species, see `prepare_readers`."""
    return prepare_readers(model, {"": match}, settings)[""]


def batch_tokens(config: ModelConfig, device: torch.device) -> int:
    """Tokens of a batch: enough to keep the device busy, no more than its free memory holds."""
    most = BATCH_TOKENS[device.type]
    if device.type == "cpu":
        return max(1, min(most, _CACHED // config.dim))
    if device.type != "cuda":
        return most
    # What a block keeps at one time: its input, queries, keys, values and sums, and the wide layer twice.
    bytes_per_token = 4 * (8 * config.dim + 2 * config.hidden)
    return max(1, min(most, int(_SHARE * memory_bytes(device) / bytes_per_token)))


def project_vocabulary(model: Model, table: GeneTable, encoder: Encoder) -> tuple[Vocabulary, torch.Tensor]:
    """Tokens of a species, and what the first layer of `encoder`, the model's, makes of each: (tokens, dim) float32.

    Raises
    ------
    ModelError
        The gene table holds vectors of another kind than the model reads.
    """
    check_table(model, table)
    vocabulary = build_vocabulary(table, model.specials, chromosome_vectors=model.chromosome_vectors or None)
    device = encoder.projection_norm.weight.device
    with torch.inference_mode():
        chunks = torch.split(torch.from_numpy(vocabulary.vectors), 4096)
        return vocabulary, torch.cat([encoder.project(chunk.to(device)) for chunk in chunks])


def embed_cells(counts: csr_matrix, reader: Reader, *, first_replicate: int = 0) -> Block:
    """Vectors of cells of one species; `counts`: (cells, columns of the file) float64 whole numbers.

    `first_replicate` shifts the draws, for a second, independent set of them.
    """
    return encode_cells(draw_cells(counts, reader, first_replicate=first_replicate))


def draw_cells(counts: csr_matrix, reader: Reader, *, first_replicate: int = 0) -> Drawn:
    """Cells of one species as sentences; the arguments are those of `embed_cells`."""
    ranked = to_ranks(counts, reader.match.resolution.rows, reader.vocabulary)
    replicates = range(first_replicate, first_replicate + reader.settings.replicates)
    return Drawn(
        [_draw(ranked, reader, replicate) for replicate in replicates],
        np.diff(ranked.indptr).astype(np.int64),
        np.asarray(counts.sum(axis=1), np.float64).ravel(),
        np.asarray(ranked.sum(axis=1), np.float64).ravel(),
        reader,
    )


def encode_cells(drawn: Drawn) -> Block:
    """Vectors of cells that are sentences already; of several replicates the mean, at length 1."""
    vectors = np.zeros((len(drawn.genes), drawn.reader.model.config.out_dim), np.float32)
    left_out = np.zeros(len(drawn.genes), np.int64)
    for sentences in drawn.sentences:
        vectors += encode_sentences(sentences, drawn.reader)
        left_out += sentences.left_out
    if len(drawn.sentences) > 1:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.maximum(norms, 1e-12)
    vectors[drawn.genes == 0] = np.nan
    return Block(vectors, drawn.genes, drawn.total, drawn.covered, left_out)


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
    out = torch.zeros((len(sentences.lengths), reader.model.config.out_dim), device=reader.settings.device)
    for rows, _, vectors in _in_batches(reader.encoder.encode, sentences, reader):
        out[torch.from_numpy(rows)] = vectors  # they stay on the device until all are there, so that it never waits
    return out.cpu().numpy()


def stream_gene_states(counts: csr_matrix, reader: Reader) -> Generator[GeneStates, None, None]:
    """The encoder's last states of all tokens of cells, batch by batch; the sentences are those of `embed_cells`."""
    vocabulary = reader.vocabulary
    sentences = _draw(to_ranks(counts, reader.match.resolution.rows, vocabulary), reader, 0)
    for rows, tokens, states in _in_batches(reader.encoder.hidden_states, sentences, reader):
        yield GeneStates(rows, np.maximum(tokens - vocabulary.first_gene, -1), states.cpu().numpy())


def _in_batches(
    encode: Callable[..., torch.Tensor], sentences: Sentences, reader: Reader
) -> Generator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], torch.Tensor], None, None]:
    """Rows, tokens and `encode`'s result of each batch of sentences of one length; no batch for an empty sentence."""
    size, room = reader.settings.batch_size, reader.room
    batches = length_batches(
        sentences.lengths, max_tokens=2**62 if size else room.tokens, max_cells=size or room.tokens
    )
    while batches:
        rows = batches.pop(0)
        tokens = sentences.tokens[rows, : sentences.lengths[rows[0]]]
        try:
            # Entered anew for each batch: a generator must not leave torch's mode changed while its caller runs.
            with torch.inference_mode():
                result = _encode(encode, tokens, reader)
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1:
                raise
            torch.cuda.empty_cache()
            room.tokens = tokens.size // 2  # for the batches to come, too
            cells = max(1, room.tokens // tokens.shape[1])
            batches = [part for batch in (rows, *batches) for part in _parts(batch, cells)]
            continue
        yield rows, tokens, result


def _parts(rows: npt.NDArray[np.int64], cells: int) -> list[npt.NDArray[np.int64]]:
    return [rows[first : first + cells] for first in range(0, len(rows), cells)]


def _encode(encode: Callable[..., torch.Tensor], tokens: npt.NDArray[np.int32], reader: Reader) -> torch.Tensor:
    """`encode` of (cells, tokens), in float32 on the device."""
    ids = torch.from_numpy(tokens).to(reader.settings.device).long()
    qkv = reader.first(ids) if reader.first else None
    return encode(reader.projected[ids], qkv=qkv).float()


def embed_rows(
    counts: csr_matrix, readers: Mapping[str, Reader], species: npt.NDArray[np.str_], *, first_replicate: int = 0
) -> Block:
    """Vectors of rows that may be of several species; `species`: (rows,) keys of `readers`."""
    return encode_rows(draw_rows(counts, readers, species, first_replicate=first_replicate))


def draw_rows(
    counts: csr_matrix, readers: Mapping[str, Reader], species: npt.NDArray[np.str_], *, first_replicate: int = 0
) -> list[tuple[npt.NDArray[np.int64], Drawn]]:
    """Rows of each species there is, and their sentences."""
    if len(readers) == 1:
        rows = {name: np.arange(counts.shape[0]) for name in readers}
    else:
        rows = {name: np.flatnonzero(species == name) for name in readers}
    return [
        (where, draw_cells(counts[where], readers[name], first_replicate=first_replicate))
        for name, where in rows.items()
        if len(where) or len(readers) == 1
    ]


def encode_rows(drawn: list[tuple[npt.NDArray[np.int64], Drawn]]) -> Block:
    """Vectors of all rows, in their order."""
    parts = [encode_cells(cells) for _, cells in drawn]
    order = np.argsort(np.concatenate([rows for rows, _ in drawn]), kind="stable")
    return Block(
        *(
            np.concatenate([getattr(part, field) for part in parts])[order]
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
    """The blocks of the row `ranges`, in their order.

    The next one is read and its sentences are written while one is encoded, unless there are no workers.
    """

    def draw(start: int, stop: int) -> list[tuple[npt.NDArray[np.int64], Drawn]]:
        return draw_rows(counts.read(start, stop), readers, species[start:stop])

    if not num_workers or not ranges:
        for start, stop in ranges:
            yield encode_rows(draw(start, stop))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="uce-read") as pool:
        pending = [pool.submit(draw, *ranges[0])]
        for following in (*ranges[1:], None):
            drawn = pending.pop().result()
            if following:
                pending.append(pool.submit(draw, *following))
            yield encode_rows(drawn)
