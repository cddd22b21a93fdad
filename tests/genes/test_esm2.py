"""ESM2 against fair-esm itself, on a small random model in fair-esm's own file form; and files that must be refused."""

import copy
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.errors import InputError, ModelError
from uce.genes.proteins.esm2 import MAX_RESIDUES, ProteinEncoder, embed_sequences, load_esm2, token_batches
from uce.genes.proteins.sequences import RESIDUES


@pytest.fixture(scope="session")
def content() -> dict[str, Any]:
    """A random ESM2 of 2 layers, 32 wide, as its publisher's files hold it."""
    from esm.model.esm2 import ESM2

    torch.manual_seed(5)
    settings = Namespace(
        arch="esm2", encoder_layers=2, encoder_embed_dim=32, encoder_attention_heads=4, token_dropout=True, dropout=0.1
    )
    module = ESM2(num_layers=2, embed_dim=32, attention_heads=4, token_dropout=True)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    state = {
        (f"encoder.{key}" if key.startswith("lm_head") else f"encoder.sentence_encoder.{key}"): value
        for key, value in module.state_dict().items()
        if not key.startswith("contact_head.regression")
    }
    return {"cfg": {"model": settings, "task": Namespace(seed=1)}, "model": state}


@pytest.fixture(scope="session")
def weights(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("esm2") / "esm2_t2_tiny_UR50D.pt"
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def encoder(weights: Path) -> ProteinEncoder:
    return load_esm2(weights)


@pytest.fixture(scope="session")
def by_hand(content: dict[str, Any]) -> Any:
    """fair-esm's own class, tokens and last representation, one sequence at a time, averaged over residues."""
    from esm import Alphabet
    from esm.model.esm2 import ESM2

    module = ESM2(num_layers=2, embed_dim=32, attention_heads=4, token_dropout=True).eval()
    own = {
        key.removeprefix("encoder.").removeprefix("sentence_encoder."): value for key, value in content["model"].items()
    }
    missing, unexpected = module.load_state_dict(own, strict=False)
    assert not unexpected
    assert all("contact_head" in key for key in missing)
    convert = Alphabet.from_architecture("ESM-1b").get_batch_converter()

    def mean(sequence: str) -> np.ndarray:
        _, _, tokens = convert([("", sequence)])
        with torch.no_grad():
            hidden = module(tokens, repr_layers=[2])["representations"][2]
        return hidden[0, 1 : len(sequence) + 1].mean(0).numpy()

    return mean


RANDOM = np.random.default_rng(0)
SEQUENCES = ["".join(RANDOM.choice(sorted(RESIDUES), n)) for n in (1, 2, 300, 7, 7, 64, 1022, 33, 120, 5, 999)]


@pytest.mark.parametrize("batch_tokens", [1, 70, 1000, 100_000])
def test_vectors_are_those_of_fair_esm_one_at_a_time_whatever_the_batching(
    batch_tokens: int, encoder: ProteinEncoder, by_hand: Any
) -> None:
    vectors = embed_sequences(encoder, SEQUENCES, batch_tokens=batch_tokens)
    expected = np.stack([by_hand(sequence) for sequence in SEQUENCES])
    assert vectors.dtype == np.float32
    assert np.abs(expected).mean() > 0.1
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=0)


def test_truncation_reads_the_first_1022_residues(encoder: ProteinEncoder, by_hand: Any) -> None:
    long = SEQUENCES[6] + SEQUENCES[2]
    vectors = embed_sequences(encoder, [long])
    np.testing.assert_allclose(vectors[0], by_hand(long[:MAX_RESIDUES]), atol=1e-5, rtol=0)


