"""The recursive encoder: the same blocks, run in cycles; what truncated gradients and carried states are."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uce.devices import Precision
from uce.errors import ModelError
from uce.model.checkpoint import load_model
from uce.model.encoder import LATER, Encoder, ModelConfig, Recursion
from uce.model.inference import first_block, prepare

STACKED = ModelConfig(layers=2, dim=16, heads=2, hidden=24, protein_dim=8, out_dim=12, decoder_dim=20, max_tokens=64)
RECURSIVE = replace(STACKED, kind="recursive", cycles=4)


def make(config: ModelConfig, *, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(config).double().eval()


@pytest.fixture
def sentences() -> tuple[Tensor, Tensor]:
    """Five sentences of up to 11 tokens."""
    torch.manual_seed(1)
    keep = torch.arange(11) < torch.tensor([11, 3, 8, 11, 1])[:, None]
    return torch.randn(5, 11, 8, dtype=torch.float64), keep


def test_one_cycle_is_the_stacked_encoder(sentences: tuple[Tensor, Tensor]) -> None:
    once = make(replace(RECURSIVE, cycles=1))
    assert torch.equal(once(*sentences), make(STACKED)(*sentences))


def test_cycles_are_the_blocks_again_on_state_and_input(sentences: tuple[Tensor, Tensor]) -> None:
    encoder = make(RECURSIVE)
    vectors, keep = sentences
    x = encoder.project(vectors) + encoder.positions[:11]
    state = torch.zeros_like(x)
    for _ in range(4):
        state = state + x
        for block in encoder.blocks:
            state = block(state, keep[:, None, None])
    assert torch.allclose(encoder.hidden_states(encoder.project(vectors), keep), state, atol=1e-12)


def test_an_input_that_is_given_once_is_only_the_first_state(sentences: tuple[Tensor, Tensor]) -> None:
    encoder = make(replace(RECURSIVE, inject="first"))
    vectors, keep = sentences
    state = encoder.project(vectors) + encoder.positions[:11]
    for block in [*encoder.blocks] * 4:
        state = block(state, keep[:, None, None])
    assert torch.allclose(encoder.hidden_states(encoder.project(vectors), keep), state, atol=1e-12)


def test_more_cycles_need_no_more_weights_and_change_the_vectors(sentences: tuple[Tensor, Tensor]) -> None:
    few, many = make(RECURSIVE), make(replace(RECURSIVE, cycles=21))
    assert few.state_dict().keys() == many.state_dict().keys()
    assert sum(p.numel() for p in few.parameters()) == sum(p.numel() for p in many.parameters())
    assert not torch.allclose(few(*sentences), many(*sentences), atol=1e-3)
    few.cycles = 21
    assert torch.equal(few(*sentences), many(*sentences))


@pytest.mark.parametrize("pads", [1, 40])
def test_padding_is_never_seen_however_many_cycles(sentences: tuple[Tensor, Tensor], pads: int) -> None:
    encoder = make(replace(RECURSIVE, cycles=21)).float()
    vectors, keep = sentences[0].float(), sentences[1]
    padded = torch.cat([vectors, 1e3 * torch.randn(5, pads, 8)], dim=1)
    wider = torch.cat([keep, torch.zeros(5, pads, dtype=torch.bool)], dim=1)
    assert (encoder(padded, wider) - encoder(vectors, keep)).abs().max() < 1e-5


def test_a_truncated_gradient_is_that_of_a_state_cut_by_hand(sentences: tuple[Tensor, Tensor]) -> None:
    vectors, keep = sentences
    ours, theirs = make(RECURSIVE).train(), make(RECURSIVE)
    for encoder in (ours, theirs):
        encoder.dropout.p = 0.0
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "heads"):
                module.dropout = 0.0
    ours.recursion = Recursion(steps=1, cycles=4, without_gradient=3)
    aim = torch.randn(5, 12, dtype=torch.float64)
    (ours(vectors, keep) * aim).sum().backward()
    x = theirs.project(vectors) + theirs.positions[:11]
    state = torch.zeros_like(x)
    for cycle in range(4):
        state = state.detach() + x if cycle == 3 else state + x
        for block in theirs.blocks:
            state = block(state, keep[:, None, None])
    decoded = theirs.decoder(state[:, 0])
    (torch.nn.functional.normalize(decoded, dim=1) * aim).sum().backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None, name
        assert other.grad is not None, name
        assert (one.grad - other.grad).abs().max() < 1e-10, name


def test_steps_of_supervision_go_on_from_each_other_and_no_gradient_crosses(sentences: tuple[Tensor, Tensor]) -> None:
    vectors, keep = sentences
    encoder = make(RECURSIVE)
    encoder.recursion = Recursion(steps=2, cycles=2, without_gradient=0)
    projected = encoder.project(vectors)
    first, state = encoder.supervised(projected, keep)
    second, _ = encoder.supervised(projected, keep, carried=state)
    assert not state.requires_grad
    assert torch.allclose(second, encoder.encode(projected, keep), atol=1e-12)
    encoder.cycles = 2
    assert torch.allclose(first, encoder.encode(projected, keep), atol=1e-12)


def test_changes_of_the_state_are_seen_in_training(sentences: tuple[Tensor, Tensor]) -> None:
    encoder = make(RECURSIVE)
    encoder.recursion = Recursion(steps=1, cycles=4, without_gradient=0)
    encoder(*sentences)
    assert encoder.recursion.changes is None
    encoder.train()(*sentences)
    assert encoder.recursion.changes is not None
    assert encoder.recursion.changes.shape == (3,)
    assert bool((encoder.recursion.changes > 0).all())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cycles": 2}, r"cycles = 2, .*kind = recursive"),
        ({"inject": "first"}, r"inject = first: kind = stacked"),
        ({"kind": "recursive", "norm": "pre"}, r"needs norm = post"),
        ({"kind": "recursive", "cycles": 0}, r"cycles = 0: a whole number from 1"),
        ({"input_scale": -1.0}, r"input_scale = -1.0: a number from 0.001"),
        ({"input_scale": float("nan")}, r"input_scale = nan: a number from 0.001"),
        ({"kind": "spiral"}, r"kind = 'spiral': choose one of stacked, recursive"),
    ],
)
def test_settings_that_contradict_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        replace(STACKED, **changes)


@pytest.mark.parametrize("config", [STACKED, RECURSIVE, replace(STACKED, input_scale=2.0)])
def test_a_folder_brings_back_later_settings_and_names_those_alone_that_are_changed(
    config: ModelConfig, saved: Callable[..., Path]
) -> None:
    folder = saved(encoder=Encoder(config))
    loaded = load_model(folder)
    assert loaded.config == config
    assert loaded.encoder.cycles == config.cycles
    named = set(json.loads((folder / "config.json").read_text())["model"])
    assert named & set(LATER) == {name for name in LATER if getattr(config, name) != getattr(ModelConfig(), name)}


def test_the_scale_of_the_input_is_that_of_what_blocks_see_and_not_of_the_mean_token() -> None:
    torch.manual_seed(0)
    plain, small = Encoder(STACKED), Encoder(replace(STACKED, input_scale=0.5))
    small.load_state_dict(plain.state_dict())
    vectors = torch.randn(3, 5, 8)
    one, other = plain.project(vectors), small.project(vectors)
    assert torch.allclose(other, one / 8)  # sqrt(16) to a half
    assert torch.allclose(small.mean_token(other), plain.mean_token(one))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_embedding_runs_the_same_cycles_faster(layers: int, precision: Precision) -> None:
    torch.manual_seed(0)
    wide = replace(RECURSIVE, layers=layers, dim=64, heads=4, hidden=128, protein_dim=32, out_dim=32, decoder_dim=32)
    encoder = Encoder(replace(wide, dropout=0.0)).eval().requires_grad_(requires_grad=False)
    fast = prepare(encoder, torch.device("cpu"), precision)
    vectors, ids = torch.randn(40, 32), torch.randint(40, (6, 20))
    projected = fast.project(vectors)
    first = first_block(encoder, projected)
    for cycles in (1, 4):
        encoder.cycles = fast.cycles = cycles
        ours = fast.encode(projected[ids], qkv=first(ids) if first else None)
        theirs = encoder.encode(encoder.project(vectors)[ids])
        if precision == "fp32":
            assert torch.allclose(ours, theirs, atol=1e-5)
        else:
            assert float(torch.cosine_similarity(ours, theirs).min()) > 0.9995
            assert layers == 1 or not torch.equal(ours, theirs)


def test_truncation_points_the_right_way_at_the_scale_of_the_input() -> None:
    """The gradient of the last cycles agrees with the whole one where the input is sqrt(D) large, as ours is."""
    torch.manual_seed(0)
    config = ModelConfig(
        layers=2, dim=64, heads=4, hidden=128, protein_dim=16, out_dim=32, decoder_dim=64, dropout=0.0,
        kind="recursive", cycles=12, positions="none",
    )  # fmt: skip
    encoder = Encoder(config).double().train()
    vectors, aim = torch.randn(8, 20, 16, dtype=torch.float64), torch.randn(8, 32, dtype=torch.float64)

    def gradient(without: int) -> Tensor:
        encoder.zero_grad()
        encoder.recursion = Recursion(steps=1, cycles=12, without_gradient=without)
        (encoder(vectors) * aim).sum().backward()
        return torch.cat([p.grad.flatten() for p in encoder.blocks.parameters() if p.grad is not None])

    whole = gradient(0)
    cosines = [float(torch.cosine_similarity(whole, gradient(12 - last), dim=0)) for last in (1, 6)]
    assert cosines[1] > 0.9
    assert cosines[1] > cosines[0]
