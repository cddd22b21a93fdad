"""Proteins to vectors by ESM2 (Lin et al., Science 2023), as fair-esm runs it: mean of the last layer over residues.

The weights are read here and not by fair-esm's own loader, which unpickles whatever is in the file, downloads by name,
demands a second file that is not needed and picks the architecture by file name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from uce.devices import ProteinPrecision, arithmetic, pick_device, pick_protein_precision
from uce.errors import InputError, ModelError
from uce.files import printable, sha256_file
from uce.genes.proteins.sequences import RESIDUES
from uce.genes.proteins.weights import Architecture, encoder_name, read_weights, recorded_sha256
from uce.progress import say

if TYPE_CHECKING:
    import torch

LongProteins = Literal["truncate", "window"]

MAX_RESIDUES = 1022  # with BOS and EOS the 1,024 tokens ESM2 was trained on
OVERLAP = 512


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
    precision: ProteinPrecision
    """Of the matrix products; float32 outside them."""
    tokens: NDArray[np.int64]
    """(128,) token of each ASCII letter, -1 where ESM2 has none."""
    bos: int
    eos: int
    padding: int

    @property
    def device(self) -> "torch.device":
        """Where it computes."""
        return next(self.module.parameters()).device


def load_esm2(path: str | Path, *, device: str = "cpu", precision: str = "fp32") -> ProteinEncoder:
    """Load an ESM2 weights file of the form fair-esm publishes. Runs no code from the file.

    Tensors go from the mapped file to their place one at a time, so loading needs no more memory than the model.

    Parameters
    ----------
    path
        The weights, `esm2_t33_650M_UR50D.pt`; no contact-regression file is needed. The stem of its name is the
        encoder's in gene tables.
    device
        `auto`, `cpu`, `cuda` or `mps`, see `pick_device`.
    precision
        `auto`, `fp32`, `bf16` or `fp16`, see `pick_protein_precision`. Only the matrices take it: embedding, norms and
        rotary frequencies stay float32 (positions beyond 256 are no bf16 numbers).

    Raises
    ------
    ModelError
        The file is missing, damaged, changed since its download, not an ESM2, or asks for anything but tensors and
        settings; or the device has too little memory for it.
    UsageError
        The device or precision is not to be had.
    """
    path = Path(path)
    name = encoder_name(path)
    place = pick_device(device)
    kind = pick_protein_precision(precision, place)
    data, architecture = read_weights(path)
    found, recorded = sha256_file(path), recorded_sha256(path)
    if recorded not in (None, found):
        msg = (
            f"{path}: changed since its download (SHA-256 {found[:12]}, not {recorded[:12]}). Delete it, fetch it anew."
        )
        raise ModelError(msg)
    module = _module(data, path, architecture, place, kind)
    tokens = np.full(128, -1, dtype=np.int64)
    for letter in RESIDUES:
        tokens[ord(letter)] = module.alphabet.tok_to_idx[letter]
    return ProteinEncoder(
        name=name,
        sha256=found,
        module=module,
        layers=architecture.layers,
        dim=architecture.dim,
        precision=kind,
        tokens=tokens,
        bos=module.cls_idx,
        eos=module.eos_idx,
        padding=module.padding_idx,
    )


def _module(
    data: Any, path: Path, architecture: Architecture, device: "torch.device", precision: ProteinPrecision
) -> Any:
    """fair-esm's own module with the weights in place, without the parts that predict contacts and letters."""
    import torch
    from esm.model.esm2 import ESM2

    layers, dim = architecture.layers, architecture.dim
    reduced = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    try:
        with torch.device("meta"):  # sizes alone: the weights come from the file
            dropout = data["cfg"]["model"].token_dropout
            module = ESM2(layers, dim, architecture.heads, token_dropout=dropout)
        del module.contact_head
        linear = {name for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)}
        own = {re.sub(r"^encoder\.(sentence_encoder\.)?", "", key): tensor for key, tensor in data["model"].items()}
        state = {
            key: tensor.to(device, reduced if key.rpartition(".")[0] in linear else torch.float32)
            for key, tensor in own.items()
            if not key.startswith("contact_head.")
        }
        module.load_state_dict(state, assign=True)
    except (RuntimeError, AttributeError, TypeError, ValueError, MemoryError) as error:
        if _out_of_memory(error):
            msg = (
                f"{path}: too large for the memory of {device}. Use --precision bf16, a smaller ESM2, or --device cpu."
            )
            raise ModelError(msg) from error
        reason = printable(" ".join(str(error).split()), limit=200)
        msg = f"{path}: the tensors do not fit an ESM2 of {layers} layers, {dim} wide ({reason}). Get the file again."
        raise ModelError(msg) from error
    module.lm_head = torch.nn.Identity()  # it guesses letters, which nobody asks for here
    return module.eval().requires_grad_(False)


