"""Damaged, swapped and hostile model folders and published files: refused in one line, nothing run or allocated."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from uce.errors import ModelError
from uce.files import sha256_file
from uce.genes.sources import read_offsets, read_places, read_tensors, read_vectors
from uce.model.checkpoint import load_model
from uce.model.published import import_published
from uce.model.weights import read_state

FORMAT_1 = Path(__file__).parents[1] / "model" / "format-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A healthy model folder to spoil."""
    return Path(shutil.copytree(FORMAT_1, tmp_path / "m"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "config.json") -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def retensor(folder: Path, change: Callable[[dict[str, torch.Tensor]], object], *, keep_names: bool = True) -> None:
    """Change the weights and make the recorded hash fit, as someone would who means it."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    names = {"chromosomes": json.dumps(["homo_sapiens:1", "homo_sapiens:X"])} if keep_names else None
    save_file(tensors, path, metadata=names)
    edit(folder, lambda content: content.update(sha256=sha256_file(path)))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_the_healthy_folder_loads(folder: Path) -> None:
    assert load_model(folder).name == "m"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="other"), "not the configuration of a uce model"),
        (lambda c: c.update(version=2), r"format version 2; this uce reads version 1\. Update uce"),
        (lambda c: c.update(version="1\x1b[31m"), r"format version 1\\x1b"),
        (lambda c: c.update(hook="os.system"), r"unknown key hook"),
        (lambda c: c["model"].update(layer=3), r"unknown key layer\. Did you mean layers\?"),
        (lambda c: c["model"].pop("heads"), "key heads is missing"),
        (lambda c: c["rule"].update(draws=-1), "config.json: draws: -1 found"),
        (lambda c: c["rule"].update(max_tokens=17), "sentences of up to 17 tokens, but the encoder takes 16"),
        (lambda c: c.update(model=[]), "model of the wrong type"),
        (lambda c: c.update(info=None, sha256=5), "sha256, info of the wrong type"),
        (lambda c: c["model"].update(activation="os.system"), "config.json: activation = 'os.system': choose one of"),
        (lambda c: c["model"].update(dim=10**12), "config.json: dim = 1000000000000: a whole number from 1 to"),
        (lambda c: c["model"].update(layers=999), r"does not fit config.json: .*; \d+ differences in all"),
        (lambda c: c["model"].update(dim=131072, heads=1), r"has shape \[16, 8\], config.json asks for \[131072, 8\]"),
        (lambda c: c["model"].update(norm="pre"), "encoder.final_norm.weight is missing"),
        (lambda c: c["model"].update(positions="none"), "encoder.positions is not part of this model"),
        (lambda c: c["model"].update(dropout=float("nan")), "dropout = nan"),
        (
            lambda c: c.update(sha256="0" * 64),
            r"m: model.safetensors does not match the hash in config.json \(.{8}\.\. not 0",
        ),
    ],
)
def test_a_changed_configuration_is_refused(folder: Path, change: Callable[[Any], object], message: str) -> None:
    edit(folder, change)
    refused(folder, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.json: not readable as JSON"),
        (b"\xff\xfe\x00", "config.json: not readable as JSON"),
        (b'{"format": "uce-model"', "config.json: not readable as JSON"),
        (b"[" * 100_000, "config.json: not readable as JSON"),
        (b"[]", "not the configuration of a uce model"),
        (b" " * (5 << 20), "config.json: 5,242,880 bytes; at most 4,194,304 are read"),
    ],
    ids=["empty", "not text", "cut", "deep", "list", "huge"],
)
def test_a_configuration_that_is_none_is_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("specials"), "specials is missing"),
        (lambda t: t.update(evil=torch.ones(1)), "evil is not part of this model"),
        (lambda t: t.update(specials=torch.ones(4, 9)), r"specials has shape \[4, 9\], config.json asks for \[4, 8\]"),
        (lambda t: t.update(specials=torch.ones(4, 8).half()), "specials is F16"),
        (lambda t: t.update(specials=torch.full((4, 8), torch.nan)), "specials hold NaN or infinity"),
        (
            lambda t: t.update(chromosomes=torch.ones(3, 8)),
            r"chromosomes has shape \[3, 8\], config.json asks for \[2, 8\]",
        ),
        (
            lambda t: t.update({"encoder.decoder.3.bias": torch.full((12,), torch.inf)}),
            "encoder.decoder.3.bias hold NaN",
        ),
    ],
)
def test_other_weights_are_refused_even_when_their_hash_fits(
    folder: Path, change: Callable[[Any], object], message: str
) -> None:
    retensor(folder, change)
    refused(folder, message)


def test_chromosome_vectors_without_their_names_are_refused(folder: Path) -> None:
    retensor(folder, lambda tensors: None, keep_names=False)
    refused(folder, r"chromosomes has shape \[2, 8\], config.json asks for \[0, 8\]")


@pytest.mark.parametrize("names", ['["a", "a"]', "{}", "[", "[" * 50_000])
def test_unreadable_names_of_chromosomes_are_refused(folder: Path, names: str) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path), path, metadata={"chromosomes": names})
    edit(folder, lambda content: content.update(sha256=sha256_file(path)))
    refused(folder, "the names of its chromosomes cannot be read")


def test_a_swapped_bit_in_the_weights_is_seen(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "does not match the hash in config.json")


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        header(b"{", 2**63),
        header(b"{}", 10**9),
        header(b"not json"),
        header(b'{"specials":{"dtype":"F32","shape":[4,8],"data_offsets":[0,128]}}'),
        header(b'{"specials":{"dtype":"F32","shape":[99999999999,9999999],"data_offsets":[0,4]}}') + bytes(4),
        header(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        )
        + bytes(4),
    ],
    ids=["empty", "one byte", "endless header", "long header", "no json", "cut", "absurd shape", "overlapping"],
)
def test_files_that_are_not_safetensors_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "model.safetensors: not readable as safetensors")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=st.floats(0, 1),
    value=st.integers(0, 255),
    cut=st.booleans(),
    name=st.sampled_from(["model.safetensors", "config.json"]),
)
def test_no_damaged_byte_or_end_gets_past_the_checks_or_crashes(
    folder: Path, where: float, value: int, cut: bool, name: str
) -> None:
    original = (FORMAT_1 / name).read_bytes()
    at = int(where * (len(original) - 1))
    damaged = original[:at] if cut else original[:at] + bytes([value]) + original[at + 1 :]
    (folder / name).write_bytes(damaged)
    healthy = load_model(FORMAT_1)
    try:
        model = load_model(folder)
    except ModelError:
        return
    finally:
        shutil.copy(FORMAT_1 / name, folder / name)
    # What still loads computes the same, or says by its hash that it does not.
    same = all(map(torch.equal, model.encoder.state_dict().values(), healthy.encoder.state_dict().values()))
    assert model.sha256 != healthy.sha256 or (same and model.config == healthy.config and model.rule == healthy.rule)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_a_folder_with_nothing_but_pickled_weights_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    refused(tmp_path, rf"only {name}, which could run code when read; a model folder holds .*uce models import")


def test_pickled_weights_beside_a_configuration_are_not_taken(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"model.safetensors: missing \(pytorch_model.bin could run code when read\)")


@pytest.mark.parametrize("content", ["{}", "[1]", "nope", ""])
def test_spoilt_gene_tables_are_refused(folder: Path, content: str) -> None:
    (folder / "genes.json").write_text(content)
    refused(folder, "genes.json: (a list of gene tables is expected|not readable as JSON)")


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "genes.json").unlink()
    refused(folder, "genes.json: missing; a model folder holds config.json, model.safetensors, genes.json")


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".", "-x", "x\x00y", "x" * 5000])
def test_no_name_leads_out_of_the_model_folders(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no model folder and no model of this name"):
        load_model(name)


class Bomb:
    """Pickled, it would make the folder `fired` when read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def fired(tmp_path: Path) -> Path:
    return tmp_path / "fired"


def bombs(fired: Path) -> list[tuple[str, Callable[[Path], None]]]:
    return [
        ("saved", lambda path: torch.save({"encoder.0.weight": Bomb(fired)}, path)),
        ("old saved", lambda path: torch.save({"a": Bomb(fired)}, path, _use_new_zipfile_serialization=False)),
        *(
            (f"protocol {n}", lambda path, n=n: path.write_bytes(pickle.dumps({"frog": Bomb(fired)}, protocol=n)))  # type: ignore[misc]
            for n in range(6)
        ),
    ]


NAMES = ["saved", "old saved", *(f"protocol {n}" for n in range(6))]


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_pickle_in_place_of_weights_or_vectors_runs_nothing(tmp_path: Path, fired: Path, name: str) -> None:
    path = tmp_path / "planted.pt"
    dict(bombs(fired))[name](path)
    for reader in (read_tensors, read_state, read_vectors):
        with pytest.raises(
            ModelError, match=r"planted.pt: asks to run (posix|nt|os)\.mkdir, which is refused"
        ) as caught:
            reader(path)
        assert "\n" not in str(caught.value)
    assert not fired.exists()


@pytest.mark.parametrize("name", NAMES[2:])
def test_a_planted_pickle_in_place_of_offsets_runs_nothing(tmp_path: Path, fired: Path, name: str) -> None:
    path = tmp_path / "species_offsets.pkl"
    dict(bombs(fired))[name](path)
    with pytest.raises(ModelError, match=r"species_offsets.pkl: asks to run (posix|nt|os)\.mkdir, which is refused"):
        read_offsets(path)
    assert not fired.exists()


def test_an_import_of_a_planted_file_leaves_nothing_behind(tmp_path: Path, fired: Path) -> None:
    path = tmp_path / "weights.torch"
    torch.save({"encoder.0.weight": Bomb(fired)}, path)
    home = tmp_path / "home"
    with pytest.raises(ModelError, match=r"weights.torch: asks to run"):
        import_published(
            path, chromosomes=path, offsets=path, proteins=tmp_path, name="x", models=home / "m", genes=home / "g"
        )
    assert not fired.exists()
    assert not home.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", b"PK\x03\x04 broken", b"\x80\x04", b"\x80\x02}q\x00", bytes(1000)],
    ids=["empty", "web page", "broken zip", "head", "no end", "zeros"],
)
def test_broken_downloads_are_refused(tmp_path: Path, content: bytes) -> None:
    for name, reader in (
        ("w.torch", read_tensors),
        ("o.pkl", read_offsets),
        ("o.json", read_offsets),
        ("c.csv.gz", read_places),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            reader(tmp_path / name)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans(), zipped=st.booleans())
