"""The encoder against torch's own layers, and what it promises about padding, order of work and precision."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from uce.errors import ModelError
from uce.model.blocks import Attention, Block
from uce.model.encoder import Encoder, ModelConfig
from uce.model.expression import ExpressionHead
from uce.model.initial import initialise, sinusoidal_positions

TINY = ModelConfig(layers=2, dim=16, heads=2, hidden=24, protein_dim=8, out_dim=12, decoder_dim=20, max_tokens=64)


def torchs_own(encoder: Encoder) -> nn.TransformerEncoder:
    """`nn.TransformerEncoder` with the weights of our blocks."""
    config = encoder.config
    layer = nn.TransformerEncoderLayer(
        config.dim,
        config.heads,
        config.hidden,
        activation=config.activation,
        batch_first=True,
        norm_first=config.norm == "pre",
    )
    final = nn.LayerNorm(config.dim) if config.norm == "pre" else None
    theirs = nn.TransformerEncoder(layer, config.layers, norm=final, enable_nested_tensor=False).eval()
    for one, block in zip(theirs.layers, encoder.blocks, strict=True):
        one.self_attn.in_proj_weight.data = torch.cat([block.attention.query.weight, block.attention.key_value.weight])
        one.self_attn.in_proj_bias.data = torch.cat([block.attention.query.bias, block.attention.key_value.bias])
        pairs = (
            (one.self_attn.out_proj, block.attention.out),
            (one.norm1, block.attention_norm),
            (one.norm2, block.feed_forward_norm),
            (one.linear1, block.expand),
            (one.linear2, block.contract),
        )
        for target, source in pairs:
            target.load_state_dict(source.state_dict())
    if final is not None:
        theirs.norm.load_state_dict(encoder.final_norm.state_dict())
    return theirs.double()


def plain(encoder: Encoder, vectors: Tensor, keep: Tensor) -> Tensor:
    """The whole encoder over torch's own layers, on every token, by the equations of the publication."""
    config = encoder.config
    z = F.layer_norm(
        F.gelu(F.linear(vectors / vectors.norm(dim=-1, keepdim=True), *encoder.projection.parameters())),
        (config.dim,),
        *encoder.projection_norm.parameters(),
    )
    x = z * config.dim**0.5
    if config.positions == "sinusoidal":
        x = x + sinusoidal_positions(x.shape[1], config.dim)
    read = torchs_own(encoder)(x, src_key_padding_mask=~keep)[:, 0]
    decoded = encoder.decoder(read)
    if config.readout == "cls+mean":
        means = [tokens[1:][kept[1:]].mean(dim=0) for tokens, kept in zip(z, keep, strict=True)]
        decoded = decoded + encoder.mean_map(torch.stack(means))
    return decoded / decoded.norm(dim=1, keepdim=True)


GRID = [
    {
        "norm": norm,
        "activation": activation,
        "readout": readout,
        "positions": positions,
        "layers": layers,
        "heads": heads,
    }
    for (norm, activation, readout), (positions, layers, heads) in itertools.product(
        [("post", "relu", "cls"), ("post", "gelu", "cls+mean"), ("pre", "relu", "cls+mean"), ("pre", "gelu", "cls")],
        [("sinusoidal", 1, 1), ("none", 2, 4), ("sinusoidal", 3, 2)],
    )
]


