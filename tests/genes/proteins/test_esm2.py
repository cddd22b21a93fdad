"""ESM2 against fair-esm itself, on a small random model in fair-esm's own file form; and files that must be refused."""

import copy
import hashlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import warnings
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uce import devices
from uce.errors import InputError, ModelError, UsageError
from uce.genes.proteins import esm2
from uce.genes.proteins.esm2 import (
    MAX_RESIDUES,
    ProteinEncoder,
    embed_sequences,
    load_esm2,
    piece_spans,
    token_batches,
)
from uce.genes.proteins.sequences import RESIDUES

SCRIPT = Path(__file__).parents[3] / "scripts" / "random_esm2.py"


@pytest.fixture(scope="session")
def content() -> dict[str, Any]:
    """A random ESM2 of 2 layers, 32 wide, as its publisher's files hold it."""
    spec = importlib.util.spec_from_file_location("random_esm2", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.random_esm2(2, 32, 4, seed=5)


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
    assert (encoder.name, encoder.layers, encoder.dim) == ("esm2_t2_tiny_UR50D", 2, 32)
    assert encoder.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert not encoder.module.training
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


def test_the_file_name_does_not_choose_the_architecture(weights: Path, tmp_path: Path, encoder: ProteinEncoder) -> None:
    other = tmp_path / "mine-v2.pt"
    other.write_bytes(weights.read_bytes())
    np.testing.assert_array_equal(embed_sequences(load_esm2(other), ["MKV"]), embed_sequences(encoder, ["MKV"]))


# Loading


@pytest.fixture
def halved(content: dict[str, Any], tmp_path: Path) -> Path:
    """The weights in half precision, as the two largest models are published."""
    half = {key: value.half() for key, value in content["model"].items()}
    torch.save({**content, "model": half}, tmp_path / "esm2_half.pt")
    return tmp_path / "esm2_half.pt"


@pytest.mark.parametrize("form", ["weights", "halved"])
def test_the_loaded_model_equals_that_of_fair_esms_own_loader_to_the_bit(
    form: str, request: pytest.FixtureRequest
) -> None:
    from esm.pretrained import load_model_and_alphabet_core

    path = request.getfixturevalue(form)
    with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Regression weights not found")
        module, _ = load_model_and_alphabet_core("esm2", torch.load(path, weights_only=True), None)
    encoder = load_esm2(path)
    assert {values.dtype for values in encoder.module.state_dict().values()} == {torch.float32}
    theirs = replace(encoder, module=module.eval())
    np.testing.assert_array_equal(embed_sequences(encoder, SEQUENCES), embed_sequences(theirs, SEQUENCES))


def test_a_file_that_changed_since_its_download_is_refused(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "esm2_t2.pt"
    path.write_bytes(weights.read_bytes())
    record = tmp_path / "sha256.json"
    record.write_text(json.dumps({path.name: hashlib.sha256(path.read_bytes()).hexdigest()}))
    load_esm2(path)
    record.write_text(json.dumps({path.name: "ab" * 32}))
    with pytest.raises(ModelError, match=r"esm2_t2\.pt: changed since its download \(SHA-256 .*, not abababababab\)"):
        load_esm2(path)


def test_a_file_name_that_cannot_name_vectors_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot name a kind of gene vectors"):
        load_esm2(tmp_path / "weights of mine.pt")


def test_the_script_for_a_random_model_writes_a_file_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "esm2_t1_random.pt"
    command = [sys.executable, str(SCRIPT), str(path), "--layers", "1", "--dim", "40", "--heads", "5", "--seed", "2"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{path}\n"
    encoder = load_esm2(path)
    assert (encoder.name, encoder.layers, encoder.dim) == ("esm2_t1_random", 1, 40)


# Precision


@pytest.fixture
def _bf16_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx512f avx512_bf16 sse2\n")
    monkeypatch.setattr(devices, "_CPU_FACTS", tmp_path / "cpuinfo")


@pytest.mark.usefixtures("_bf16_processor")
def test_bf16_is_near_float32_and_keeps_norms_and_positions_in_float32(weights: Path, encoder: ProteinEncoder) -> None:
    reduced = load_esm2(weights, precision="bf16")
    assert reduced.precision == "bf16"
    kinds = {key: values.dtype for key, values in reduced.module.state_dict().items()}
    assert {kind for key, kind in kinds.items() if "proj" in key or "fc" in key} == {torch.bfloat16}
    others = {kind for key, kind in kinds.items() if "proj" not in key and "fc" not in key}
    assert others == {torch.float32}
    long = SEQUENCES[6]
    vectors, expected = embed_sequences(reduced, [long]), embed_sequences(encoder, [long])
    assert vectors.dtype == np.float32
    error = np.linalg.norm(vectors - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 0.01
    cosines, _ = reduced.module.layers[0].self_attn.rot_emb._update_cos_sin_tables(torch.zeros(1, 1024, 8), 1)
    exact, _ = encoder.module.layers[0].self_attn.rot_emb._update_cos_sin_tables(torch.zeros(1, 1024, 8), 1)
    assert torch.equal(cosines, exact)  # position 1,023 has no bf16 number


@pytest.mark.usefixtures("_bf16_processor")
def test_positions_are_exact_within_reduced_arithmetic(encoder: ProteinEncoder) -> None:
    rotary = encoder.module.layers[0].self_attn.rot_emb
    tables = []
    for precision in ("fp32", "bf16"):
        rotary._seq_len_cached = None
        with torch.inference_mode(), devices.arithmetic(torch.device("cpu"), precision):
            tables.append(rotary._update_cos_sin_tables(torch.zeros(1, 1024, 8), 1)[0])
    rotary._seq_len_cached = None
    assert torch.equal(*tables)


def test_a_processor_without_bf16_takes_float32_and_says_so(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fpu avx2 xbf16y\n")
    for facts in (tmp_path / "cpuinfo", tmp_path / "none"):
        monkeypatch.setattr(devices, "_CPU_FACTS", facts)
        caplog.clear()
        assert load_esm2(weights, precision="bf16").precision == "fp32"
        assert caplog.messages == ["--precision bf16: this processor has no instructions for it; float32 is used."]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "--precision fp16: for graphics processors alone"),
        ({"precision": "fp8"}, "--precision fp8: not a precision. Use auto, fp32, bf16 or fp16"),
        ({"device": "tpu"}, "--device tpu: not a device"),
    ],
)
def test_a_device_or_precision_that_is_not_to_be_had_is_refused(
    options: dict[str, str], message: str, weights: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        load_esm2(weights, **options)


def test_graphics_processors_take_both_short_precisions() -> None:
    cuda = torch.device("cuda", 0)
    assert [devices.pick_protein_precision(name, cuda) for name in ("auto", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]


# Memory


class _Limited(torch.nn.Module):
    """A model whose device has room for so many tokens at once."""

    def __init__(self, inner: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most, self.calls = inner, most, list[int]()

    def forward(self, tokens: torch.Tensor, **options: Any) -> Any:
        self.calls.append(tokens.numel())
        if tokens.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(tokens, **options)


def test_a_batch_too_large_for_the_memory_is_halved_and_that_is_said_once(
    encoder: ProteinEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    esm2._say_once.cache_clear()
    limited = _Limited(encoder.module, 1100)
    vectors = embed_sequences(replace(encoder, module=limited), SEQUENCES, batch_tokens=4000)
    np.testing.assert_allclose(vectors, embed_sequences(encoder, SEQUENCES), atol=1e-5, rtol=0)
    assert max(limited.calls) > 1100
    assert capsys.readouterr().err.count("they are halved") == 1


def test_a_protein_too_large_for_the_memory_says_what_to_do(encoder: ProteinEncoder) -> None:
    limited = replace(encoder, module=_Limited(encoder.module, 300))
    with pytest.raises(ModelError, match=r"^a protein of 1,022 residues alone is too much for cpu's memory\. Use "):
        embed_sequences(limited, SEQUENCES[6:7])


def test_other_errors_of_the_model_are_not_taken_for_lack_of_memory(encoder: ProteinEncoder) -> None:
    class Broken(_Limited):
        def forward(self, tokens: torch.Tensor, **options: Any) -> Any:
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        embed_sequences(replace(encoder, module=Broken(encoder.module, 1)), ["MKV"])


def test_vectors_that_are_not_finite_are_never_returned(encoder: ProteinEncoder) -> None:
    broken = copy.deepcopy(encoder.module)
    with torch.no_grad():
        broken.layers[1].fc2.bias[3] = float("inf")
    with pytest.raises(ModelError, match=r"a vector is not finite\. Use --precision bf16 or fp32"):
        embed_sequences(replace(encoder, module=broken), ["MKV"])


@given(st.integers(1, 5000))
@settings(deadline=None)
def test_windows_cover_a_protein_and_overlap_by_512(length: int) -> None:
    spans = piece_spans(length, "window")
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(0 < end - start <= MAX_RESIDUES for start, end in spans)
    assert all(left[1] - right[0] == 512 for left, right in itertools.pairwise(spans))


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
