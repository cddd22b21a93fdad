"""The models there are, and fetching those that are published, of cells and of proteins.

The only module that speaks to the network.

A download keeps what has arrived in `NAME.part` and goes on from there, so a cut connection or a killed process costs
nothing. What was published about a file (length, SHA-256 of its two ends) is checked at once; its complete SHA-256 is
recorded in `sha256.json` beside it on first use, and checked on every later one.
"""

import contextlib
import hashlib
import http
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from uce import __version__
from uce.errors import ModelError, StorageError
from uce.files import check_writable, make_folder, nearest, printable, sha256_file, shorten, user_folder, write_json
from uce.genes.proteins.weights import KnownEncoder, known_encoders, weights_folder
from uce.locks import lock
from uce.model.archives import unpack
from uce.model.registry import KnownModel, RegisteredModel, RemoteFile, list_models, registered_models, registry

_END_BYTES = 8192  # the published check values are SHA-256 over the first and the last 8,192 bytes
_CHUNK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 60.0
_PAUSES_SECONDS = (1.0, 3.0, 10.0, 30.0)  # before each new try that follows one without progress
_RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}


__all__ = ["KnownModel", "download", "fetch", "list_models", "registered_models"]


def download(name: str, *, base_url: str | None = None, progress: bool = True) -> Path:
    """Fetch a published model, check it and make a model folder of it; or fetch the weights of a published ESM2.

    Files go to `downloads/NAME` in the user's folder, the model to `models/NAME`, gene tables to `genes/`; an ESM2 goes
    to `esm2/NAME.pt`. What is there already is checked and used. Two processes may ask at once: the second waits and
    finds the model installed.

    Parameters
    ----------
    name
        A name in `registered_models` or in `known_encoders`.
    base_url
        Another address with the same files at `base_url/ID` (`base_url/NAME.pt` for an ESM2), for a mirror.
    progress
        Show a bar per file, where the error stream is a terminal.

    Returns
    -------
    Path
        The model folder, or the weights file of an ESM2.

    Raises
    ------
    ModelError
        The name is not registered, or a file cannot be fetched or is not the published one.
    StorageError
        There is not enough space, or the user's folder cannot be written.
    """
    if name in known_encoders():
        return _download_encoder(known_encoders()[name], base_url=base_url, progress=progress)
    if name not in registry():
        known = [*registry(), *known_encoders()]
        listed = shorten(known, limit=len(known))
        msg = f"{printable(name)}: not a published model.{nearest(name, known)} Known: {listed}."
        raise ModelError(msg)
    model = registry()[name]
    installed = user_folder() / "models" / name
    folder = user_folder() / "downloads" / name
    make_folder(folder)
    with lock(folder / ".lock"):
        if (installed / "config.json").is_file():
            return installed
        for file in model.files:
            _reuse(file, folder)
        check_writable(folder, needed_bytes=_missing_bytes(model, folder))
        for file in model.files:
            _obtain(file, f"{base_url or model.address}/{file.id}", folder, progress=progress)
        return _install(model, folder)


def _download_encoder(encoder: KnownEncoder, *, base_url: str | None, progress: bool) -> Path:
    """Have the weights of an ESM2 in the user's folder. Their publisher states no length and no hash."""
    file = RemoteFile(f"{encoder.name}.pt", id=0, size=None, about=encoder.about, ends_sha256=None)
    folder = weights_folder()
    path = folder / file.name
    make_folder(folder)
    with lock(folder / ".lock"):
        arrived = next((found.stat().st_size for found in (path, _part(path)) if found.exists()), 0)
        check_writable(folder, needed_bytes=0 if path.exists() else max(0, file.about - arrived))
        _obtain(file, f"{base_url or encoder.address}/{file.name}", folder, progress=progress)
    return path


def _missing_bytes(model: RegisteredModel, folder: Path) -> int:
    """What the download and the installation still need on the disk."""
    arrived = 0
    for file in model.files:
        paths = (folder / file.name, _part(folder / file.name))
        arrived += sum(path.stat().st_size for path in paths if path.exists())
    return max(0, model.download_bytes - arrived) + model.unpacked_bytes + model.installed_bytes