def test_no_damaged_byte_of_a_tensor_file_crashes(
    tmp_path: Path, where: float, value: int, cut: bool, zipped: bool
) -> None:
    path = tmp_path / "w.torch"
    torch.save({"A": torch.arange(6.0), "B": torch.ones(6)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    at = int(where * (len(content) - 1))
    path.write_bytes(content[:at] if cut else content[:at] + bytes([value]) + content[at + 1 :])
    try:
        read_vectors(path)
    except ModelError as error:
        assert "w.torch" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "content",
    [{"a": {"b": 1}}, {"a": -1}, {"a": "b"}, {1: 2}, {"a": True}, ["a", 1, 2], {}, {"a": 1.5}, {"a": None}],
    ids=str,
)
def test_offsets_that_are_no_flat_dictionary_of_rows_are_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "o.pkl").write_bytes(pickle.dumps(content))
    (tmp_path / "o.json").write_text(json.dumps(content))
    readers = ["o.pkl"] if content == {1: 2} else ["o.pkl", "o.json"]
    for name in readers:
        with pytest.raises(ModelError, match=name):
            read_offsets(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        {"A": torch.ones(3), "B": torch.ones(4)},
        {"A": torch.ones(3, 1)},
        {"A": 1.0},
        {"A": [1.0, 2.0]},
        {},
        [torch.ones(3)],
    ],
    ids=["widths", "matrix", "number", "list", "empty", "no names"],
)
def test_vectors_that_are_none_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "v.pt")
    with pytest.raises(ModelError, match=r"v.pt: not (a dictionary of gene symbols to vectors|one vector per symbol)"):
        read_vectors(tmp_path / "v.pt")


def test_arrays_of_numpy_in_a_tensor_file_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"A": np.ones(3)}, tmp_path / "v.pt")
    with pytest.raises(ModelError, match=r"holds numpy[._a-z]*multiarray\._reconstruct, which only code can read"):
        read_vectors(tmp_path / "v.pt")


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr("uce.genes.sources._MOST_PLACES_BYTES", 1 << 20)
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(bytes(2 << 20), mtime=0))
    with pytest.raises(ModelError, match="more than 1,048,576 bytes; the published file is far smaller"):
        read_places(tmp_path / "c.csv.gz")
