"""The encoder as an embedding runs it gives what the encoder gives."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from uce.devices import Precision
from uce.model import inference
from uce.model.blocks import Block, attend
from uce.model.encoder import Encoder, ModelConfig
from uce.model.inference import CastLinear, PackedLinear, attend_by_heads, first_block, prepare

CPU = torch.device("cpu")
SMALL = ModelConfig(layers=3, dim=64, heads=4, hidden=96, protein_dim=24, out_dim=16, decoder_dim=20, max_tokens=128)
IDS = torch.randint(0, 30, (5, 40), generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.usefixtures("_same_numbers")


@pytest.fixture
def _same_numbers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(inference, "_LONG", 16)  # the sentences here are long ones, but for a few
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def made(**changes: Any) -> tuple[Encoder, Tensor]:
    """An encoder with biases that are not 0, and the projected tokens of a species of 30."""
    encoder = Encoder(replace(SMALL, **changes)).eval().requires_grad_(requires_grad=False)
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            parameter.copy_(torch.randn_like(parameter) / 10)
    return encoder, encoder.project(torch.randn(30, 24))


def sharpened(encoder: Encoder) -> Encoder:
    """With scores of hundreds in the first block, as torch's initial weights give for tokens sqrt(D) long."""
    attention = encoder.blocks[0].attention
    for linear in (attention.query, attention.key_value):
        assert isinstance(linear, torch.nn.Linear)
        linear.weight[: encoder.config.dim] *= 2 * encoder.config.dim**0.5
    return encoder


