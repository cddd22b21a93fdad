"""The published program written plainly, as a reference for speed: cells of a `.h5ad` in, vectors out.

    python scripts/plain_uce.py cells.h5ad -o vectors.npy --model runs/mine/uce-4l --species human

What is computed is what the published code computes (Rosen et al. 2023, bioRxiv 2023.11.28.568918): 1,024 genes a cell
drawn from one stream over all cells, batches of 25 cut to the longest sentence, every token projected, read by torch's
own `nn.TransformerEncoder` and decoded, padding given +1 instead of being hidden, float32. The genes' names, places and
vectors and the weights are those of a model folder; sentences and encoder are written here and share nothing.
It takes less care than `uce embed`: the whole file in memory, symbols or ids alone as names, no checks.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from uce import load_model
from uce.genes.collection import load_gene_table
from uce.genes.vocabulary import build_vocabulary
from uce.model.encoder import ModelConfig

BATCH = 25
CLOSE, CLS = 2, 3


@dataclass(frozen=True)
class Columns:
    """What the sentence routine knows of the columns of counts: the token, chromosome code and start of each.

    The token of chromosome c is `first_chromosome` + c.
    """

    tokens: np.ndarray
    chromosomes: np.ndarray
    starts: np.ndarray
    first_chromosome: int


class PlainUCE(nn.Module):
    """The published network, sequence first, as its sizes and weights are in the encoder of a model folder."""

    positions: Tensor

    def __init__(self, config: ModelConfig, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        if (config.norm, config.activation, config.readout, config.positions) != ("post", "relu", "cls", "sinusoidal"):
            raise SystemExit("this model is not of the published architecture; take one that is (--model).")
        self.scale = math.sqrt(config.dim)
        with torch.device("meta"):  # no weight is drawn, those of the state are taken
            self.encoder = nn.Sequential(nn.Linear(config.protein_dim, config.dim), nn.GELU(), nn.LayerNorm(config.dim))
            layer = nn.TransformerEncoderLayer(config.dim, config.heads, config.hidden, dropout=config.dropout)
            self.transformer_encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
            self.decoder = nn.Sequential(
                decoder_block(config.dim, config.decoder_dim),
                decoder_block(config.decoder_dim, config.out_dim),
                decoder_block(config.out_dim, config.out_dim),
                nn.Linear(config.out_dim, config.out_dim),
            )
            self.register_buffer("positions", torch.empty(config.max_tokens, config.dim))
        self.load_state_dict(renamed(state, config.layers), assign=True)
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """(L, B, P) gene vectors and (B, L) mask, 1 for a token and 0 for padding, to (B, out_dim) of length 1."""
        x = self.encoder(F.normalize(vectors, dim=2)) * self.scale
        x = x + self.positions[: len(x), None]
        # A mask of numbers is added to the scores: this is where padding gets +1.
        x = self.transformer_encoder(x, src_key_padding_mask=1 - mask)
        decoded: Tensor = self.decoder(x)
        return F.normalize(decoded[0], dim=1)


def decoder_block(before: int, after: int) -> nn.Sequential:
    """One of the decoder's three."""
    return nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.GELU(), nn.Dropout(0.05))


