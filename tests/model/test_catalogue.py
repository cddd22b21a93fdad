"""What is there and what could be; downloads against a server that cuts, lies, forgets and changes its mind."""

import functools
import hashlib
import http.server
import io
import itertools
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from uce.errors import ModelError, StorageError
from uce.genes.proteins.weights import find_weights, known_encoders, recorded_sha256
from uce.model import catalogue
from uce.model.registry import RegisteredModel, RemoteFile, registry

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes: more than one chunk


def ends(content: bytes) -> str:
    both = content if len(content) <= 8192 else content[:8192] + content[-8192:]
    return hashlib.sha256(both).hexdigest()


@dataclass
class Publisher:
    """A web server whose bad days are settings; `requests` holds (path, first byte asked for) of every request."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # the next answers end after so many bytes
    statuses: list[int] = field(default_factory=list)  # the next answers have these statuses
    ranges: bool = True
    etag: str = '"1"'
    page: bytes | None = None  # an error page served as the file
    page_type: str = "text/html; charset=utf-8"
    length: bool = True
    delay: float = 0.0
    requests: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        name = handler.path.strip("/")
        first = int(handler.headers.get("Range", "bytes=0-")[len("bytes=") : -1]) if self.ranges else 0
        self.requests.append((name, first))
        time.sleep(self.delay)
        body = self.page if self.page is not None else self.files.get(name)
        status = self.statuses.pop(0) if self.statuses else 200 if body is not None else 404
        if status == 200 and body is not None and first >= len(body) > 0:
            status = 416
        if status != 200 or body is None:
            handler.send_error(status)
            return
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Type", self.page_type if self.page else "application/octet-stream")
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if self.length:
            handler.send_header("Content-Length", str(len(body) - first))
        handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(body[first:][: self.cuts.pop(0)] if self.cuts else body[first:])


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    publisher = Publisher()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            publisher.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(catalogue, "_PAUSES_SECONDS", (0.0, 0.0, 0.0, 0.0))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    publisher.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield publisher
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(publisher: Publisher, tmp_path: Path) -> Callable[..., Path]:
    """Fetch `/file` of the publisher, by default a good one, to an empty folder."""
    publisher.files.setdefault("file", CONTENT)

    def run(**known: object) -> Path:
        catalogue.fetch(f"{publisher.url}/file", tmp_path / "file", progress=False, **known)  # type: ignore[arg-type]
        return tmp_path / "file"

    return run


def begin(folder: Path, content: bytes, *, total: int, etag: str = '"1"') -> None:
    """Leave in `folder` what a killed download leaves."""
    (folder / "file.part").write_bytes(content)
    (folder / "file.part.json").write_text(json.dumps({"total": total, "version": etag}))


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(fetch: Callable[..., Path], tmp_path: Path) -> None:
    assert fetch(size=len(CONTENT), ends_sha256=ends(CONTENT)).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("content", [b"", b"x", bytes(8192), bytes(8193), CONTENT[:20_000]])
def test_short_files_have_the_published_check_value(
    content: bytes, publisher: Publisher, fetch: Callable[..., Path]
) -> None:
    publisher.files["file"] = content
    assert fetch(ends_sha256=ends(content)).read_bytes() == content


def test_a_cut_connection_goes_on_where_it_stopped(publisher: Publisher, fetch: Callable[..., Path]) -> None:
    publisher.cuts = [70_000, 0, 100_001]
    assert fetch().read_bytes() == CONTENT
    assert [first for _, first in publisher.requests] == [0, 70_000, 70_000, 170_001]


def test_many_cuts_are_borne_as_long_as_each_try_gains_something(
    publisher: Publisher, fetch: Callable[..., Path]
) -> None:
    publisher.cuts = [20_000] * 12
    assert fetch().read_bytes() == CONTENT


def test_a_connection_that_never_lasts_is_one_clear_error_and_keeps_its_bytes(
    publisher: Publisher, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    publisher.cuts = [50_000] + [0] * 20
    with pytest.raises(ModelError, match=r"^file: .*127\.0\.0\.1 \(cut after 50,000 of 307,200 bytes\).*run the same"):
        fetch()
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:50_000]
    publisher.cuts = []
    assert fetch().read_bytes() == CONTENT
    assert publisher.requests[-1][1] == 50_000


def test_a_server_without_ranges_sends_the_whole_file_again(publisher: Publisher, fetch: Callable[..., Path]) -> None:
    publisher.cuts, publisher.ranges = [70_000], False
    assert fetch().read_bytes() == CONTENT
    assert len(publisher.requests) == 2


def test_a_file_that_changed_between_two_tries_starts_again(
    publisher: Publisher, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    begin(tmp_path, b"old" * 1000, total=len(CONTENT), etag='"0"')
    assert fetch().read_bytes() == CONTENT
    assert [first for _, first in publisher.requests] == [3000, 0]


@pytest.mark.parametrize("total", [len(CONTENT) - 1, 5 * len(CONTENT)])
def test_a_file_of_another_length_than_last_time_starts_again(
    total: int, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    begin(tmp_path, b"old" * 1000, total=total)
    assert fetch().read_bytes() == CONTENT


def test_bytes_beyond_the_end_of_what_is_there_now_start_again(fetch: Callable[..., Path], tmp_path: Path) -> None:
    begin(tmp_path, CONTENT + CONTENT, total=3 * len(CONTENT))
    assert fetch().read_bytes() == CONTENT


def test_a_finished_part_needs_no_request(publisher: Publisher, fetch: Callable[..., Path], tmp_path: Path) -> None:
    begin(tmp_path, CONTENT, total=len(CONTENT))
    assert fetch(size=len(CONTENT), ends_sha256=ends(CONTENT)).read_bytes() == CONTENT
    assert publisher.requests == []


@pytest.mark.parametrize("note", ["", "{}", "[1]", '{"total": "many", "version": 1}'])
def test_a_part_with_a_damaged_note_is_not_trusted(note: str, fetch: Callable[..., Path], tmp_path: Path) -> None:
    begin(tmp_path, b"old" * 1000, total=1)
    (tmp_path / "file.part.json").write_text(note)
    assert fetch().read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(publisher: Publisher, fetch: Callable[..., Path]) -> None:
    publisher.statuses = [503, 429]
    assert fetch().read_bytes() == CONTENT


def test_a_refusal_is_final_and_names_the_status(publisher: Publisher, fetch: Callable[..., Path]) -> None:
    publisher.statuses = [403]
    with pytest.raises(ModelError, match=r"^file: http://.*/file answers 403 Forbidden\. Check the address"):
        fetch()
    assert len(publisher.requests) == 1


def test_another_length_than_published_is_refused_before_a_byte_is_stored(
    fetch: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"has 307,200 bytes, 307,201 were published"):
        fetch(size=len(CONTENT) + 1)
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_than_published_are_refused_and_removed(fetch: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^file: .* sent other bytes than were published .* They were removed"):
        fetch(size=len(CONTENT), ends_sha256=ends(CONTENT[:-1] + b"?"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_in_place_of_the_file_is_refused(
    page_type: str, publisher: Publisher, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    publisher.page, publisher.page_type = b"\n<!DOCTYPE html><html>Sorry</html>", page_type
    with pytest.raises(ModelError, match=r"answers with a web page instead of the file"):
        fetch()
    assert list(tmp_path.iterdir()) == []


def test_a_web_page_instead_of_the_rest_costs_nothing(
    publisher: Publisher, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    begin(tmp_path, CONTENT[:70_000], total=len(CONTENT))
    publisher.page = b"<html>Down for maintenance</html>"
    publisher.ranges = False
    for known in ({}, {"size": len(CONTENT)}):
        with pytest.raises(ModelError, match=r"answers with a web page instead of the file"):
            fetch(**known)
    publisher.page, publisher.ranges = None, True
    assert fetch().read_bytes() == CONTENT
    assert publisher.requests[-1] == ("file", 70_000)


def test_an_answer_without_a_length_is_refused(publisher: Publisher, fetch: Callable[..., Path]) -> None:
    publisher.length = False
    with pytest.raises(ModelError, match=r"answers with status 200 and no length"):
        fetch()


def test_a_server_that_is_not_there_is_one_clear_error(publisher: Publisher, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        with pytest.raises(ModelError, match=r"Connection refused.*0 bytes are kept"):
            catalogue.fetch(url, tmp_path / "file", progress=False)


def test_only_addresses_of_the_web_are_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with pytest.raises(ModelError, match=r"^file://.*: not an address of the web"):
        catalogue.fetch(secret.as_uri(), tmp_path / "file")


def test_a_full_disk_is_a_storage_error(
    fetch: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_part", lambda _: Path("/dev/full"))
    monkeypatch.setattr(catalogue, "_note", lambda _: tmp_path / "note")
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(StorageError, match=r"^/dev/full: cannot be written \(No space left on device\)"):
        fetch()


def test_the_bar_counts_bytes_on_a_terminal(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.files["file"] = CONTENT
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    catalogue.fetch(f"{publisher.url}/file", tmp_path / "file", progress=True)
    assert "307k/307k" in capsys.readouterr().err


# The registry and the list


def test_what_is_registered_is_what_was_published(shared: Path) -> None:
    files = {file.name: file for file in registry()["uce-4l"].files}
    for name in ("species_chrom.csv", "species_offsets.pkl"):
        content = next((shared / "data" / "uce_artifacts").glob(name + "*"))
        raw = content.read_bytes()
        if content.suffix == ".gz":
            import gzip

            raw = gzip.decompress(raw)
        assert (files[name].size, files[name].ends_sha256) == (len(raw), ends(raw))


def test_both_published_models_share_all_but_the_weights() -> None:
    small, large = registry()["uce-4l"], registry()["uce-33l"]
    assert {file.name for file in small.files} ^ {file.name for file in large.files} == {
        "4layer_model.torch",
        "33l_8ep_1024t_1280.torch",
    }
    assert len({file.id for file in (*small.files, *large.files)}) == 6
    assert 8.8e9 < small.download_bytes < 9.5e9 < large.download_bytes < 11.6e9
    assert len(small.proteins) == len({protein.ends_sha256 for protein in small.proteins}) == 8


def test_the_list_names_each_model_once_installed_first(uce_home: Path) -> None:
    for name in ("mine", "uce-33l"):
        (uce_home / "models" / name).mkdir(parents=True)
        (uce_home / "models" / name / "config.json").write_text('{"info": {"summary": "of my own"}}')
    (uce_home / "models" / "damaged").mkdir()
    (uce_home / "models" / "damaged" / "config.json").write_text("[")
    (uce_home / "models" / "half-copied").mkdir()
    listed = catalogue.list_models()
    assert [(model.name, model.state) for model in listed if model.state != "bundled"] == [
        ("damaged", "installed"),
        ("mine", "installed"),
        ("uce-33l", "installed"),
        ("uce-4l", "registered"),
    ]
    assert [model.summary for model in listed[:3]] == ["", "of my own", "of my own"]
    assert listed[2].path == uce_home / "models" / "uce-33l"
    assert listed[-1].path is None
    assert "4 layers" in listed[-1].summary


def test_listing_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue.urllib.request, "urlopen", lambda *_, **__: pytest.fail("the network was used"))
    catalogue.list_models()
    catalogue.registered_models()


# download


def published(**contents: bytes) -> RegisteredModel:
    """A registered model with small files; `weights` is the largest."""
    files = {
        name: RemoteFile(f"{name}.bin", number, len(content), len(content), ends(content))
        for number, (name, content) in enumerate(contents.items())
    }
    return replace(
        registry()["uce-4l"],
        name="tiny",
        weights=files.pop("weights"),
        others=tuple(files.values()),
        proteins=(),
        unpacked_bytes=0,
        installed_bytes=0,
    )


@pytest.fixture
def tiny(publisher: Publisher, monkeypatch: pytest.MonkeyPatch, uce_home: Path) -> Callable[[], Path]:
    """Download the model `tiny`, whose installation only writes its config."""
    contents = {"weights": CONTENT, "tokens": CONTENT[:9000]}
    publisher.files = {str(number): content for number, content in enumerate(contents.values())}
    monkeypatch.setattr(catalogue, "registry", lambda: {"tiny": published(**contents)})
    monkeypatch.setattr(catalogue, "_install", install)
    return lambda: catalogue.download("tiny", base_url=publisher.url, progress=False)


def install(model: RegisteredModel, folder: Path) -> Path:
    target = folder.parents[1] / "models" / model.name
    target.mkdir(parents=True)
    (target / "config.json").write_text(json.dumps(sorted(path.name for path in folder.glob("*.bin"))))
    return target


def test_a_download_fetches_installs_and_records_complete_hashes(
    tiny: Callable[[], Path], publisher: Publisher, uce_home: Path
) -> None:
    folder = tiny()
    assert folder == uce_home / "models" / "tiny"
    assert json.loads((folder / "config.json").read_text()) == ["tokens.bin", "weights.bin"]
    assert [name for name, _ in publisher.requests] == ["1", "0"]  # the small file first
    assert json.loads((uce_home / "downloads" / "tiny" / "sha256.json").read_text()) == {
        "tokens.bin": hashlib.sha256(CONTENT[:9000]).hexdigest(),
        "weights.bin": hashlib.sha256(CONTENT).hexdigest(),
    }


def test_an_installed_model_is_not_fetched_again(tiny: Callable[[], Path], publisher: Publisher) -> None:
    assert tiny() == tiny()
    assert len(publisher.requests) == 2


def test_files_that_are_there_are_used_after_a_failed_installation(
    tiny: Callable[[], Path], publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Path:
        raise ModelError("not today")

    with monkeypatch.context() as patched:
        patched.setattr(catalogue, "_install", fail)
        with pytest.raises(ModelError, match="not today"):
            tiny()
    tiny()
    assert len(publisher.requests) == 2


def test_a_file_that_changed_after_its_first_use_is_refused(tiny: Callable[[], Path], uce_home: Path) -> None:
    (tiny() / "config.json").unlink()
    weights = uce_home / "downloads" / "tiny" / "weights.bin"
    middle = len(CONTENT) // 2  # where the published check value does not look
    weights.write_bytes(CONTENT[:middle] + b"?" + CONTENT[middle + 1 :])
    with pytest.raises(ModelError, match=r"weights\.bin: changed since it was first used \(SHA-256 .* Delete it"):
        tiny()


def test_a_file_placed_by_hand_must_be_the_published_one(tiny: Callable[[], Path], uce_home: Path) -> None:
    (uce_home / "downloads" / "tiny").mkdir(parents=True)
    (uce_home / "downloads" / "tiny" / "weights.bin").write_bytes(b"<html>")
    with pytest.raises(ModelError, match=r"weights\.bin: not the published file"):
        tiny()


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        ModelError,
        match=r"^uce-4: not a published model\. Did you mean uce-4l\? Known: uce-4l, uce-33l, esm2_t6_.*15B_UR50D\.",
    ):
        catalogue.download("uce-4")


def test_a_folder_that_cannot_be_made_is_a_storage_error(uce_home: Path) -> None:
    (uce_home / "downloads").write_text("in the way")
    with pytest.raises(StorageError, match=r"downloads/uce-4l: cannot be made \(Not a directory\)\. Point UCE_HOME"):
        catalogue.download("uce-4l")


def test_too_little_space_is_said_before_the_first_request(
    tiny: Callable[[], Path], publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        catalogue, "registry", lambda: {"tiny": replace(published(weights=b"x"), installed_bytes=10**18)}
    )
    with pytest.raises(StorageError, match=r"1000000000\.00 GB needed"):
        tiny()
    assert publisher.requests == []


TWO = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_catalogue as t
from uce.model import catalogue
catalogue.registry = lambda: {"tiny": t.published(weights=t.CONTENT, tokens=t.CONTENT[:9000])}
catalogue._install = t.install
print(catalogue.download("tiny", base_url=sys.argv[2], progress=False))
"""


