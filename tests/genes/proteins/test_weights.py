"""Which ESM2 models are known, where their files are found, and what an unknown or unfit name is told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from uce.errors import ModelError
from uce.genes.proteins.weights import (
    encoder_name,
    find_weights,
    known_encoders,
    local_weights,
    recorded_sha256,
    weights_folder,
)

SMALL = "esm2_t6_8M_UR50D"


@pytest.fixture(autouse=True)
def _no_other_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def place(folder: Path, name: str = SMALL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    path.write_bytes(b"weights")
    return path


def test_the_six_published_models_are_known_by_their_sizes() -> None:
    sizes = {name: (known.architecture.layers, known.architecture.dim) for name, known in known_encoders().items()}
    assert sizes == {
        "esm2_t6_8M_UR50D": (6, 320),
        "esm2_t12_35M_UR50D": (12, 480),
        "esm2_t30_150M_UR50D": (30, 640),
        "esm2_t33_650M_UR50D": (33, 1280),
        "esm2_t36_3B_UR50D": (36, 2560),
        "esm2_t48_15B_UR50D": (48, 5120),
    }


@pytest.mark.parametrize(
    ("name", "millions"),
    [("esm2_t6_8M_UR50D", 8), ("esm2_t12_35M_UR50D", 35), ("esm2_t30_150M_UR50D", 150),
     ("esm2_t33_650M_UR50D", 650), ("esm2_t36_3B_UR50D", 3000), ("esm2_t48_15B_UR50D", 15_000)],
)  # fmt: skip
def test_parameters_and_file_lengths_agree_with_the_name(name: str, millions: int) -> None:
    known = known_encoders()[name]
    parameters = known.architecture.linear_parameters + known.architecture.other_parameters
    assert parameters / 1e6 == pytest.approx(millions, rel=0.1)
    assert known.about / parameters == pytest.approx(2 if millions >= 3000 else 4, rel=0.04)


def test_parameters_are_counted_as_in_the_module() -> None:
    import torch
    from esm.model.esm2 import ESM2

    size = known_encoders()[SMALL].architecture
    with torch.device("meta"):
        module = ESM2(size.layers, size.dim, size.heads)
    module.lm_head = module.contact_head = None
    assert sum(values.numel() for values in module.parameters()) == size.linear_parameters + size.other_parameters
    linear = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    assert sum(values.numel() for part in linear for values in part.parameters()) == size.linear_parameters


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = place(tmp_path, "mine")
    assert find_weights(path) == find_weights(str(path)) == path


def test_a_name_is_found_in_the_users_folder_before_that_of_fair_esm(tmp_path: Path) -> None:
    hub = place(tmp_path / "torch" / "hub" / "checkpoints")
    assert find_weights(SMALL) == hub
    own = place(weights_folder())
    assert find_weights(SMALL) == local_weights(SMALL) == own


def test_fair_esms_folder_is_in_the_cache_where_torch_home_is_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = place(tmp_path / "cache" / "torch" / "hub" / "checkpoints")
    assert find_weights(SMALL) == path


def test_weights_of_ones_own_are_found_by_name_too() -> None:
    path = place(weights_folder(), "esm2_mine")
    assert find_weights("esm2_mine") == path


def test_a_known_model_that_is_not_here_says_how_to_fetch_it() -> None:
    with pytest.raises(
        ModelError,
        match=r"^esm2_t48_15B_UR50D: its weights are not .* `uce models download esm2_t48_15B_UR50D` \(about 30",
    ):
        find_weights("esm2_t48_15B_UR50D")


def test_a_misspelt_name_is_told_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"Did you mean esm2_t33_650M_UR50D\? Known: esm2_t6_8M_UR50D, .*15B_UR50D\."):
        find_weights("esm2_t33_650M_UR50")


@pytest.mark.parametrize("text", ["none.pt", "folder/none", "../none.pt", "https://example.org/none.pt"])
def test_a_path_without_a_file_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no such file; ESM2 weights"):
        find_weights(text)


def test_names_reach_no_other_folder() -> None:
    place(weights_folder().parent, "outside")
    assert local_weights("../outside") is None
    assert local_weights(".") is None


@pytest.mark.parametrize("stem", ["esm2_t33_650M_UR50D", "a", "9.b-c_d", "x" * 128])
def test_the_kind_of_vectors_is_the_stem(stem: str) -> None:
    assert encoder_name(Path(f"/anywhere/{stem}.pt")) == stem


@pytest.mark.parametrize(
    "stem", ["", "weights of mine", "-x", ".x", "x.", "a+b", "a\nb", "prot\u00e9ine", "x" * 129, "orthogroups-v1"]
)
def test_what_cannot_name_a_kind_of_vectors_is_refused(stem: str) -> None:
    with pytest.raises(ModelError, match=r"cannot name a kind of gene vectors. Rename the file"):
        encoder_name(Path(f"{stem}.pt"))


def test_a_hash_recorded_beside_the_file_is_read(tmp_path: Path) -> None:
    record = tmp_path / "sha256.json"
    assert recorded_sha256(tmp_path / "a.pt") is None
    record.write_text(json.dumps({"a.pt": "0" * 64, "b.pt": 3}))
    assert recorded_sha256(tmp_path / "a.pt") == "0" * 64
    assert recorded_sha256(tmp_path / "b.pt") is None
    assert recorded_sha256(tmp_path / "c.pt") is None
    record.write_text("[")
    assert recorded_sha256(tmp_path / "a.pt") is None


def test_finding_weights_needs_no_torch() -> None:
    code = "import sys, uce.genes.proteins.weights as w; w.known_encoders(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
