"""The plain reference of the benchmark: its encoder is ours, its sentences are the published ones."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from uce.model.encoder import Encoder, ModelConfig

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SMALL = ModelConfig(
    layers=2, dim=32, heads=4, hidden=64, protein_dim=24, out_dim=32, decoder_dim=16, max_tokens=64, dropout=0.5
)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import plain_uce

    return plain_uce


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    made = Encoder(SMALL).eval().requires_grad_(requires_grad=False)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return made


def test_without_padding_the_plain_encoder_gives_our_vectors(plain: ModuleType, encoder: Encoder) -> None:
    model = plain.PlainUCE(SMALL, encoder.state_dict())
    vectors = torch.randn(5, 40, 24)
    torch.testing.assert_close(plain.encode(model, vectors, torch.ones(5, 40)), encoder(vectors), rtol=0, atol=1e-5)


def test_the_plain_encoder_gives_padding_one_more_instead_of_hiding_it(plain: ModuleType, encoder: Encoder) -> None:
    model = plain.PlainUCE(SMALL, encoder.state_dict())
    keep = torch.arange(40) < torch.tensor([40, 31, 22])[:, None]
    vectors = torch.randn(3, 40, 24) * keep[:, :, None]
    padded = plain.encode(model, vectors, keep.float())
    published = encoder.encode(encoder.project(vectors), key_bias=(~keep).float())
    torch.testing.assert_close(padded, published, rtol=0, atol=1e-5)
    assert float((padded - encoder(vectors, keep)).abs().max()) > 1e-3


def test_the_plain_routine_writes_the_published_sentences(plain: ModuleType, shared: Any) -> None:
    golden = np.load(shared / "golden" / "sentences_human.npz")
    codes = golden["chrom_code"].astype(np.int32)
    columns = plain.Columns(golden["token_row"], codes, golden["start"], int(golden["chrom_token_offset"]))
    places = dict(zip(golden["token_row"].tolist(), golden["start"].tolist(), strict=True))
    written = [
        plain.write_sentence(counts, columns, np.random.RandomState(seed), 1024)
        for counts, seed in zip(golden["counts"], golden["seed"], strict=True)
    ]
    tokens, mask = plain.pad(written)
    np.testing.assert_array_equal(mask, golden["batch_mask"])
    # Different genes of one start may stand in either order: the published sort leaves it open.
    expected = golden["batch_tokens"]
    for row, expected_row in zip(tokens, expected, strict=True):
        assert [places.get(t, -t) for t in row.tolist()] == [places.get(t, -t) for t in expected_row.tolist()]
    np.testing.assert_array_equal(np.sort(tokens), np.sort(expected))