def test_two_processes_that_ask_at_once_fetch_once(
    tiny: Callable[[], Path], publisher: Publisher, uce_home: Path
) -> None:
    publisher.delay = 0.3
    command = [sys.executable, "-c", TWO, str(Path(__file__).parent), publisher.url]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert {out.strip() for out, _ in answers} == {str(uce_home / "models" / "tiny")}
    assert len(publisher.requests) == 2


def test_a_killed_download_is_taken_over_and_continued(
    tiny: Callable[[], Path], publisher: Publisher, uce_home: Path
) -> None:
    publisher.cuts = [9000, 70_000]
    publisher.statuses = [200, 200] + [503] * 100
    slow = TWO.replace("catalogue._install", "catalogue._PAUSES_SECONDS = (60.0,) * 4\ncatalogue._install")
    command = [sys.executable, "-c", slow, str(Path(__file__).parent), publisher.url]
    part = uce_home / "downloads" / "tiny" / "weights.bin.part"
    with subprocess.Popen(command) as process:
        while not (part.exists() and part.stat().st_size == 70_000):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert (part.parent / ".lock").exists()
    publisher.statuses = []
    tiny()
    assert publisher.requests[-1] == ("0", 70_000)


def test_the_lock_of_another_machine_is_waited_for_and_named(
    tiny: Callable[[], Path], uce_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = uce_home / "downloads" / "tiny" / ".lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"host": "elsewhere", "pid": os.getpid()}))
    threading.Timer(0.5, lock.unlink).start()
    with caplog.at_level(logging.WARNING, logger="uce"):
        tiny()
    assert [f"process {os.getpid()} on elsewhere" in text for text in caplog.messages] == [True]


def test_files_of_another_downloaded_model_are_not_fetched_again(
    tiny: Callable[[], Path], publisher: Publisher, uce_home: Path
) -> None:
    other = uce_home / "downloads" / "other" / "tokens.bin"
    other.parent.mkdir(parents=True)
    other.write_bytes(CONTENT[:9000])
    tiny()
    assert [name for name, _ in publisher.requests] == ["0"]
    assert (uce_home / "downloads" / "tiny" / "tokens.bin").samefile(other)


# Weights of protein models

PROTEINS = "esm2_t6_8M_UR50D"


@pytest.fixture
def esm2(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Download a small stand-in of a published ESM2."""
    publisher.files = {f"{PROTEINS}.pt": CONTENT}
    monkeypatch.setitem(known_encoders(), PROTEINS, replace(known_encoders()[PROTEINS], address=publisher.url))
    return lambda: catalogue.download(PROTEINS, progress=False)


def test_weights_of_an_esm2_land_where_they_are_found_with_their_hash_recorded(
    esm2: Callable[[], Path], publisher: Publisher, uce_home: Path
) -> None:
    path = esm2()
    assert path == find_weights(PROTEINS) == uce_home / "esm2" / f"{PROTEINS}.pt"
    assert path.read_bytes() == CONTENT
    assert recorded_sha256(path) == hashlib.sha256(CONTENT).hexdigest()
    assert esm2() == path
    assert len(publisher.requests) == 1
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, "sha256.json"]


def test_the_download_of_an_esm2_goes_on_where_it_was_cut(esm2: Callable[[], Path], publisher: Publisher) -> None:
    publisher.cuts = [70_000]
    assert esm2().read_bytes() == CONTENT
    assert [first for _, first in publisher.requests] == [0, 70_000]


def test_an_esm2_that_changed_since_its_download_is_refused(esm2: Callable[[], Path]) -> None:
    esm2().write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(ModelError, match=rf"{PROTEINS}\.pt: changed since it was first used"):
        esm2()


def test_an_esm2_is_not_begun_where_it_has_no_room(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, uce_home: Path
) -> None:
    monkeypatch.setitem(known_encoders(), PROTEINS, replace(known_encoders()[PROTEINS], about=10**18))
    with pytest.raises(StorageError, match=r"esm2: 1000000000\.00 GB needed"):
        catalogue.download(PROTEINS, base_url=publisher.url, progress=False)
    assert publisher.requests == []


def test_the_published_addresses_are_those_of_fair_esm() -> None:
    assert {known.address for known in known_encoders().values()} == {"https://dl.fbaipublicfiles.com/fair-esm/models"}


# From the publisher to a model that loads, on files of the published form, narrow

GENES = {
    "frog": 13_462, "human": 19_790, "macaca_fascicularis": 15_175, "macaca_mulatta": 16_775,
    "mouse": 22_324, "mouse_lemur": 14_542, "pig": 15_772, "zebrafish": 25_730,
}  # fmt: skip


def saved(content: object) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def chromosomes_csv() -> bytes:
    lines = ["gene_symbol,chromosome,start,species"]
    for species, genes in GENES.items():
        names = 243 if species == "zebrafish" else 236  # 1,895 in all
        lines += [f"G{gene},c{gene % names},{gene + 1},{species}" for gene in range(genes)]
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def published_files(published_state: Callable[..., dict[str, Any]]) -> tuple[RegisteredModel, dict[str, bytes]]:
    """`uce-4l` with its files' names, ids and species, but two layers, 64 wide, genes of width 2, only frogs' real."""
    import torch

    model = registry()["uce-4l"]
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(145_469, 2, generator=generator)
    state = published_state(layers=2, dim=64, hidden=8, protein_dim=2, out_dim=16)
    first = dict(zip(GENES, itertools.accumulate(GENES.values(), initial=4), strict=False))
    frogs = {f"G{gene}": row for gene, row in enumerate(table[4 : 4 + GENES["frog"]])}
    dictionaries = {
        protein: saved(frogs if protein.species == "frog" else {protein.species: table[0]})
        for protein in model.proteins
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as tar:
        for protein, content in dictionaries.items():
            info = tarfile.TarInfo(f"protein_embeddings/{protein.name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    contents = {
        "4layer_model.torch": saved({**state, "pe_embedding.weight": table}),
        "all_tokens.torch": saved(table[:143_574].clone()),
        "species_chrom.csv": chromosomes_csv(),
        "species_offsets.pkl": pickle.dumps(first),
        "protein_embeddings.tar.gz": stream.getvalue(),
    }
    files = {
        file.name: replace(file, size=len(contents[file.name]), about=1, ends_sha256=ends(contents[file.name]))
        for file in model.files
    }
    narrow = replace(
        model,
        weights=files[model.weights.name],
        others=tuple(files[file.name] for file in model.others),
        proteins=tuple(replace(protein, ends_sha256=ends(content)) for protein, content in dictionaries.items()),
        unpacked_bytes=10**8,
        installed_bytes=0,
    )
    return narrow, {str(files[name].id): content for name, content in contents.items()}


def test_a_download_ends_in_a_model_and_gene_tables_that_load(
    published_files: tuple[RegisteredModel, dict[str, bytes]],
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    uce_home: Path,
) -> None:
    from uce.genes.collection import load_gene_table
    from uce.model import published
    from uce.model.checkpoint import load_model

    model, publisher.files = published_files
    only_frog = functools.partial(published.import_published, species=["frog"])  # the others only take longer
    monkeypatch.setattr(published, "import_published", only_frog)
    monkeypatch.setattr(catalogue, "registry", lambda: {"uce-4l": model})
    folder = catalogue.download("uce-4l", base_url=publisher.url, progress=False)
    assert folder == uce_home / "models" / "uce-4l"
    assert load_model("uce-4l").config.layers == 2
    table = load_gene_table("frog", encoder=load_model("uce-4l").gene_encoder)
    assert len(table) == GENES["frog"]
    assert [item.name for item in catalogue.list_models() if item.state == "installed"] == ["uce-4l"]
    assert sorted(path.name for path in (uce_home / "downloads" / "uce-4l").iterdir()) == sorted(
        [*(file.name for file in model.files), "sha256.json"]
    )


def test_a_dictionary_in_the_archive_must_be_the_published_one(
    published_files: tuple[RegisteredModel, dict[str, bytes]], publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, publisher.files = published_files
    wrong = (replace(model.proteins[0], ends_sha256="0" * 64), *model.proteins[1:])
    monkeypatch.setattr(catalogue, "registry", lambda: {"uce-4l": replace(model, proteins=wrong)})
    with pytest.raises(ModelError, match=r"protein_embeddings\.tar\.gz: Homo_sapiens\S* is not the published one"):
        catalogue.download("uce-4l", base_url=publisher.url, progress=False)
