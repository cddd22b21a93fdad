"""Proteins to vectors by ESM2 (Lin et al., Science 2023), as fair-esm runs it: mean of the last layer over residues.

The weights are read here and not by fair-esm's own loader, which unpickles whatever is in the file, downloads by name,
demands a second file that is not needed and picks the architecture by file name.
"""

import warnings
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from uce.errors import InputError, ModelError
from uce.files import printable, sha256_file
from uce.genes.sources import read_tensors

if TYPE_CHECKING:
    import torch

MAX_RESIDUES = 1022  # with BOS and EOS the 1,024 tokens ESM2 was trained on
OVERLAP = 512
_LARGEST = {"encoder_layers": 200, "encoder_embed_dim": 20_480, "encoder_attention_heads": 200}


@dataclass(frozen=True)
class ProteinEncoder:
    """A loaded ESM2, in evaluation mode."""

    name: str
    """Name of the model, "esm2_t33_650M_UR50D": gene tables of different names never mix."""
    sha256: str
    """Hash of the weights file."""
    module: "torch.nn.Module"
    layers: int
    dim: int
    """Width of the vectors."""
    tokens: NDArray[np.int64]
    """(128,) token of each ASCII letter, -1 where ESM2 has none."""
    bos: int
    eos: int
    padding: int


def load_esm2(path: str | Path, *, name: str | None = None, device: str = "cpu") -> ProteinEncoder:
    """Load an ESM2 weights file of the form fair-esm publishes. Runs no code from the file.

    Parameters
    ----------
    path
        The weights, `esm2_t33_650M_UR50D.pt`; no contact-regression file is needed.
    name
        Name of the encoder in gene tables; the file's stem where not given.

    Raises
    ------
    ModelError
        The file is missing, damaged, not an ESM2, or asks for anything but tensors and settings.
    """
    import torch
    from esm.pretrained import load_model_and_alphabet_core

    path = Path(path)
    if not path.is_file():
        msg = f"{path}: no such file; ESM2 weights of fair-esm (.pt) are expected there."
        raise ModelError(msg)
    with torch.serialization.safe_globals([Namespace]):  # the settings travel as one; it holds plain values only
        data = read_tensors(path)
    layers, dim = _check(data, path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Regression weights not found")  # contacts are not used
            module, alphabet = load_model_and_alphabet_core("esm2", data, None)
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        reason = printable(" ".join(str(error).split()), limit=200)
        msg = f"{path}: the tensors do not fit an ESM2 of {layers} layers, {dim} wide ({reason}). Get the file again."
        raise ModelError(msg) from error
    tokens = np.full(128, -1, dtype=np.int64)
    for letter in "LAGVSERTIDPKQNFYMHWCXBUZO":
        tokens[ord(letter)] = alphabet.tok_to_idx[letter]
    return ProteinEncoder(
        name=name or path.stem,
        sha256=sha256_file(path),
        module=module.eval().requires_grad_(False).to(torch.device(device)),
        layers=layers,
        dim=dim,
        tokens=tokens,
        bos=alphabet.cls_idx,
        eos=alphabet.eos_idx,
        padding=alphabet.padding_idx,
    )


def _check(data: Any, path: Path) -> tuple[int, int]:
    """Layers and width, after comparing the settings with the tensors: nothing large is built from settings alone."""
    config = data.get("cfg") if isinstance(data, dict) else None
    settings = config.get("model") if isinstance(config, dict) else None
    tensors = data.get("model") if isinstance(data, dict) else None
    if not isinstance(settings, Namespace) or not isinstance(tensors, dict):
        msg = f"{path}: not ESM2 weights in fair-esm's form (a dict with 'cfg' and 'model'). Give one of its esm2_*.pt."
        raise ModelError(msg)
    values = {key: getattr(settings, key, None) for key in _LARGEST}
    for key, value in values.items():
        if type(value) is not int or not 1 <= value <= _LARGEST[key]:
            msg = f"{path}: {key} is {printable(repr(value))}; a whole number from 1 to {_LARGEST[key]} is needed."
            raise ModelError(msg)
    layers, dim = settings.encoder_layers, settings.encoder_embed_dim
    shape = tuple(getattr(tensors.get("encoder.sentence_encoder.embed_tokens.weight"), "shape", ()))
    last = f"encoder.sentence_encoder.layers.{layers - 1}.fc1.weight"
    if len(shape) != 2 or shape[1] != dim or last not in tensors or dim % settings.encoder_attention_heads:
        msg = f"{path}: settings say {layers} layers, {dim} wide; the tensors differ. Get the file again."
        raise ModelError(msg)
    return layers, dim


def embed_sequences(
    encoder: ProteinEncoder,
    sequences: Sequence[str],
    *,
    batch_tokens: int = 4096,
    long_proteins: Literal["truncate", "window"] = "truncate",
) -> NDArray[np.float32]:
    """Mean over residues of ESM2's last layer, without BOS and EOS, in the order given.

    Parameters
    ----------
    sequences
        Clean residues (see `sequences.clean_residues`), none empty.
    batch_tokens
        Most tokens in a batch, padding included; a longer protein goes alone. Changes speed and memory, not results.
    long_proteins
        Beyond 1,022 residues: read the first 1,022 (as published), or windows of 1,022 that overlap by 512, averaged by
        their number of residues.

    Returns
    -------
    NDArray
        (sequences, dim) float32.

    Raises
    ------
    InputError
        A sequence is empty or has a letter ESM2 has no token for.
    """
    pieces = [_tokens(encoder, piece) for text in sequences for piece in _pieces(text, long_proteins)]
    owners = np.repeat(np.arange(len(sequences)), [len(_pieces(text, long_proteins)) for text in sequences])
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    sums = np.zeros((len(sequences), encoder.dim))
    for batch in token_batches(lengths + 2, batch_tokens=batch_tokens):
        means = _embed_batch(encoder, [pieces[index] for index in batch])
        np.add.at(sums, owners[batch], means * lengths[batch, None])
    totals = np.bincount(owners, weights=lengths, minlength=len(sequences))
    return (sums / totals[:, None]).astype(np.float32)


def _pieces(text: str, long_proteins: str) -> list[str]:
    if long_proteins == "truncate" or len(text) <= MAX_RESIDUES:
        return [text[:MAX_RESIDUES]]
    step = MAX_RESIDUES - OVERLAP
    return [text[start : start + MAX_RESIDUES] for start in range(0, len(text) - OVERLAP, step)]


def _tokens(encoder: ProteinEncoder, text: str) -> NDArray[np.int64]:
    letters = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)
    tokens = encoder.tokens[np.minimum(letters, 127)]
    if not len(tokens) or tokens.min() < 0:
        msg = f"sequence {printable(text, limit=20)!r}: empty, or a letter that ESM2 does not know. Clean it first."
        raise InputError(msg)
    return tokens


