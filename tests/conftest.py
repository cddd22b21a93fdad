"""What every test may use: no network, the folder of shared real data where there is one, a home of its own."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to anything but this machine, in every test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if self.family in (socket.AF_INET, socket.AF_INET6) and host not in ("127.0.0.1", "localhost", "::1"):
            raise RuntimeError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def uce_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user folder that belongs to this test alone."""
    home = tmp_path_factory.mktemp("uce-home")
    monkeypatch.setenv("UCE_HOME", str(home))
    yield home


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real cells, genes and the published model's numbers; tests that need it skip without it."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the folder of shared real data is not beside this checkout")
    return SHARED
