"""Files of a manifest that are addresses: fetched once, compared with their hash, failures listed."""

import hashlib
from pathlib import Path

import pytest

from uce.cli.main import main
from uce.corpus.fetch import fetch_files
from uce.errors import InputError, ModelError

CELLS = b"the bytes of a file of cells"
ROWS = "dataset_id,path,species,sha256\n"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were asked for; each answers with CELLS, but for one that is not there."""
    addresses: list[str] = []

    def fetch(url: str, path: Path, **_options: object) -> None:
        addresses.append(url)
        if "missing" in url:
            msg = f"{url} answers 404 Not Found. Check the address, or try later."
            raise ModelError(msg)
        path.write_bytes(CELLS)

    monkeypatch.setattr("uce.model.catalogue.fetch", fetch)
    return addresses


def manifest(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text(ROWS + "\n".join(rows) + "\n")
    return path


def test_addresses_are_fetched_once_and_local_rows_left_alone(asked: list[str], tmp_path: Path) -> None:
    known = hashlib.sha256(CELLS).hexdigest()
    path = manifest(tmp_path, f"a,https://x.org/a.h5ad,human,{known}", "b,b.h5ad,human,")
    found = fetch_files(path, tmp_path / "data")
    assert (found.fetched, found.there, found.failed) == (1, 0, {})
    assert (tmp_path / "data" / "a.h5ad").read_bytes() == CELLS
    again = fetch_files(path, tmp_path / "data")
    assert (again.fetched, again.there) == (0, 1)
    assert asked == ["https://x.org/a.h5ad"]


def test_other_bytes_than_stated_are_removed_and_failures_listed(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        f"a,https://x.org/a.h5ad,human,{'0' * 64}",
        "m,https://x.org/missing.h5ad,human,",
        "c,https://x.org/c.h5ad,human,",
    ]
    path = manifest(tmp_path, *rows)
    assert main(["corpus", "fetch", str(path), "-o", str(tmp_path / "data"), "--quiet"]) == InputError.exit_code
    said = capsys.readouterr().out
    assert "1 files fetched, 0 were there, 2 failed" in said
    assert "sent other bytes than the manifest states" in said
    assert "404 Not Found" in said
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["c.h5ad"]
    assert len(asked) == 3


def test_a_manifest_without_addresses_has_nothing_to_fetch(asked: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row has an https address"):
        fetch_files(manifest(tmp_path, "b,b.h5ad,human,"), tmp_path / "data")
    assert asked == []