def test_windows_overlap_by_512_and_weigh_by_their_residues(encoder: ProteinEncoder, by_hand: Any) -> None:
    long = SEQUENCES[6] + SEQUENCES[10]  # 2,021 residues: windows from 0, 510, 1,020
    vectors = embed_sequences(encoder, ["MKV", long], long_proteins="window")
    windows = [long[start : start + 1022] for start in (0, 510, 1020)]
    weights = [len(window) for window in windows]
    assert weights == [1022, 1022, 1001]
    expected = np.average([by_hand(window) for window in windows], axis=0, weights=weights)
    np.testing.assert_allclose(vectors[1], expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(vectors[0], by_hand("MKV"), atol=1e-5, rtol=0)


def test_a_protein_of_1022_residues_has_one_window(encoder: ProteinEncoder) -> None:
    both = [embed_sequences(encoder, [SEQUENCES[6]], long_proteins=way) for way in ("truncate", "window")]
    np.testing.assert_array_equal(*both)


def test_no_proteins_give_no_vectors(encoder: ProteinEncoder) -> None:
    assert embed_sequences(encoder, []).shape == (0, 32)


@pytest.mark.parametrize("text", ["", "MKl", "M*K", "MJK", "M K", "Mé", "<mask>", "M\x00"])
def test_what_esm2_cannot_read_is_refused_not_guessed(text: str, encoder: ProteinEncoder) -> None:
    with pytest.raises(InputError, match=r"^sequence .*: empty, or a letter that ESM2 does not know"):
        embed_sequences(encoder, ["MKV", text])


@given(st.lists(st.integers(3, 1024), max_size=60), st.integers(1, 5000))
@settings(deadline=None)
def test_batches_hold_every_sequence_once_within_the_budget(lengths: list[int], batch_tokens: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    batches = token_batches(sizes, batch_tokens=batch_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * sizes[batch].max() <= batch_tokens for batch in batches)
    assert all(len(batch) for batch in batches)


def test_the_loaded_model_knows_its_name_size_and_hash(encoder: ProteinEncoder, weights: Path) -> None:
    import hashlib

    assert (encoder.name, encoder.layers, encoder.dim) == ("esm2_t2_tiny_UR50D", 2, 32)
    assert encoder.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert load_esm2(weights, name="mine").name == "mine"
    assert not encoder.module.training
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


def test_the_file_name_does_not_choose_the_architecture(weights: Path, tmp_path: Path, encoder: ProteinEncoder) -> None:
    other = tmp_path / "weights of mine.pt"
    other.write_bytes(weights.read_bytes())
    np.testing.assert_array_equal(embed_sequences(load_esm2(other), ["MKV"]), embed_sequences(encoder, ["MKV"]))


# Files that must be refused


class _Planted:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_planted_pickle_is_refused_and_runs_nothing(legacy: bool, content: dict[str, Any], tmp_path: Path) -> None:
    path, trace = tmp_path / "esm2.pt", tmp_path / "trace"
    torch.save({**content, "extra": _Planted(trace)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=r"esm2\.pt: asks to run \S*system, which is refused"):
        load_esm2(path)
    assert not trace.exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_line(keep: float, weights: Path, tmp_path: Path) -> None:
    whole = weights.read_bytes()
    path = tmp_path / "esm2.pt"
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    with pytest.raises(ModelError, match=r"esm2\.pt: (not readable as tensors|asks to run)"):
        load_esm2(path)


@pytest.mark.parametrize("junk", [b"<html>no</html>", b"\x80\x02K\x01.", b"\x80\x02.", b"\x80\x04N."])
def test_junk_is_one_clear_line(junk: bytes, tmp_path: Path) -> None:
    (tmp_path / "esm2.pt").write_bytes(junk)
    with pytest.raises(ModelError, match=r"esm2\.pt: (not readable as tensors|asks to run|not ESM2 weights)"):
        load_esm2(tmp_path / "esm2.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.pt: no such file; ESM2 weights of fair-esm"):
        load_esm2(tmp_path / "none.pt")


def _other_form(content: dict[str, Any]) -> Any:
    return {"args": content["cfg"]["model"], "model": content["model"]}


def _no_dict(content: dict[str, Any]) -> Any:
    return torch.zeros(3)


def _huge(content: dict[str, Any]) -> Any:
    content["cfg"]["model"].encoder_embed_dim = 10**9
    return content


def _text(content: dict[str, Any]) -> Any:
    content["cfg"]["model"].encoder_layers = "33"
    return content


def _more_layers(content: dict[str, Any]) -> Any:
    content["cfg"]["model"].encoder_layers = 100
    return content


def _wider(content: dict[str, Any]) -> Any:
    content["cfg"]["model"].encoder_embed_dim = 5120
    return content


def _missing(content: dict[str, Any]) -> Any:
    del content["model"]["encoder.sentence_encoder.layers.0.fc2.bias"]
    return content


def _extra(content: dict[str, Any]) -> Any:
    content["model"]["encoder.sentence_encoder.layers.2.fc1.weight"] = torch.zeros(128, 32)
    return content


def _shape(content: dict[str, Any]) -> Any:
    content["model"]["encoder.sentence_encoder.layers.0.fc2.bias"] = torch.zeros(31)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_dict, r"not ESM2 weights in fair-esm's form"),
        (_other_form, r"not ESM2 weights in fair-esm's form"),
        (_huge, r"encoder_embed_dim is 1000000000; a whole number from 1 to 20480 is needed"),
        (_text, r"encoder_layers is '33'; a whole number"),
        (_more_layers, r"settings say 100 layers, 32 wide; the tensors differ"),
        (_wider, r"settings say 2 layers, 5120 wide; the tensors differ"),
        (_missing, r"do not fit an ESM2 of 2 layers, 32 wide \(.*layers\.0\.fc2\.bias"),
        (_extra, r"do not fit an ESM2 of 2 layers, 32 wide \(.*layers\.2\.fc1\.weight"),
        (_shape, r"do not fit an ESM2 of 2 layers, 32 wide"),
    ],
)
def test_weights_that_are_not_what_they_say_are_refused(
    change: Any, message: str, content: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(change(copy.deepcopy(content)), tmp_path / "esm2.pt")
    with pytest.raises(ModelError, match=message):
        load_esm2(tmp_path / "esm2.pt")
