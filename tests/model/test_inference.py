"""The encoder as an embedding runs it gives what the encoder gives."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from uce.devices import Precision
from uce.model import inference
from uce.model.encoder import Block, Encoder, ModelConfig, attend
from uce.model.inference import CastLinear, PackedLinear, attend_by_heads, first_block, prepare

CPU = torch.device("cpu")
SMALL = ModelConfig(layers=3, dim=64, heads=4, hidden=96, protein_dim=24, out_dim=16, decoder_dim=20, max_tokens=128)
IDS = torch.randint(0, 30, (5, 40), generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.usefixtures("_same_numbers")


@pytest.fixture
def _same_numbers() -> Any:
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
    assert lost_by_rounding > 10 * lost


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


def test_attention_by_heads_is_attention() -> None:
    q, k, v = torch.randn(3, 2, 5, 70, 16).bfloat16().unbind()
    exact = attend(q.float(), k.float(), v.float(), None, 0.0)
    torch.testing.assert_close(attend_by_heads(q, k, v, None, 0.0).float(), exact, rtol=0, atol=0.02)
    mask = torch.arange(70).expand(2, 1, 1, 70) < 50
    assert torch.equal(attend_by_heads(q, k, v, mask, 0.0), attend(q, k, v, mask, 0.0))


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_few_queries_see_what_all_of_them_see(kind: str) -> None:
    block, x = Block(SMALL).eval(), torch.randn(3, 12, 64)
    for name, parameter in block.named_parameters():
        if name.endswith("bias"):
            parameter.copy_(torch.randn_like(parameter))
    keep = torch.arange(12).expand(3, 12) < torch.tensor([[12], [7], [1]])
    mask = {"none": None, "bool": keep[:, None, None], "float": keep[:, None, None].float()}[kind]
    torch.testing.assert_close(block(x, mask, queries=2), block(x, mask)[:, :2], rtol=0, atol=2e-6)
