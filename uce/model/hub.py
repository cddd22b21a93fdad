"""Pushing a model folder to the Hugging Face hub, when a user asks for it. Nothing is ever fetched here.

With the catalogue, the only module that speaks to the network; `uce models push` alone calls it. The hub's own client
does the speaking, so its settings hold: `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.
"""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uce import __version__
from uce.errors import ModelError, StorageError, UsageError
from uce.files import printable
from uce.model.card import split_card, with_front_matter
from uce.model.checkpoint import load_model
from uce.model.folders import CLASSIFIER, FILES, MANIFEST, TRAINED_ON, find_model

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

_CARD = "README.md"


@dataclass(frozen=True)
class Parcel:
    """A model that was loaded and found whole, and what of its folder would be sent."""

    name: str
    repo: str
    """`user/name` on the hub."""
    files: dict[str, Path | bytes]
    """Name on the hub -> a file, or its content."""

    @property
    def sizes(self) -> dict[str, int]:
        """Name -> bytes."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }


@dataclass(frozen=True)
class Pushed:
    """Where a model is now."""

    url: str
    commit: str
    """Hash of the commit on the hub that holds exactly the files sent."""


def pack(source: str | Path, *, repo: str) -> Parcel:
    """Load a model, check it, and say what would be sent: the files of a model folder and no others.

    Parameters
    ----------
    source
        A model folder, or the name of an installed or bundled model.
    repo
        `user/name` on the hub.

    Raises
    ------
    ModelError
        There is no such model, it is damaged, or its card is missing or states no licence.
    UsageError
        `repo` is not of the form `user/name`.
    """
    _check_repo(repo)
    folder = find_model(source)
    model = load_model(folder)
    known = sorted((folder / TRAINED_ON).glob("*"))
    files: dict[str, Path | bytes] = {name: folder / name for name in FILES}
    files |= {f"{TRAINED_ON}/{path.name}": path for path in known if path.name in MANIFEST}
    files |= {CLASSIFIER: folder / CLASSIFIER} if model.classifier else {}
    files[_CARD] = _card(folder / _CARD, model.info)
    return Parcel(model.name, repo, files)


def _check_repo(repo: str) -> None:
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not named in an __all__

    try:
        validate_repo_id(repo)
        reason = "" if "/" in repo else "no /"
    except ValueError as error:
        reason = _flat(error)
    if reason:
        msg = f"--repo {printable(repo)}: not of the form user/name ({reason})."
        raise UsageError(msg)


def _card(path: Path, info: dict[str, object]) -> bytes:
    """The card with front matter, which those of older folders lack."""
    try:
        text = with_front_matter(path.read_text(encoding="utf-8"), info)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as text ({type(error).__name__}). Export the model again, see uce export --help."
        raise ModelError(msg) from error
    if not split_card(text)[0].get("license"):
        msg = f"{path.parent}: its card states no licence. State one: uce export {path.parent} -o FOLDER --licence TEXT"
        raise ModelError(msg)
    return text.encode()


def read_token(path: Path | None) -> str:
    """The token in a file, or the one the hub's client knows: `HF_TOKEN`, or that of `hf auth login`.

    Raises
    ------
    UsageError
        There is none. The message never holds what was found.
    """
    from huggingface_hub import get_token

    try:
        token = (get_token() or "") if path is None else path.read_text(encoding="ascii").strip()
    except Exception as error:  # no such file, not text, or whatever the client meets where it looks
        token, reason = "", type(error).__name__
    else:
        reason = "it is not one word" if token else "there is none"
    if not re.fullmatch(r"[!-~]+", token):  # a header takes no other letters, and its error would show the token
        place = f"--token-file {path}" if path else "HF_TOKEN or the login of the hub's client"
        msg = f"{place}: no token that can be used ({reason}). Make one with write access on the hub."
        raise UsageError(msg)
    return token


def push(parcel: Parcel, *, token: str, private: bool = False, branch: str | None = None) -> Pushed:
    """Send a model to the hub in one commit: all of its files, or none.

    Parameters
    ----------
    private
        Make a private repository. One that exists must be private already.
    branch
        Another branch than main; made where it is missing.

    Raises
    ------
    UsageError
        The hub is switched off by `HF_HUB_OFFLINE`, or a private push would go to a public repository.
    StorageError
        The hub cannot be reached or refuses. No file there was changed, though the repository may have been made.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # as above

    if constants.HF_HUB_OFFLINE:
        msg = "HF_HUB_OFFLINE is set, so nothing is sent. Unset it to push."
        raise UsageError(msg)
    constants.HF_HUB_DISABLE_TELEMETRY = True  # or the client fetches a list first, to tell the hub what program calls
    api = HfApi(token=token, library_name="uce", library_version=__version__)
    with _one_line(parcel.repo):
        if not sys.stderr.isatty():
            disable_progress_bars()
        url = api.create_repo(parcel.repo, private=private or None, exist_ok=True)
        if private:
            _refuse_public(api, parcel.repo)
        if branch:
            api.create_branch(parcel.repo, branch=branch, exist_ok=True)
        commit = api.create_commit(
            parcel.repo,
            operations=[
                CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
                for name, content in parcel.files.items()
            ],
            commit_message=f"{parcel.name}, by uce {__version__}",
            revision=branch,
        )
    return Pushed(url=str(url), commit=commit.oid)


def _refuse_public(api: "HfApi", repo: str) -> None:
    """The hub overlooks the wish for privacy where the repository exists."""
    if not api.model_info(repo).private:
        msg = f"{repo}: exists and is public, and --private cannot change that. Choose another --repo."
        raise UsageError(msg)


@contextmanager
def _one_line(repo: str) -> Iterator[None]:
    """What the client raises as one error of ours, and what it warns of as a line of the log."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except UsageError:
            raise
        except Exception as error:  # its own classes, ValueError, RuntimeError, and those of three HTTP libraries
            raise StorageError(_refusal(error, repo)) from error
    for warning in said:
        log.warning("%s: %s", repo, _flat(warning.message))


_ADVICE = {
    400: "Mend what it names.",
    401: "The token is wrong or has ended: make one with write access on the hub.",
    403: "The token may not write there: take one with write access, and a user or organisation it belongs to.",
    404: "There is no such user, repository or branch that this token can see: check --repo and --revision.",
    409: "Somebody else changes the repository now: try again.",
    413: "The model is too large for this account.",
    429: "Too many requests: try again later.",
}


def _refusal(error: BaseException, repo: str) -> str:
    cause: BaseException | None = error
    while cause is not None:  # the client wraps the errors of its threads
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            words = _flat(getattr(cause, "server_message", None) or "no reason given")
            advice = _ADVICE.get(status, "Try again later.")
            return f"{repo}: the hub refuses ({status}: {words}). {advice}"
        cause = cause.__cause__
    words = _flat(error) or type(error).__name__
    return f"{repo}: could not be sent to the hub ({words}). Check the connection, and HF_ENDPOINT where it is set."


def _flat(words: object) -> str:
    return printable(" ".join(str(words).split()), limit=200).rstrip(".")
