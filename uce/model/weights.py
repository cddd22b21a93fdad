"""Published weights under our names: the state dict of the published program as an `Encoder`."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from uce.errors import ModelError
from uce.files import shorten
from uce.genes.sources import read_tensors
from uce.model.encoder import Encoder, ModelConfig

TOKENS = "pe_embedding.weight"
_POSITIONS, _LAYER = "pos_encoder.pe", "transformer_encoder.layers."
# Beside the table of tokens, the head of the training objective: embedding needs neither.
_NOT_NEEDED = ("binary_decoder.", "gene_embedding_layer.", TOKENS)


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: published name -> tensor, mapped from the disk.

    Raises
    ------
    ModelError
        The file is missing, damaged, hostile, or holds something else.
    """
    state = read_tensors(path)
    if not isinstance(state, Mapping) or not all(torch.is_tensor(value) for value in state.values()):
        msg = f"{path}: not a state dict (names of weights to tensors). Give the published weights."
        raise ModelError(msg)
    return {str(name): tensor.detach() for name, tensor in state.items()}


def published_encoder(state: Mapping[str, Tensor], *, path: Path, heads: int | None = None) -> Encoder:
    """The encoder in a published state dict, its shape read off the weights.

    Parameters
    ----------
    state
        Published name -> tensor; its weights are used, not copied.
    path
        Where it came from, for messages.
    heads
        Attention heads, which no weight shows. None: one per 64 of width, as published.

    Raises
    ------
    ModelError
        Names or shapes are not those of the published architecture; lists what differs.
    """
    needed = {name: tensor for name, tensor in state.items() if not name.startswith(_NOT_NEEDED)}
    config = _config(needed, path, heads)
    renamed = {ours: tensor.float() for name, tensor in needed.items() for ours, tensor in _renamed(name, tensor)}
    with torch.device("meta"):
        encoder = Encoder(config)
    expected = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    unknown = sorted(set(renamed) - set(expected))
    wrong = sorted(name for name, shape in expected.items() if name not in renamed or renamed[name].shape != shape)
    if unknown or wrong:
        msg = (
            f"{path}: not the published architecture: {shorten(unknown) or 'nothing'} unknown, "
            f"{shorten(wrong) or 'nothing'} missing or of another shape. Give the published weights."
        )
        raise ModelError(msg)
    encoder.load_state_dict(renamed, assign=True)
    return encoder.eval().requires_grad_(requires_grad=False)


def _config(state: Mapping[str, Tensor], path: Path, heads: int | None) -> ModelConfig:
    layers = {name.removeprefix(_LAYER).split(".")[0] for name in state if name.startswith(_LAYER)}
    dim, protein_dim = _shape(state, "encoder.0.weight", 2, path)
    max_tokens, _, _ = _shape(state, _POSITIONS, 3, path)
    if heads is None and dim % 64:
        msg = f"{path}: {dim} wide, not a multiple of 64; say how many attention heads it has."
        raise ModelError(msg)
    return ModelConfig(
        layers=len(layers),
        dim=dim,
        heads=heads or dim // 64,
        hidden=_shape(state, f"{_LAYER}0.linear1.weight", 2, path)[0],
        protein_dim=protein_dim,
        out_dim=_shape(state, "decoder.3.weight", 2, path)[0],
        decoder_dim=_shape(state, "decoder.0.0.weight", 2, path)[0],
        max_tokens=max_tokens,
    )


def _shape(state: Mapping[str, Tensor], name: str, axes: int, path: Path) -> tuple[int, ...]:
    shape = tuple(state[name].shape) if name in state else ()
    if len(shape) != axes:
        found = f"shape {shape}" if name in state else "missing"
        msg = f"{path}: not the published architecture ({name}: {found}). Give the published weights."
        raise ModelError(msg)
    return shape


_PLAIN = {"encoder.0.": "projection.", "encoder.2.": "projection_norm."}
_IN_LAYER = {
    "self_attn.out_proj.": "attention.out.",
    "norm1.": "attention_norm.",
    "linear1.": "expand.",
    "linear2.": "contract.",
    "norm2.": "feed_forward_norm.",
}


def _renamed(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """A published weight under our names; query, key and value are stacked in the published one."""
    if name == _POSITIONS:
        return [("positions", tensor.flatten(1))]
    if name.startswith(_LAYER):
        layer, _, rest = name.removeprefix(_LAYER).partition(".")
        block = f"blocks.{layer}."
        if rest in ("self_attn.in_proj_weight", "self_attn.in_proj_bias"):
            part, width = rest.rpartition("_")[2], len(tensor) // 3
            pieces = (("query", tensor[:width]), ("key_value", tensor[width:]))
            return [(f"{block}attention.{piece}.{part}", rows) for piece, rows in pieces]
        return [(block + _exchange(rest, _IN_LAYER), tensor)]
    return [(_exchange(name, _PLAIN), tensor)]


def _exchange(name: str, prefixes: Mapping[str, str]) -> str:
    for theirs, ours in prefixes.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
