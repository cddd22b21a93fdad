"""What the tests of the model share: published weights by their recipe, and small models."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from uce.cells.sentences import SentenceRule
from uce.model.checkpoint import save_model
from uce.model.encoder import Encoder, ModelConfig
from uce.model.initial import sinusoidal_positions

SMALL = ModelConfig(layers=2, dim=16, heads=2, hidden=24, protein_dim=8, out_dim=12, decoder_dim=20, max_tokens=64)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """The same random weights and inputs in every run, on one thread."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small() -> Callable[..., Encoder]:
    """Make a small encoder in evaluation mode, its settings changed as asked, no weight at its starting value."""

    def make(**changes: Any) -> Encoder:
        encoder = Encoder(replace(SMALL, **changes)).eval().requires_grad_(requires_grad=False)
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return encoder

    return make


@pytest.fixture
def saved(tmp_path: Path, small: Callable[..., Encoder]) -> Callable[..., Path]:
    """Save a small model and return its folder; arguments replace those of `save_model`."""

    def make(folder: str = "tiny", **changes: Any) -> Path:
        given: dict[str, Any] = {
            "encoder": small(),
            "rule": SentenceRule(draws=32, max_tokens=64),
            "specials": np.arange(32, dtype=np.float32).reshape(4, 8),
            "gene_encoder": "toy",
            "gene_tables": [{"species": "homo_sapiens", "encoder": "toy", "sha256": "ab12"}],
            "info": {"objective": "masked", "metrics": {"kNN macro-F1": 0.5}},
        }
        return save_model(tmp_path / folder, **{**given, **changes})

    return make


def recipe(name: str, shape: tuple[int, ...]) -> Tensor:
    """The published test weights: normal numbers seeded by the parameter's name."""
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 2:
        x /= np.sqrt(shape[1])
    elif name.endswith("bias"):
        x *= 0.02
    else:
        x = 1 + 0.1 * x
    if name.endswith("in_proj_weight"):
        x[: 2 * shape[1]] /= np.sqrt(shape[1])
    return torch.from_numpy(x.astype(np.float32))


def published_shapes(
    *, layers: int, dim: int, hidden: int, protein_dim: int, out_dim: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, without the tables of tokens and positions."""
    linear = {"encoder.0": (dim, protein_dim), "gene_embedding_layer.0": (dim, protein_dim)}
    norm = {"encoder.2": dim, "gene_embedding_layer.2": dim}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        prefix = f"transformer_encoder.layers.{layer}."
        shapes |= {f"{prefix}self_attn.in_proj_weight": (3 * dim, dim), f"{prefix}self_attn.in_proj_bias": (3 * dim,)}
        linear |= {
            f"{prefix}self_attn.out_proj": (dim, dim),
            f"{prefix}linear1": (hidden, dim),
            f"{prefix}linear2": (dim, hidden),
        }
        norm |= {f"{prefix}norm1": dim, f"{prefix}norm2": dim}
    stacks = {"decoder": (dim, 1024, out_dim, out_dim, out_dim), "binary_decoder": (out_dim + 1280, 2048, 512, 128, 1)}
    for stack, widths in stacks.items():
        for block in range(3):
            linear[f"{stack}.{block}.0"], norm[f"{stack}.{block}.1"] = (
                (widths[block + 1], widths[block]),
                widths[block + 1],
            )
        linear[f"{stack}.3"] = (widths[4], widths[3])
    for name, (rows, columns) in linear.items():
        shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    for name, width in norm.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


@pytest.fixture(scope="session")
def published_state() -> Callable[..., dict[str, Tensor]]:
    """Make a published state dict of the recipe's weights, with a table of positions and none of tokens."""

    def make(*, max_tokens: int = 1536, **widths: int) -> dict[str, Tensor]:
        state = {name: recipe(name, shape) for name, shape in published_shapes(**widths).items()}
        return {**state, "pos_encoder.pe": sinusoidal_positions(max_tokens, widths["dim"])[:, None]}

    return make


@pytest.fixture(scope="session")
def layer_outputs() -> Callable[[Encoder, Tensor, Tensor], list[Tensor]]:
    """The tokens (B, L, D) after every block, all of them: what the encoder itself never computes in its last block."""

    def run(encoder: Encoder, projected: Tensor, key_bias: Tensor) -> list[Tensor]:
        x = projected + encoder.positions[: projected.shape[1]]
        outputs = [x]
        for block in encoder.blocks:
            outputs.append(block(outputs[-1], key_bias[:, None, None, :]))
        return outputs

    return run


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Mapping[str, Any]]:
    """The numbers the published program gave, by file name."""

    def load(name: str) -> Mapping[str, Any]:
        with np.load(shared / "golden" / f"{name}.npz") as content:
            return dict(content)

    return load