def run(encoder: Encoder, projected: Tensor, precision: Precision, ids: Tensor = IDS) -> Tensor:
    """As the engine does."""
    first = first_block(encoder, projected)
    fast = prepare(encoder, CPU, precision)
    return fast.encode(projected[ids], qkv=first(ids) if first else None)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "pre"}, {"activation": "gelu"}, {"positions": "none"}, {"layers": 1}, {"readout": "cls+mean"}],
    ids=str,
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_gives_what_the_encoder_gives(
    changes: dict[str, Any], precision: Precision, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if packs and not inference._packs(CPU):
        pytest.skip("this processor or this torch has no packed weights of oneDNN")
    monkeypatch.setattr(inference, "_packs", lambda _device: packs)
    encoder, projected = made(**changes)
    expected = encoder.encode(projected[IDS])
    given = run(encoder, projected, precision)
    assert given.dtype == torch.float32
    if precision == "fp32":
        torch.testing.assert_close(given, expected, rtol=0, atol=2e-6)
    else:
        assert (given * expected).sum(1).min() > 0.9999
        assert changes == {"layers": 1} or not torch.equal(given, expected)  # one block is the last, in float32


@pytest.mark.parametrize("length", [4, 5, 17])
def test_short_sentences_are_no_exception(length: int) -> None:
    encoder, projected = made()
    ids = IDS[:, :length]
    torch.testing.assert_close(run(encoder, projected, "fp32", ids), encoder.encode(projected[ids]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cell_has_the_same_vector_whatever_its_batch(precision: Precision) -> None:
    encoder, projected = made()
    together = run(encoder, projected, precision)
    alone = torch.cat([run(encoder, projected, precision, row[None]) for row in IDS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_sharp_attention_of_the_first_block_survives_bfloat16() -> None:
    encoder, projected = made()
    sharpened(encoder)
    expected = encoder.encode(projected[IDS])
    given = run(encoder, projected, "bf16")
    rounded = prepare(encoder, CPU, "bf16").encode(projected[IDS])  # its queries and keys computed in bfloat16
    lost, lost_by_rounding = ((1 - (vectors * expected).sum(1)).max() for vectors in (given, rounded))
    assert lost < 1e-4
    assert lost_by_rounding > 5 * lost


def test_the_encoder_itself_stays_as_it_is_and_shares_its_weights() -> None:
    encoder, _ = made()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    fast = prepare(encoder, CPU, "bf16")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    kinds = {type(module) for module in encoder.modules()}
    assert not kinds & {PackedLinear, CastLinear}
    assert fast.decoder[3].weight.data_ptr() == encoder.decoder[3].weight.data_ptr()  # type: ignore[union-attr]
    assert any(isinstance(module, PackedLinear | CastLinear) for module in fast.modules())


def test_the_first_block_is_looked_up_only_where_it_is_linear_in_its_input() -> None:
    for changes in ({"norm": "pre"}, {"layers": 1}):
        assert first_block(*made(**changes)) is None
    encoder, projected = made()
    first, attention = first_block(encoder, projected), encoder.blocks[0].attention
    assert first is not None
    assert isinstance(attention.query, torch.nn.Linear)
    x = projected[IDS] + encoder.positions[: IDS.shape[1]]
    expected = torch.cat([attention.query(x), attention.key_value(x)], dim=-1)  # type: ignore[operator]
    torch.testing.assert_close(first(IDS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("at_once", [1, 2, 9])
@pytest.mark.parametrize(
    ("given", "inner", "error"),
    [
        (torch.float32, torch.float32, 1e-6),
        (torch.float32, torch.bfloat16, 0.01),
        (torch.bfloat16, torch.bfloat16, 0.02),
    ],
    ids=str,
)
def test_attention_by_heads_is_attention(
    batch: int,
    at_once: int,
    given: torch.dtype,
    inner: torch.dtype,
    error: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "_SCORES", at_once * 70 * 70)
    # As the encoder hands them over: heads are parts of a row, so none of them is in one piece.
    q, k, v = torch.randn(batch, 70, 3, 5, 16).to(given).permute(2, 0, 3, 1, 4).unbind()
    exact = attend(q.float(), k.float(), v.float(), None, 0.0)
    mixed = attend_by_heads(q, k, v, None, 0.0, dtype=inner)
    assert mixed.dtype == inner
    torch.testing.assert_close(mixed.float(), exact, rtol=0, atol=error)
    mask = torch.arange(70).expand(batch, 1, 1, 70) < 50
    assert torch.equal(attend_by_heads(q, k, v, mask, 0.0, dtype=inner), attend(q, k, v, mask, 0.0).to(inner))


@pytest.mark.parametrize(("given", "length"), [(torch.float32, 70), (torch.float32, 9), (torch.bfloat16, 70)], ids=str)
def test_a_cell_attends_to_the_bit_alike_alone_and_among_others(given: torch.dtype, length: int) -> None:
    q, k, v = torch.randn(3, 4, 5, length, 16).to(given).unbind()
    together = attend_by_heads(q, k, v, None, 0.0, dtype=given)
    alone = [attend_by_heads(*(x[cell][None] for x in (q, k, v)), None, 0.0, dtype=given) for cell in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_scores_far_apart_are_not_rounded_where_they_come_in_float32() -> None:
    q, k, v = torch.randn(3, 1, 2, 70, 16).unbind()
    exact, by_heads = (way(20 * q, k, v, None, 0.0) for way in (attend, partial(attend_by_heads, dtype=torch.bfloat16)))
    rounded = attend_by_heads(*((20 * q).bfloat16(), k.bfloat16(), v), None, 0.0, dtype=torch.bfloat16)
    lost, lost_by_rounding = ((mixed.float() - exact).abs().max() for mixed in (by_heads, rounded))
    assert lost < 0.02
    assert lost_by_rounding > 5 * lost


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_few_queries_see_what_all_of_them_see(kind: str) -> None:
    block, x = Block(SMALL).eval(), torch.randn(3, 12, 64)
    for name, parameter in block.named_parameters():
        if name.endswith("bias"):
            parameter.copy_(torch.randn_like(parameter))
    keep = torch.arange(12).expand(3, 12) < torch.tensor([[12], [7], [1]])
    mask = {"none": None, "bool": keep[:, None, None], "float": keep[:, None, None].float()}[kind]
    torch.testing.assert_close(block(x, mask, queries=2), block(x, mask)[:, :2], rtol=0, atol=2e-6)
