"""`uce models push` against a small server that speaks the hub's own endpoints; the client is the real one."""

import base64
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from uce.cli.main import main
from uce.errors import ModelError, UsageError
from uce.model.card import hub_licence, split_card
from uce.model.folders import FILES
from uce.model.hub import pack, push, read_token

Saved = Callable[..., Path]
INFO = {"licence": "BSD-3-Clause, as the package.", "trained_on": [{"dataset": "pbmc"}], "metrics": {"macro-F1": 0.5}}


@dataclass
class Hub:
    """Repositories in memory; `statuses` makes the next answers to paths that match a pattern fail."""

    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    commits: list[dict[str, bytes]] = field(default_factory=list)
    branches: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    statuses: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # warnings about the front matter of a card
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        for pattern, status in self.statuses.items():
            if re.search(pattern, path):
                return status, {"error": f"no,\nsays {path}"}
        if path.startswith("/lfs/"):
            self.stored[path.removeprefix("/lfs/")] = body
            return 200, {}
        content = json.loads(body) if body and not path.startswith("/api/models/me/mini/commit") else {}
        if path == "/api/repos/create":
            return self._create(f"{content['organization']}/{content['name']}", content)
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": [{"message": text} for text in self.said]}
        if path.endswith("/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._place(item) for item in content["objects"]]}
        if found := re.fullmatch(r"/api/models/(me/mini)/(preupload|commit|branch)/([\w%]+)", path):
            return getattr(self, f"_{found[2]}")(found[1], found[3], content or body)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            known = self.repos.get(found[1])
            return (
                (200, {"id": found[1], "sha": "0" * 40, **known}) if known else (404, {"error": "no such repository"})
            )
        return 404, {"error": f"unexpected {method} {path}"}

    def _create(self, repo: str, content: dict[str, Any]) -> tuple[int, Any]:
        status = 409 if repo in self.repos else 200
        self.repos.setdefault(repo, {"private": content.get("visibility") == "private" or bool(content.get("private"))})
        return status, {"url": f"{self.url}/{repo}"}

    def _place(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}}

    def _preupload(self, _repo: str, _branch: str, content: dict[str, Any]) -> tuple[int, Any]:
        names = [item["path"] for item in content["files"]]
        modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
        files = [{"path": name, "uploadMode": modes[name], "shouldIgnore": False, "oid": None} for name in names]
        return 200, {"files": files}

    def _branch(self, _repo: str, branch: str, _content: Any) -> tuple[int, Any]:
        status = 409 if branch in self.branches else 200
        self.branches.append(branch)
        return status, {}

    def _commit(self, repo: str, branch: str, body: bytes) -> tuple[int, Any]:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
        self.commits.append(files)
        commit = f"{len(self.commits):040x}"
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{commit}", "commitOid": commit, "hookOutput": branch}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub on this machine, and a client that knows it, one token and no other of whoever runs the tests."""
    hub = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.requests.append((self.command, self.path))
            if not self.path.startswith("/lfs/"):
                hub.tokens.add(self.headers.get("Authorization", ""))
            status, content = hub.answer(self.command, self.path, body)
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815  (the names http.server looks for)

        def log_message(self, *_arguments: object) -> None:
            """Keep the tests' output clean."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "ENDPOINT": hub.url,
        "HF_TOKEN_PATH": str(tmp_path_factory.mktemp("hub") / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_TELEMETRY": False,
        "HF_HUB_DISABLE_XET": True,  # the one transport whose requests are not made in Python
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield hub
    huggingface_hub.utils.enable_progress_bars()
    close_session()
    server.shutdown()
    server.server_close()


def words(folder: Path, *more: str) -> list[str]:
    return ["models", "push", str(folder), "--repo", "me/mini", *more]


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_exactly_the_files_of_a_model_arrive_in_one_commit(
    hub: Hub, saved: Saved, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved("mini", info=INFO)
    (folder / "training").mkdir()
    (folder / "training" / "state.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    assert main(words(folder, "--yes")) == 0
    assert hub.commits == [{name: (folder / name).read_bytes() for name in FILES}]
    assert hub.repos == {"me/mini": {"private": False}}
    assert hub.tokens == {"Bearer hf_secret"}
    assert {method for method, _ in hub.requests} == {"POST", "PUT"}  # nothing is fetched
    said = capsys.readouterr()
    assert said.out == f"{hub.url}/me/mini commit {1:040x}\n"
    size = (folder / "model.safetensors").stat().st_size
    assert re.search(rf"model\.safetensors +{size:,} bytes", said.err)
    assert "notes.txt" not in said.err
    assert "hf_secret" not in said.out + said.err


def test_a_second_push_goes_to_the_same_place_and_a_branch_is_made_once(
    hub: Hub, saved: Saved, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved("mini", info=INFO)
    for _ in range(2):
        assert main(words(folder, "--yes", "--revision", "v2")) == 0
    assert len(hub.commits) == len(hub.branches) == 2
    assert [path for _, path in hub.requests if "/commit/" in path] == ["/api/models/me/mini/commit/v2"] * 2
    assert "mini to me/mini, branch v2:" in capsys.readouterr().err


def test_a_private_push_makes_a_private_repository_and_refuses_a_public_one(
    hub: Hub, saved: Saved, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved("mini", info=INFO)
    assert main(words(folder, "--yes", "--private")) == 0
    assert hub.repos == {"me/mini": {"private": True}}
    hub.repos["me/mini"]["private"] = False
    assert main(words(folder, "--yes", "--private")) == 2
    assert "exists and is public, and --private cannot change that" in last_line(capsys)
    assert len(hub.commits) == 1


def test_nothing_is_sent_before_it_is_agreed_to(
    hub: Hub, saved: Saved, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("mini", info=INFO)
    assert main(words(folder)) == 2
    assert "Pass --yes" in last_line(capsys)
    for answer, commits in (("n\n", 0), ("\n", 0), ("", 0), ("yes\n", 1)):

        class Terminal:
            isatty = staticmethod(lambda: True)
            readline = staticmethod(lambda answer=answer: answer)

        monkeypatch.setattr(sys, "stdin", Terminal)
        assert main(words(folder)) == 0
        assert ("nothing was sent" in capsys.readouterr().err) == (commits == 0)
        assert len(hub.commits) == commits
        assert bool(hub.requests) == bool(commits)


def test_the_card_tells_the_hub_licence_data_and_metrics(hub: Hub, saved: Saved) -> None:
    folder = saved("mini", info=INFO)
    front, text = split_card((folder / "README.md").read_text())
    assert front == {
        "license": "bsd-3-clause",
        "library_name": "uce",
        "tags": ["single-cell", "scRNA-seq", "cell-embeddings"],
        "datasets": ["pbmc"],
        "metrics": ["macro-F1"],
    }
    assert text.startswith("# mini\n")
    # A folder written before cards had front matter, and one whose owner wrote their own.
    for old, new in ((text, front), (f"---\nlicense: mit\n---\n{text}", {"license": "mit"})):
        (folder / "README.md").write_text(old)
        sent = pack(folder, repo="me/mini").files["README.md"]
        assert isinstance(sent, bytes)
        assert split_card(sent.decode()) == (new, text)


def test_the_bundled_model_can_be_packed() -> None:
    sent = pack("uce-mini", repo="me/mini").files["README.md"]
    assert isinstance(sent, bytes)
    front, text = split_card(sent.decode())
    assert front["license"] == "bsd-3-clause"
    assert "human_pbmc_kang" in front["datasets"]
    assert text.startswith("# uce-mini\n")


@pytest.mark.parametrize(
    ("words", "listed"),
    [
        ("MIT", "mit"),
        ("mit licence.", "mit"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0"),
        ("BSD-3-Clause, as the package. The cells have their own.", "bsd-3-clause"),
        ("MIT, but not for sale", "other"),
        ("MIT or GPL-3.0", "other"),
        ("Mitigated terms", "other"),
        ("Ask us", "other"),
    ],
)
def test_a_licence_is_listed_only_under_what_it_says(words: str, listed: str) -> None:
    assert hub_licence(words) == listed


def test_a_card_without_a_licence_is_not_sent(hub: Hub, saved: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved("mini")
    assert main(words(folder, "--yes")) == 4
    assert "its card states no licence. State one: uce export" in last_line(capsys)
    for text in ("---\nlibrary_name: uce\n---\n# x\n", "---\n: [\n---\n# x\n", "---\n- mit\n---\n# x\n"):
        (folder / "README.md").write_text(text)
        with pytest.raises(ModelError, match="states no licence"):
            pack(folder, repo="me/mini")
    (folder / "README.md").unlink()
    with pytest.raises(ModelError, match=r"README\.md: cannot be read as text \(FileNotFoundError\)"):
        pack(folder, repo="me/mini")
    assert not hub.requests


def test_a_damaged_model_is_not_sent(hub: Hub, saved: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved("mini", info=INFO)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(words(folder, "--yes")) == 4
    assert "does not match the hash" in last_line(capsys)
    assert not hub.requests


@pytest.mark.parametrize("repo", ["mini", "me/", "/mini", "a/b/c", "me/a b", "me/mi--ni", "me/mini.git", "me/\x1b[2J"])
def test_a_place_that_cannot_be_is_refused_before_anything_is_loaded(repo: str) -> None:
    with pytest.raises(UsageError, match=r"--repo .*: not of the form user/name \(") as problem:
        pack("absent", repo=repo)
    assert str(problem.value).isprintable()


def test_a_token_comes_from_a_file_the_environment_or_the_login(
    hub: Hub, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    path.write_text("hf_filed\n")
    assert (read_token(path), read_token(None)) == ("hf_filed", "hf_secret")
    for content, reason in ((b"", "there is none"), (b"two words", "not one word"), (b"hf_\xff", "UnicodeDecodeError")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=rf"--token-file .*token: no token that can be used \(.*{reason}\)"):
            read_token(path)
    monkeypatch.setenv("HF_TOKEN", "hf_se\x07cret")
    with pytest.raises(UsageError, match=r"^HF_TOKEN or the login") as problem:
        read_token(None)
    assert "cret" not in str(problem.value)
    monkeypatch.delenv("HF_TOKEN")
    Path(constants.HF_TOKEN_PATH).write_text("hf_login")
    assert read_token(None) == "hf_login"
    Path(constants.HF_TOKEN_PATH).unlink()
    assert main(words(saved("mini", info=INFO), "--yes")) == 2
    assert last_line(capsys).startswith("error: HF_TOKEN or the login of the hub's client: no token that can be used")
    assert main(words(saved("mini", info=INFO, overwrite=True), "--yes", "--token-file", str(tmp_path / "absent"))) == 2
    assert not hub.requests


@pytest.mark.parametrize(
    ("pattern", "status", "advice"),
    [
        ("/repos/create", 401, "make one with write access"),
        ("/repos/create|/api/models/me/mini$", 403, "The token may not write there"),
        ("/preupload/", 404, "check --repo and --revision"),
        ("/validate-yaml", 400, "Mend what it names"),
        ("/repos/create", 500, "Try again later"),
        ("/lfs/", 403, "The token may not write there"),
        ("/commit/", 413, "too large for this account"),
    ],
)
def test_a_refusal_is_one_line_with_its_reason_and_a_way_out(
    hub: Hub, saved: Saved, capsys: pytest.CaptureFixture[str], pattern: str, status: int, advice: str
) -> None:
    hub.statuses[pattern] = status
    assert main(words(saved("mini", info=INFO), "--yes")) == 6
    line = last_line(capsys)
    assert line.startswith(f"error: me/mini: the hub refuses ({status}: no, says /")
    assert advice in line
    assert not hub.commits


def test_a_hub_that_is_not_there_is_one_line(
    hub: Hub, saved: Saved, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert main(words(saved("mini", info=INFO), "--yes")) == 6
    assert re.search(r"could not be sent to the hub \(.+\)\. Check the connection", last_line(capsys))


def test_what_the_hub_warns_of_is_a_line_of_the_log(hub: Hub, saved: Saved, caplog: pytest.LogCaptureFixture) -> None:
    hub.said = ['"datasets[0]" is not on the hub']
    push(pack(saved("mini", info=INFO), repo="me/mini"), token="hf_secret")
    assert caplog.messages == [
        'me/mini: Warnings while validating metadata in README.md: - "datasets[0]" is not on the hub'
    ]


def test_the_clients_own_settings_are_those_of_the_command(hub: Hub, saved: Saved) -> None:
    """Another process, with nothing set but the environment: what a user has."""
    folder = saved("mini", info=INFO)
    command = [sys.executable, "-m", "uce", *words(folder, "--yes")]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_other", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        command, env={**environment, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, hub.requests) == (2, [])
    assert done.stderr.splitlines()[-1] == "error: HF_HUB_OFFLINE is set, so nothing is sent. Unset it to push."
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert hub.tokens == {"Bearer hf_other"}
    assert set(hub.commits[0]) == set(FILES)
    assert "%" not in done.stderr  # no bars where nobody watches