def _obtain(file: RemoteFile, url: str, folder: Path, *, progress: bool) -> None:
    """Have `file` in `folder`, with its complete SHA-256 recorded or equal to the recorded one."""
    path, record = folder / file.name, folder / "sha256.json"
    known: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if not path.exists():
        fetch(url, path, size=file.size, ends_sha256=file.ends_sha256, progress=progress)
    elif file.ends_sha256 not in (None, _ends_sha256(path)) or file.size not in (None, path.stat().st_size):
        msg = f"{path}: not the published file, by its length or the SHA-256 of its ends. Delete it and download again."
        raise ModelError(msg)
    found = sha256_file(path)
    if known.setdefault(file.name, found) != found:
        change = f"SHA-256 {found[:12]}, not {known[file.name][:12]}"
        msg = f"{path}: changed since it was first used ({change}). Delete it and download it again."
        raise ModelError(msg)
    write_json(record, known)


def _reuse(file: RemoteFile, folder: Path) -> None:
    """Link the file from another model's downloads, where it is: the published models share most of their gigabytes."""
    others = [] if (folder / file.name).exists() else folder.parent.glob(f"*/{file.name}")
    for other in others:
        with contextlib.suppress(OSError):  # no such links on this disk: it is fetched again
            (folder / file.name).hardlink_to(other)
            return


def _install(model: RegisteredModel, folder: Path) -> Path:
    from uce.model.published import import_published

    proteins = folder / "protein_embeddings"
    shutil.rmtree(proteins, ignore_errors=True)
    archive = folder / "protein_embeddings.tar.gz"
    unpack(archive, proteins, names=[protein.name for protein in model.proteins], max_bytes=model.unpacked_bytes)
    for protein in model.proteins:
        if _ends_sha256(proteins / protein.name) != protein.ends_sha256:
            msg = f"{archive}: {protein.name} is not the published one. Delete the archive and download it again."
            raise ModelError(msg)
    installed = import_published(
        folder / model.weights.name,
        chromosomes=folder / "species_chrom.csv",
        offsets=folder / "species_offsets.pkl",
        proteins=proteins,
        name=model.name,
        tokens=folder / "all_tokens.torch",
    )
    shutil.rmtree(proteins)
    return installed


