"""The example of an approval policy of one's own does what its README says."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from codex_core.config.plugin_tables import PluginTables
from codex_core.config.sources import USER, text_layer
from codex_core.errors import ConfigError
from codex_core.host import Host
from codex_core.sandbox.policy import SandboxPolicy
from codex_core.types import Action, Decision, SandboxMode, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE = os.path.join(ROOT, "examples", "approval_webhook", "src", "acme_approval_webhook", "__init__.py")
POLICY = SandboxPolicy(SandboxMode.WORKSPACE_WRITE, "/src", ("/src",), ())


class Server(HTTPServer):
    """Answers as told, and keeps what it was asked."""

    answer = b""
    asked: list[dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.asked.append(json.loads(self.rfile.read(length)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("acme_approval_webhook", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(example: ModuleType, server: Server, *words: str, timeout: float = 5.0) -> Verdict:
    host = Host()
    settings = example.Settings(url=f"http://127.0.0.1:{server.server_port}/", timeout=timeout)
    host.approval_policies.register(example.Webhook(settings), "webhook")
    return host.review(Action(words, "/src"), POLICY)


@pytest.mark.parametrize("name", ["allow", "prompt", "forbid"])
def test_the_answer_of_the_server_is_followed(example: ModuleType, server: Server, name: str) -> None:
    server.answer = json.dumps({"decision": name, "reason": "because"}).encode()
    verdict = ask(example, server, "make", "test")
    assert (verdict.decision, verdict.reason) == (Decision[name.upper()], "because")
    assert server.asked == [
        {
            "command": ["make", "test"],
            "cwd": "/src",
            "tool": "shell",
            "escalated": False,
            "sandbox_mode": "workspace-write",
        }
    ]


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"decision": "maybe"}', b"\xff"])
def test_nonsense_forbids(example: ModuleType, server: Server, answer: bytes) -> None:
    server.answer = answer
    assert ask(example, server, "make").decision is Decision.FORBID


def test_a_server_that_is_gone_forbids(example: ModuleType, server: Server) -> None:
    server.server_port = 9
    assert ask(example, server, "make").decision is Decision.FORBID


@pytest.mark.parametrize("url", ["", "https://", "http://example.com/", "file:///etc/passwd"])
def test_a_server_that_is_not_to_be_trusted_is_refused_with_its_place(example: ModuleType, url: str) -> None:
    layer = text_layer("user", USER, f'[plugins.webhook]\nurl = "{url}"\n', "config.toml")
    tables = PluginTables([layer], layer.values)
    with pytest.raises(ConfigError, match=r"^config\.toml:2:1: plugins\.webhook\.url: .*: name an https address$"):
        tables("codex_core.approval_policies", "webhook", example.Settings)