def renamed(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The weights of our encoder under torch's names; query, key and value are one matrix there."""
    names = {"projection.": "encoder.0.", "projection_norm.": "encoder.2."}
    for number in range(layers):
        ours, theirs = f"blocks.{number}.", f"transformer_encoder.layers.{number}."
        names |= {
            f"{ours}attention.out.": f"{theirs}self_attn.out_proj.",
            f"{ours}attention_norm.": f"{theirs}norm1.",
            f"{ours}expand.": f"{theirs}linear1.",
            f"{ours}contract.": f"{theirs}linear2.",
            f"{ours}feed_forward_norm.": f"{theirs}norm2.",
        }
    result = {name: tensor for name, tensor in state.items() if name == "positions" or name.startswith("decoder.")}
    result |= {theirs + part: state[ours + part] for ours, theirs in names.items() for part in ("weight", "bias")}
    for number in range(layers):
        attention = f"blocks.{number}.attention."
        for part in ("weight", "bias"):
            stacked = torch.cat([state[f"{attention}query.{part}"], state[f"{attention}key_value.{part}"]])
            result[f"transformer_encoder.layers.{number}.self_attn.in_proj_{part}"] = stacked
    return result


def encode(model: PlainUCE, vectors_of_tokens: Tensor, mask: Tensor) -> Tensor:
    """Cell vectors (B, out_dim) of sentences (B, L, P) and their mask (B, L), without gradients."""
    with torch.inference_mode():
        result: Tensor = model(vectors_of_tokens.permute(1, 0, 2), mask)
        return result


def write_sentence(counts: np.ndarray, columns: Columns, random: np.random.RandomState, draws: int) -> np.ndarray:
    """The tokens of one cell, by the published routine: one row of whole counts, the next numbers of the stream."""
    weights = np.log1p(counts.astype(np.float32))
    weights = weights / weights.sum()
    weights = weights / sum(weights)  # by Python's own sum, as published
    drawn = random.choice(len(counts), size=draws, p=weights, replace=True)
    codes, starts = columns.chromosomes[drawn], columns.starts[drawn]
    order = np.unique(codes)
    random.shuffle(order)
    sentence = [np.array([CLS])]
    for code in order:
        here = np.flatnonzero(codes == code)
        genes = columns.tokens[drawn[here[np.argsort(starts[here])]]]
        sentence += [np.array([columns.first_chromosome + code]), genes, np.array([CLOSE])]
    return np.concatenate(sentence)


def pad(sentences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, longest), 0 behind the end, and the mask, 1 for tokens, of a batch."""
    tokens = np.zeros((len(sentences), max(map(len, sentences))), np.int64)
    mask = np.zeros(tokens.shape, np.float32)
    for row, sentence in enumerate(sentences):
        tokens[row, : len(sentence)] = sentence
        mask[row, : len(sentence)] = 1
    return tokens, mask


def match(names: list[str], symbols: list[str], ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which columns are genes of the table, by symbol or id whatever the case, and the row of each."""
    rows = {name.upper(): row for column in (ids, symbols) for row, name in enumerate(column) if name}
    found = np.array([rows.get(name.upper(), -1) for name in names])
    return np.flatnonzero(found >= 0), found[found >= 0]


def embed(adata: anndata.AnnData, folder: str, species: str, seed: int) -> np.ndarray:
    """Vectors (cells, out_dim) of all cells, batch by batch in their order."""
    loaded = load_model(folder)
    table = load_gene_table(species, encoder=loaded.gene_encoder)
    vocabulary = build_vocabulary(table, loaded.specials, chromosome_vectors=loaded.chromosome_vectors)
    model = PlainUCE(loaded.config, loaded.encoder.state_dict())
    vectors = torch.from_numpy(vocabulary.vectors)
    kept, rows = match(adata.var_names.tolist(), table.symbols.tolist(), table.ids.tolist())
    ranks = vocabulary.ranks[rows]
    columns = Columns(vocabulary.first_gene + ranks, vocabulary.gene_chromosomes[ranks], table.starts[rows], CLS + 1)
    random = np.random.RandomState(seed)
    found = []
    for first in range(0, adata.n_obs, BATCH):
        block = adata.X[first : first + BATCH]
        counts = (block if isinstance(block, np.ndarray) else block.toarray())[:, kept].astype(np.int64)
        if not counts.any(axis=1).all():
            raise SystemExit(
                f"a cell of {first}..{first + len(counts) - 1} has no count; the published code stops too."
            )
        tokens, mask = pad([write_sentence(row, columns, random, loaded.rule.draws) for row in counts])
        found.append(encode(model, vectors[torch.from_numpy(tokens)], torch.from_numpy(mask)).numpy())
    return np.concatenate(found)


def main() -> None:
    """Embed a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help=".h5ad with counts in X")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".npy, or .h5ad with the vectors in obsm")
    parser.add_argument("--model", required=True, help="model folder of the published architecture")
    parser.add_argument("--species", default="human", help="(human)")
    parser.add_argument("--seed", type=int, default=0, help="of the stream of draws (0)")
    args = parser.parse_args()
    adata = anndata.read_h5ad(args.input)
    vectors = embed(adata, args.model, args.species, args.seed)
    if args.output.suffix == ".npy":
        np.save(args.output, vectors)
    else:
        adata.obsm["X_uce"] = vectors
        adata.write_h5ad(args.output)


if __name__ == "__main__":
    main()