@pytest.mark.parametrize("changes", GRID, ids=lambda changes: "-".join(map(str, changes.values())))
def test_the_encoder_equals_torchs_own_layers(small: Callable[..., Encoder], changes: dict[str, Any]) -> None:
    encoder = small(**changes).double()
    vectors = torch.randn(5, 11, 8, dtype=torch.float64)
    keep = torch.arange(11) < torch.tensor([11, 7, 2, 10, 5])[:, None]
    torch.testing.assert_close(encoder(vectors, keep), plain(encoder, vectors, keep), rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", GRID, ids=lambda changes: "-".join(map(str, changes.values())))
def test_hidden_states_are_the_outputs_of_torchs_own_layers(
    small: Callable[..., Encoder], changes: dict[str, Any]
) -> None:
    encoder = small(**changes).double()
    projected = encoder.project(torch.randn(5, 11, 8, dtype=torch.float64))
    keep = torch.arange(11) < torch.tensor([11, 7, 2, 10, 5])[:, None]
    placed = projected
    if encoder.config.positions == "sinusoidal":
        placed = projected + sinusoidal_positions(11, encoder.config.dim)
    expected = torchs_own(encoder)(placed, src_key_padding_mask=~keep)
    torch.testing.assert_close(encoder.hidden_states(projected, keep)[keep], expected[keep], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_cell_is_read_from_the_hidden_state_of_its_first_token(small: Callable[..., Encoder], norm: str) -> None:
    encoder = small(norm=norm)
    projected = encoder.project(torch.randn(3, 9, 8))
    read = F.normalize(encoder.decoder(encoder.hidden_states(projected)[:, 0]), dim=1)
    torch.testing.assert_close(encoder.encode(projected), read, rtol=0, atol=1e-6)


@pytest.mark.parametrize("readout", ["cls", "cls+mean"])
def test_what_stands_in_padding_never_shows(small: Callable[..., Encoder], readout: str) -> None:
    encoder = small(readout=readout)
    vectors, keep = torch.randn(3, 9, 8), torch.arange(9).expand(3, 9) < 6
    other = vectors.masked_scatter(~keep[..., None], 1e6 * torch.randn(3 * 3 * 8))
    assert torch.equal(encoder(vectors, keep), encoder(other, keep))
    torch.testing.assert_close(encoder(vectors, keep), encoder(vectors[:, :6]), rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(2, 20), min_size=1, max_size=6), extra=st.integers(0, 12), seed=st.integers(0, 99))
def test_a_cell_gets_the_same_vector_in_any_batch(lengths: list[int], extra: int, seed: int) -> None:
    torch.manual_seed(seed)
    encoder = Encoder(TINY).eval()
    longest = max(lengths) + extra
    vectors, keep = torch.randn(len(lengths), longest, 8), torch.arange(longest) < torch.tensor(lengths)[:, None]
    together = encoder(vectors, keep)
    alone = [encoder(vectors[row : row + 1, :length]) for row, length in enumerate(lengths)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_projecting_a_vocabulary_once_and_gathering_changes_nothing(small: Callable[..., Encoder]) -> None:
    encoder, vocabulary, tokens = small(), torch.randn(30, 8), torch.randint(0, 30, (4, 13))
    gathered = encoder.encode(encoder.project(vocabulary)[tokens])
    torch.testing.assert_close(gathered, encoder(vocabulary[tokens]), rtol=0, atol=1e-6)


def test_only_the_direction_of_a_gene_vector_counts_and_padding_stays_finite(small: Callable[..., Encoder]) -> None:
    encoder, vectors = small(), torch.randn(2, 7, 8)
    torch.testing.assert_close(encoder(vectors), encoder(vectors * 37), rtol=0, atol=1e-6)
    assert bool(encoder.project(torch.zeros(1, 8)).isfinite().all())


def test_tokens_may_change_places_only_where_there_are_no_positions(small: Callable[..., Encoder]) -> None:
    vectors = torch.randn(2, 10, 8)
    shuffled = torch.cat([vectors[:, :1], vectors[:, 1:].flip(1)], dim=1)
    free, placed = small(positions="none"), small()
    torch.testing.assert_close(free(vectors), free(shuffled), rtol=0, atol=1e-6)
    assert float((placed(vectors) - placed(shuffled)).abs().max()) > 1e-3


def test_a_key_bias_of_minus_infinity_is_a_mask_and_of_zero_is_none(small: Callable[..., Encoder]) -> None:
    encoder = small()
    projected, keep = encoder.project(torch.randn(3, 9, 8)), torch.arange(9).expand(3, 9) < 5
    hidden = torch.zeros(3, 9).masked_fill(~keep, -torch.inf)
    masked = encoder.encode(projected, keep)
    torch.testing.assert_close(encoder.encode(projected, key_bias=hidden), masked, rtol=0, atol=1e-6)
    torch.testing.assert_close(encoder.encode(projected, keep, key_bias=torch.ones(3, 9)), masked, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        encoder.encode(projected, key_bias=torch.zeros(3, 9)), encoder.encode(projected), rtol=0, atol=1e-6
    )


def test_without_padding_no_mask_reaches_the_attention(small: Callable[..., Encoder], monkeypatch: Any) -> None:
    masks = []
    original = F.scaled_dot_product_attention

    def watched(*parts: Tensor, attn_mask: Tensor | None, **rest: Any) -> Tensor:
        masks.append(attn_mask)
        return original(*parts, attn_mask=attn_mask, **rest)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    small().train()(torch.randn(2, 5, 8))
    assert masks == [None, None]


def test_the_last_block_computes_queries_and_feed_forward_for_cls_alone(small: Callable[..., Encoder]) -> None:
    encoder, widths = small(layers=3), []
    for block in encoder.blocks:
        block.expand.register_forward_hook(lambda _module, _inputs, output: widths.append(output.shape[1]))
    encoder(torch.randn(2, 9, 8))
    assert widths == [9, 9, 1]


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_block_gives_its_first_tokens_the_same_values_alone(norm: Any) -> None:
    block, x = Block(replace(TINY, norm=norm)).eval(), torch.randn(3, 8, 16)
    torch.testing.assert_close(block(x, queries=2), block(x)[:, :2], rtol=0, atol=1e-6)


def test_vectors_have_length_one_in_float32_even_in_mixed_precision() -> None:
    encoder = Encoder(replace(TINY, dim=64)).eval().requires_grad_(requires_grad=False)
    vectors = torch.randn(16, 12, 8)
    exact = encoder(vectors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encoder(vectors)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(16), rtol=0, atol=1e-6)
    assert 0 < float((1 - (mixed * exact).sum(dim=1)).max()) < 2e-3
    halved = encoder.bfloat16()(vectors.bfloat16())
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved.norm(dim=1), torch.ones(16), rtol=0, atol=1e-6)


def test_dropout_works_in_training_and_never_in_evaluation(small: Callable[..., Encoder]) -> None:
    encoder, vectors = small(dropout=0.3), torch.randn(2, 9, 8)
    assert torch.equal(encoder(vectors), encoder(vectors))
    encoder.train()
    assert not torch.equal(encoder(vectors), encoder(vectors))
    still = small(dropout=0.0).train()
    torch.testing.assert_close(still(vectors), still.eval()(vectors), rtol=0, atol=1e-6)


def test_training_without_dropout_has_the_gradients_of_all_keys_and_values() -> None:
    x, keep = torch.randn(3, 9, 16), torch.arange(9).expand(3, 9) < torch.tensor([[9], [5], [2]])
    weights = torch.randn(3, 1, 16)

    def gradients(dropout: float) -> list[Tensor]:
        torch.manual_seed(1)
        attention, source = Attention(replace(TINY, dropout=dropout)).train(), x.clone().requires_grad_()
        (weights * attention(source[:, :1], source, keep[:, None, None])).sum().backward()
        return [source.grad, *(parameter.grad for parameter in attention.parameters())]

    # Of so little dropout nothing is dropped, but the keys and values of all tokens are computed.
    for ours, whole in zip(gradients(0.0), gradients(1e-12), strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("readout", ["cls", "cls+mean"])
def test_every_weight_learns(norm: Any, readout: Any) -> None:
    encoder = Encoder(replace(TINY, norm=norm, readout=readout))
    (encoder(torch.randn(6, 9, 8)) @ torch.randn(12)).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    idle = [name for name, gradient in gradients.items() if gradient is None or not float(gradient.abs().max())]
    assert idle == []


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_new_encoder_of_any_depth_keeps_scale_and_tells_cells_apart(norm: Any) -> None:
    config = ModelConfig(
        layers=12,
        dim=128,
        heads=4,
        hidden=256,
        protein_dim=64,
        out_dim=64,
        decoder_dim=96,
        norm=norm,
        readout="cls+mean",
    )
    encoder = Encoder(config).eval().requires_grad_(requires_grad=False)
    scores, sizes = [], []
    original = encoder.blocks[0].attention.query.register_forward_hook(
        lambda module, inputs, output: scores.append(output.std().item())
    )
    for block in encoder.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.std().item()))
    vectors = encoder(torch.randn(20, 50, 64))
    original.remove()
    assert 0.3 < scores[0] < 3
    assert all(0.3 < size < 6 for size in sizes)
    cosines = (vectors @ vectors.T)[~torch.eye(20, dtype=torch.bool)]
    assert float(cosines.mean()) < 0.95