def _out_of_memory(error: BaseException) -> bool:
    import torch

    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in text or "allocate mem" in text


def embed_sequences(
    encoder: ProteinEncoder,
    sequences: Sequence[str],
    *,
    batch_tokens: int = 4096,
    long_proteins: LongProteins = "truncate",
) -> NDArray[np.float32]:
    """Mean over residues of ESM2's last layer, without BOS and EOS, in the order given.

    Parameters
    ----------
    sequences
        Clean residues (see `sequences.clean_residues`), none empty.
    batch_tokens
        Most tokens in a batch, padding included; a longer protein goes alone. Changes speed and memory, not results.
        A batch that does not fit the device's memory is halved.
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
    ModelError
        One protein alone does not fit the device's memory, or a vector is not finite.
    """
    cuts = [piece_spans(len(text), long_proteins) for text in sequences]
    pieces = [_tokens(encoder, text[a:b]) for text, spans in zip(sequences, cuts, strict=True) for a, b in spans]
    owners = np.repeat(np.arange(len(sequences)), [len(spans) for spans in cuts])
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    sums = np.zeros((len(sequences), encoder.dim))
    for batch in token_batches(lengths + 2, batch_tokens=batch_tokens):
        means = _embed_within_memory(encoder, [pieces[index] for index in batch])
        np.add.at(sums, owners[batch], means * lengths[batch, None])
    totals = np.bincount(owners, weights=lengths, minlength=len(sequences))
    return (sums / totals[:, None]).astype(np.float32)


def piece_spans(length: int, long_proteins: LongProteins) -> list[tuple[int, int]]:
    """First and behind-last residue of the pieces in which a protein of this length is read."""
    if long_proteins == "truncate" or length <= MAX_RESIDUES:
        return [(0, min(length, MAX_RESIDUES))]
    step = MAX_RESIDUES - OVERLAP
    return [(start, min(start + MAX_RESIDUES, length)) for start in range(0, length - OVERLAP, step)]


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


def _embed_within_memory(encoder: ProteinEncoder, pieces: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """`_embed_batch`, in halves where the whole does not fit the device's memory."""
    try:
        means = _embed_batch(encoder, pieces)
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        if len(pieces) == 1:
            way = "--precision bf16 or --device cpu" if encoder.device.type != "cpu" else "a smaller ESM2"
            msg = (
                f"a protein of {len(pieces[0]):,} residues alone is too much for {encoder.device}'s memory. Use {way}."
            )
            raise ModelError(msg) from error
    else:
        if not np.isfinite(means).all():
            msg = f"{encoder.name} in {encoder.precision}: a vector is not finite. Use --precision bf16 or fp32."
            raise ModelError(msg)
        return means
    # Outside the handler, where the error no longer keeps the failed batch's tensors alive.
    _release_memory(encoder.device)
    half = len(pieces) // 2
    return np.concatenate([_embed_within_memory(encoder, part) for part in (pieces[:half], pieces[half:])])


def _release_memory(device: "torch.device") -> None:
    import torch

    _say_once(
        f"The memory of {device} is too small for such batches; they are halved. A lower --batch-tokens avoids it."
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()


@cache
def _say_once(text: str) -> None:
    say(text)


def _embed_batch(encoder: ProteinEncoder, pieces: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """(pieces, dim) means over the residues of each piece."""
    import torch

    longest = max(len(piece) for piece in pieces)
    tokens = np.full((len(pieces), longest + 2), encoder.padding, dtype=np.int64)
    tokens[:, 0] = encoder.bos
    for row, piece in enumerate(pieces):
        tokens[row, 1 : len(piece) + 1] = piece
        tokens[row, len(piece) + 1] = encoder.eos
    device = encoder.device
    with torch.inference_mode(), arithmetic(device, encoder.precision):
        answer = encoder.module(torch.from_numpy(tokens).to(device), repr_layers=[encoder.layers])
    hidden = answer["representations"][encoder.layers].float().cpu().numpy()  # (pieces, longest + 2, dim)
    return np.stack(
        [hidden[row, 1 : len(piece) + 1].mean(axis=0, dtype=np.float64) for row, piece in enumerate(pieces)]
    )