def token_batches(lengths: NDArray[np.int64], *, batch_tokens: int) -> list[NDArray[np.int64]]:
    """Indices grouped by length, shortest first, each group within `batch_tokens` when padded to its longest."""
    order = np.argsort(lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    begin = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - begin) * lengths[order[end]] > batch_tokens:
            batches.append(order[begin:end])
            begin = end
    return batches


def _embed_batch(encoder: ProteinEncoder, pieces: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """(pieces, dim) means over the residues of each piece."""
    import torch

    longest = max(len(piece) for piece in pieces)
    tokens = np.full((len(pieces), longest + 2), encoder.padding, dtype=np.int64)
    tokens[:, 0] = encoder.bos
    for row, piece in enumerate(pieces):
        tokens[row, 1 : len(piece) + 1] = piece
        tokens[row, len(piece) + 1] = encoder.eos
    device = next(encoder.module.parameters()).device
    with torch.inference_mode():
        answer = encoder.module(torch.from_numpy(tokens).to(device), repr_layers=[encoder.layers])
    hidden = answer["representations"][encoder.layers].float().cpu().numpy()  # (pieces, longest + 2, dim)
    return np.stack(
        [hidden[row, 1 : len(piece) + 1].mean(axis=0, dtype=np.float64) for row, piece in enumerate(pieces)]
    )