def test_the_linear_part_of_a_cell_is_the_mean_of_the_places_of_its_genes(small: Callable[..., Encoder]) -> None:
    encoder = small(readout="cls+mean")
    torch.nn.init.zeros_(encoder.decoder[-1].weight)
    torch.nn.init.zeros_(encoder.decoder[-1].bias)
    vectors = torch.randn(4, 9, 8)
    linear = encoder.place(vectors[:, 1:]).mean(dim=1) + encoder.mean_map.bias
    torch.testing.assert_close(encoder(vectors), F.normalize(linear, dim=1), rtol=0, atol=1e-6)


def test_equal_seeds_give_equal_weights() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.flatten() for parameter in Encoder(TINY).parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_initialise_draws_the_documented_spreads() -> None:
    config = ModelConfig(
        layers=2, dim=256, heads=4, hidden=512, protein_dim=128, out_dim=64, decoder_dim=64, norm="pre"
    )
    encoder = Encoder(config)
    first, second = encoder.blocks
    expected = {
        encoder.projection: 128**-0.5,
        second.attention.query: 256**-0.5,
        first.expand: (2 / 256) ** 0.5,
        first.contract: 512**-0.5 / 2,
        first.attention.out: 256**-0.5 / 2,
    }
    for linear, spread in expected.items():
        assert linear.weight.std().item() == pytest.approx(spread, rel=0.05)
        assert not linear.bias.any()
    assert torch.equal(encoder.projection_norm.weight, torch.full((256,), 1 / 16))
    post = Encoder(replace(config, norm="post"))
    assert post.blocks[0].attention.query.weight.std().item() == pytest.approx(1 / 256, rel=0.05)
    assert post.blocks[1].attention.query.weight.std().item() == pytest.approx(1 / 16, rel=0.05)
    initialise(post)
    assert post.blocks[0].attention.key_value.weight[:256].std().item() == pytest.approx(1 / 256, rel=0.05)
    assert post.blocks[0].attention.key_value.weight[256:].std().item() == pytest.approx(1 / 16, rel=0.05)