def fetch(
    url: str, path: Path, *, size: int | None = None, ends_sha256: str | None = None, progress: bool = True
) -> None:
    """Fetch `url` to `path`, going on from `path.part` where an earlier try left one.

    Parameters
    ----------
    size
        Length in bytes, where it is known beforehand.
    ends_sha256
        SHA-256 of the first 8,192 bytes followed by the last 8,192, where it is known beforehand.

    Raises
    ------
    ModelError
        The server refuses, answers with a web page, sends another length or other bytes, or the connection breaks again
        and again without progress. What has arrived stays, except where its content is known to be wrong.
    StorageError
        The disk is full or cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        msg = f"{url}: not an address of the web. Give one that starts with https://."
        raise ModelError(msg)
    part = _part(path)
    best = failures = 0
    while True:
        try:
            _transfer(url, part, size=size, progress=progress)
            break
        except _BrokenError as error:
            reached = part.stat().st_size if part.exists() else 0
            failures = failures + 1 if reached <= best else 1
            best = max(best, reached)
            if failures > len(_PAUSES_SECONDS):
                msg = (
                    f"{path.name}: no connection that lasts to {urlsplit(url).hostname} ({error}). "
                    f"{reached:,} bytes are kept; run the same command again to go on."
                )
                raise ModelError(msg) from error
            time.sleep(_PAUSES_SECONDS[failures - 1])
    if ends_sha256 is not None and (found := _ends_sha256(part)) != ends_sha256:
        _discard(part)
        msg = (
            f"{path.name}: {url} sent other bytes than were published ({found[:12]} not {ends_sha256[:12]}, "
            "SHA-256 of both ends). They were removed; try again, or report that the publisher changed the file."
        )
        raise ModelError(msg)
    part.replace(path)
    _note(part).unlink(missing_ok=True)


class _BrokenError(Exception):
    """The connection failed in a way that another try may mend."""


@dataclass(frozen=True)
class _Kept:
    """What an earlier try left: bytes on the disk, and the length and version of the remote file they came from."""

    bytes: int
    total: int
    version: str


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _kept(part: Path) -> _Kept | None:
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        kept = _Kept(part.stat().st_size, int(note["total"]), str(note["version"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if kept.bytes <= kept.total else None


def _transfer(url: str, part: Path, *, size: int | None, progress: bool) -> None:
    """Bring `part` to its full length in one request, or raise `_BrokenError`."""
    kept = _kept(part)
    if kept and kept.bytes == kept.total and size in (None, kept.total):
        return
    headers = {"User-Agent": f"uce/{__version__}", "Accept-Encoding": "identity"}
    if kept and kept.bytes:
        headers["Range"] = f"bytes={kept.bytes}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - `fetch` has checked the scheme
    with _answer(request, part) as response:
        start, total = _span(response, part)
        if size is not None and total != size:
            msg = f"{part.stem}: {url} has {total:,} bytes, {size:,} were published. Try later, or another address."
            raise ModelError(msg)
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if start and (kept is None or (start, total, version) != (kept.bytes, kept.total, kept.version)):
            _discard(part)
            msg = "the remote file changed; starting again"
            raise _BrokenError(msg)
        if start == 0:
            write_json(_note(part), {"total": total, "version": version})
        _store(response, part, start=start, total=total, progress=progress)


@contextmanager
def _answer(request: urllib.request.Request, part: Path) -> Iterator[http.client.HTTPResponse]:
    """Open `request`; refusals become errors with the status in words."""
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # our bytes reach beyond the end of what is there now
            _discard(part)
        if error.code == 416 or error.code in _RETRIED_STATUS:
            msg = f"status {error.code}"
            raise _BrokenError(msg) from error
        msg = f"{part.stem}: {request.full_url} answers {error.code} {error.reason}. Check the address, or try later."
        raise ModelError(msg) from error
    except StorageError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _span(response: http.client.HTTPResponse, part: Path) -> tuple[int, int]:
    """First byte of the answer and length of the whole remote file."""
    url, headers = response.url, response.headers
    if headers.get_content_type() == "text/html":
        raise _web_page(part, url)
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if found:
            return int(found[1]), int(found[2])
    elif response.status == http.HTTPStatus.OK and headers.get("Content-Length", "").isdecimal():
        return 0, int(headers["Content-Length"])
    msg = f"{part.stem}: {url} answers with status {response.status} and no length. Check the address, or try later."
    raise ModelError(msg)


def _web_page(part: Path, url: str) -> ModelError:
    return ModelError(
        f"{part.stem}: {url} answers with a web page instead of the file. Check the address, or try later."
    )


def _store(response: http.client.HTTPResponse, part: Path, *, start: int, total: int, progress: bool) -> None:
    """Append the answer to `part` from byte `start`; raise `_BrokenError` where it ends before `total`."""
    from tqdm import tqdm

    bar = tqdm(
        total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None if progress else True
    )
    with bar, _writing(part), part.open("r+b" if start else "wb") as stream:
        stream.seek(start)
        while chunk := _read(response):
            if stream.tell() == 0 and chunk.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
                _discard(part)
                raise _web_page(part, response.url)
            stream.write(chunk)
            stream.flush()
            bar.update(len(chunk))
    arrived = part.stat().st_size
    if arrived != total:
        msg = f"cut after {arrived:,} of {total:,} bytes"
        raise _BrokenError(msg)


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror}). Free some space and run the same command again to go on."
        raise StorageError(msg) from error


def _ends_sha256(path: Path) -> str:
    """SHA-256 of the first 8,192 bytes and the last 8,192, or of the whole file where it is not longer than 8,192."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        ends = stream.read(_END_BYTES)
        if size > _END_BYTES:
            stream.seek(-_END_BYTES, os.SEEK_END)
            ends += stream.read(_END_BYTES)
    return hashlib.sha256(ends).hexdigest()
