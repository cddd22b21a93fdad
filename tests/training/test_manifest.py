"""A manifest is somebody's spreadsheet: read in its usual disguises, refused by line where it cannot be used."""

from pathlib import Path

import pytest

from uce.errors import UsageError
from uce.training.manifest import read_manifest
from uce.training.settings import DataSettings

HEADER = "dataset,file,species,role\n"
ROW = "one,cells/one.h5ad,human,train\n"


def settings(tmp_path: Path, content: bytes) -> DataSettings:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    return DataSettings(manifest=str(path), folder=str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        (HEADER + ROW).encode(),
        (HEADER + ROW).encode("utf-8-sig"),
        (HEADER + ROW).replace("\n", "\r\n").encode(),
        (HEADER + "\n" + ROW + "\n").encode(),
        (HEADER + '"one","cells/one.h5ad","human","train"\n').encode(),
        ("# made by hand\n" + HEADER + ROW).encode(),
    ],
    ids=["plain", "byte order mark", "windows line ends", "blank lines", "quotes", "comment"],
)
def test_the_usual_disguises_of_a_table_are_read(tmp_path: Path, content: bytes) -> None:
    rows, others = read_manifest(settings(tmp_path, content))
    assert rows["file"].tolist() == ["cells/one.h5ad"]
    assert others == ()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ((HEADER + ROW).replace(",", ";").encode(), "column dataset is missing; .* separated by commas"),
        (HEADER.encode() + "zwölf,a.h5ad,human,train\n".encode("cp1252"), "not UTF-8 at byte"),
        (b"", "not a table of comma-separated values"),
        ((HEADER + "a,b,c,d,e,f\n" + ROW + '"open\n').encode(), "not a table|line"),
        ((HEADER + ROW + ROW).encode(), "line 3: dataset one is listed twice"),
        ((HEADER + "=cmd(),a.h5ad,human,train\n").encode(), "line 2: dataset '=cmd\\(\\)'"),
        ((HEADER + ".hidden,a.h5ad,human,train\n").encode(), "line 2: dataset '.hidden'"),
        ((HEADER + "a,../a.h5ad,human,train\n").encode(), "line 2: file '../a.h5ad'; a path below data.folder"),
        ((HEADER + "a,/etc/passwd,human,train\n").encode(), "line 2: file '/etc/passwd'"),
        ((HEADER + "a,~/a.h5ad,human,train\n").encode(), "line 2: file '~/a.h5ad'"),
        ((HEADER + "a,https://x.org/a.h5ad,human,train\n").encode(), "line 2: file 'https"),
        ((HEADER + "a,C:\\a.h5ad,human,train\n").encode(), "line 2: file 'C:"),
        ((HEADER + "a,,human,train\n").encode(), "line 2: file ''"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_line(tmp_path: Path, content: bytes, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        read_manifest(settings(tmp_path, content))