def test_the_default_settings_are_the_published_four_layer_model() -> None:
    with torch.device("meta"):
        encoder = Encoder(ModelConfig())
    of_layer = sum(parameter.numel() for parameter in encoder.blocks[0].parameters())
    rest = sum(parameter.numel() for parameter in encoder.projection.parameters())
    assert of_layer == 19_677_440
    assert rest + sum(parameter.numel() for parameter in encoder.projection_norm.parameters()) == 6_557_440
    assert sum(parameter.numel() for parameter in encoder.decoder.parameters()) == 5_910_272


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "dim = 16 is not a multiple of heads = 3"),
        ({"dim": 15, "heads": 3}, "dim = 15 is odd, but sinusoidal positions come in pairs"),
        ({"layers": 0}, "layers = 0: a whole number from 1 to 1000"),
        ({"layers": 10**9}, "layers = 1000000000: a whole number from 1 to 1000"),
        ({"hidden": 2.5}, "hidden = 2.5: a whole number"),
        ({"dim": True}, "dim = True: a whole number"),
        ({"out_dim": "12"}, "out_dim = '12': a whole number"),
        ({"norm": "middle"}, "norm = 'middle': choose one of post, pre"),
        ({"activation": "swish"}, "activation = 'swish': choose one of relu, gelu"),
        ({"positions": None}, "positions = None: choose one of sinusoidal, none"),
        ({"readout": ["cls"]}, r"readout = \['cls'\]: choose one of cls, cls\+mean"),
        ({"dropout": 1.0}, "dropout = 1.0: a number from 0 up to, not including, 1"),
        ({"dropout": float("nan")}, "dropout = nan: a number"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(TINY, **changes)


def test_a_sentence_longer_than_the_positions_is_refused(small: Callable[..., Encoder]) -> None:
    with pytest.raises(ModelError, match="a sentence has 65 tokens, this model takes 64; use its sentence rule"):
        small()(torch.randn(1, 65, 8))


def test_attention_over_itself_equals_torchs_own() -> None:
    ours = Attention(TINY).eval()
    theirs = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    theirs.in_proj_weight.data = torch.cat([ours.query.weight, ours.key_value.weight]).detach()
    theirs.in_proj_bias.data = torch.cat([ours.query.bias, ours.key_value.bias]).detach()
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    top, source = torch.randn(3, 2, 16), torch.randn(3, 9, 16)
    expected, _ = theirs(top, source, source, need_weights=False)
    torch.testing.assert_close(ours(top, source), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ["cell-gene", "gene-cell"])
def test_the_split_head_equals_the_joined_one(order: Any) -> None:
    head = ExpressionHead(protein_dim=8, cell_dim=12, gene_dim=10, hidden=(20, 6), order=order).double().eval()
    cells, vectors = torch.randn(4, 12).double(), torch.randn(7, 8).double()
    u = head.project(vectors)
    grid = head(cells, vectors)
    for cell, gene in itertools.product(range(4), range(7)):
        pair = (cells[cell], u[gene]) if order == "cell-gene" else (u[gene], cells[cell])
        joined = head.blocks(head.join(torch.cat(pair))).squeeze()
        torch.testing.assert_close(grid[cell, gene], joined, rtol=0, atol=1e-12)
    queries = torch.tensor([[0, 6], [3, 3], [1, 0], [5, 2]])
    torch.testing.assert_close(head(cells, vectors, queries), grid.gather(1, queries), rtol=0, atol=1e-12)


def test_a_head_of_unknown_order_is_refused() -> None:
    with pytest.raises(ModelError, match=r"order = 'both', hidden = \(4,\): choose cell-gene or gene-cell"):
        ExpressionHead(protein_dim=8, cell_dim=12, hidden=(4,), order="both")  # type: ignore[arg-type]
