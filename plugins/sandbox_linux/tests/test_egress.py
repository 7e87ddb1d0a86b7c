"""The filtered network: what is allowed works from every kind of program, and nothing else does."""

from __future__ import annotations

import contextlib
import errno
import http.server
import ipaddress
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
import zipfile
from typing import TYPE_CHECKING

import pytest
from codex_core.errors import SandboxUnavailableError
from codex_core.sandbox.policy import SandboxSettings, build_policy
from codex_core.types import Contact, Network, Operation, Promise, SandboxMode
from codex_sandbox_linux import dns, gateway, kernel
from codex_sandbox_linux.launcher import LinuxLauncher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from codex_core.types import CommandResult
    from codex_sandbox_linux.plan import Plan

    from plugins.sandbox_linux.tests.conftest import Box, Fifo, Listener

PROXY = str(gateway.PROXY_PORT)
MARK = b"served"


class Web(http.server.ThreadingHTTPServer):
    """A web server of the host's, on an address of its loopback."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), _Pages)
        self.requests: list[tuple[str, str, bytes]] = []
        """Method and path, host, body."""
        self.redirect = ""
        self.folder = ""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """Nobody is interested in clients that break off."""


class _Pages(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        self._note(b"")
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/size/"):
            self._answer(b"x" * int(self.path.rpartition("/")[2]))
        elif self.server.folder and os.path.exists(self.translate_path(self.path)):
            super().do_GET()
        elif self.server.folder:
            self.send_error(404)
        else:
            self._answer(MARK)

    def do_POST(self) -> None:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self._note(body)
        self._answer(str(len(body)).encode())

    def translate_path(self, path: str) -> str:
        if path.startswith("/simple/"):
            path += "index.html"
        return os.path.join(self.server.folder, path.partition("?")[0].lstrip("/"))

    def _note(self, body: bytes) -> None:
        self.server.requests.append((f"{self.command} {self.path}", self.headers.get("Host", ""), body))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Names:
    """A name server of the host's; what it is not told it denies, and what it is asked it remembers."""

    def __init__(self) -> None:
        self.zone: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.silent = False
        self.delay = 0.0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._socket.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            message, sender = self._socket.recvfrom(4096)
            if not message:
                return
            question = dns.parse_question(message)
            self.asked.append(question.name)
            addresses = [ipaddress.ip_address(one) for one in self.zone.get(question.name, [])]
            if not self.silent:
                time.sleep(self.delay)
                code = dns.NO_ERROR if addresses else dns.NO_SUCH_NAME
                self._socket.sendto(dns.reply(question, code, addresses, 1), sender)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def names() -> Iterator[Names]:
    server = Names()
    server.zone = {"allowed.test": ["127.0.0.1"], "other.test": ["127.0.0.1"], "v6.test": ["::1"]}
    yield server
    server.close()


ALLOWED = ("allowed.test", "*.below.test", "127.0.0.1")
"""The test's servers are on the loopback address, to which an allowed name leads only if it is listed too."""
ACCEPTED = ("protected_paths",)


@pytest.fixture
def filtered(box: Box, names: Names) -> Box:
    box.open(allowed_domains=ALLOWED, nameservers=[names.address])
    return box


@pytest.fixture
def floor(box_without: Callable[[str], Box], names: Names) -> Box:
    """Give the same on a host that allows no namespaces."""
    weak = box_without("namespaces")
    strength = weak.open(allowed_domains=ALLOWED, nameservers=[names.address], allow_degraded=ACCEPTED)
    assert strength.rung == "floor"
    return weak


@pytest.fixture(params=["namespaces", "floor"])
def anywhere(request: pytest.FixtureRequest, box_without: Callable[[str], Box], names: Names) -> Box:
    """Give both, one after the other."""
    found = box_without("namespaces" if request.param == "floor" else "")
    strength = found.open(allowed_domains=ALLOWED, nameservers=[names.address], allow_degraded=ACCEPTED)
    assert strength.rung == request.param
    return found


def need(program: str) -> None:
    if shutil.which(program, path=os.defpath) is None:
        pytest.skip(f"{program} is not installed")


def only(result: CommandResult) -> str:
    """Give the target of the one denial."""
    assert [denial.operation for denial in result.denials] == [Operation.CONNECT], result
    assert result.denials[0].certain
    return result.denials[0].target


# -- programs ------------------------------------------------------------------------------------------------------

CURL = ("curl", "-sS", "--max-time", "20")
TALK = """
import socket, sys
how, host, port, *words = sys.argv[1:]
family = socket.AF_INET6 if how == "mapped" else socket.AF_INET
address = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)[0][4]
if how == "mapped":
    address = ("::ffff:" + address[0], address[1])
s = socket.socket(family)
if how == "bound":
    s.bind(("", 0))
if how == "late":
    s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
if how == "slow":
    import select
    s.setblocking(False)
    s.connect_ex(address)
    assert select.select([], [s], [], 20)[1]
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    s.setblocking(True)
else:
    s.connect(address)
s.sendall(b"GET /raw HTTP/1.0\\r\\nHost: allowed.test\\r\\n\\r\\n")
data = b""
while piece := s.recv(65536):
    data += piece
print(data.rpartition(b"\\n")[2].decode())
"""
URLLIB = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"
NODE = "fetch(process.argv[1]).then(r => r.text()).then(t => console.log(t))"


@pytest.mark.parametrize("how", [(), ("-p",), ("-x", f"socks5h://127.0.0.1:{PROXY}"), ("--noproxy", "*")], ids=str)
def test_curl_reaches_an_allowed_name_and_no_other(anywhere: Box, web: Web, how: tuple[str, ...]) -> None:
    need("curl")
    served = anywhere.run([*CURL, *how, f"http://allowed.test:{web.server_port}/page"])
    assert (served.returncode, served.stdout, served.denials) == (0, MARK, ()), served
    assert [(contact.host, contact.allowed) for contact in served.contacts] == [("allowed.test", True)]
    assert len(web.requests) == 1
    free = anywhere.free(
        [*CURL, "--resolve", f"other.test:{web.server_port}:127.0.0.1", f"http://other.test:{web.server_port}/"]
    )
    assert free.stdout == MARK, "outside, the other name is reached"
    refused = anywhere.run([*CURL, "-f", *how, f"http://other.test:{web.server_port}/page"])
    assert refused.returncode != 0
    assert only(refused) in {f"other.test:{web.server_port}", "other.test"}
    assert "to sandbox_workspace_write.allowed_domains" in refused.denials[0].cure
    assert len(web.requests) == 2, "nothing came"


def test_a_refused_host_is_answered_with_the_reason_and_the_cure(filtered: Box, web: Web) -> None:
    need("curl")
    refused = filtered.run([*CURL, "-w", "%{http_code}", f"http://other.test:{web.server_port}/page"])
    assert refused.stdout.decode() == (
        f"codex sandbox: other.test:{web.server_port} is not allowed: no entry of allowed_domains matches; to allow it"
        f" add 'other.test:{web.server_port}' to sandbox_workspace_write.allowed_domains\n403"
    )
    assert refused.contacts == (
        Contact("other.test", web.server_port, allowed=False, rule="no entry of allowed_domains matches"),
    )


def test_a_program_that_binds_before_it_connects_reaches_an_allowed_name(filtered: Box, web: Web) -> None:
    served = filtered.py(TALK, "bound", "allowed.test", str(web.server_port))
    assert (served.returncode, served.stdout.strip()) == (0, MARK), served


@pytest.mark.parametrize("how", ["v4", "mapped", "slow", "late"])
def test_a_program_that_knows_no_proxy_reaches_an_allowed_name(anywhere: Box, web: Web, how: str) -> None:
    served = anywhere.py(TALK, how, "allowed.test", str(web.server_port))
    assert (served.returncode, served.stdout.strip()) == (0, MARK), served
    refused = anywhere.py(TALK, how, "other.test", str(web.server_port))
    assert refused.returncode != 0
    assert only(refused) == "other.test"
    assert len(web.requests) == 1


def test_python_node_git_and_pip_work_with_an_allowed_host(anywhere: Box, web: Web) -> None:
    url = f"http://allowed.test:{web.server_port}"
    assert anywhere.run([anywhere.user.python, "-I", "-c", URLLIB, url]).stdout.strip() == MARK
    if shutil.which("node"):
        assert anywhere.run(["node", "-e", NODE, url]).stdout.strip() == MARK
    if shutil.which("git"):
        repository = os.path.join(anywhere.home, "src")
        served = os.path.join(anywhere.home, "served")
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main"]
        for words in (["init", "-q", repository], ["-C", repository, "commit", "-q", "--allow-empty", "-m", "x"]):
            assert anywhere.free([*git, *words]).returncode == 0
        assert anywhere.free(["git", "clone", "-q", "--bare", repository, f"{served}/r.git"]).returncode == 0
        assert anywhere.free(["git", "-C", f"{served}/r.git", "update-server-info"]).returncode == 0
        web.folder = served
        cloned = anywhere.run(["git", "clone", f"{url}/r.git", "copy"])
        assert cloned.returncode == 0, cloned.stderr
        denied = anywhere.run(["git", "clone", f"http://other.test:{web.server_port}/r.git", "other"])
        assert only(denied) == f"other.test:{web.server_port}"


def test_pip_downloads_from_an_allowed_index(box: Box, web: Web, names: Names) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    if box.free([sys.executable, "-m", "pip", "--version"]).returncode:
        pytest.skip("this user has no pip for the interpreter of the tests")
    web.folder = os.path.join(box.home, "index")
    os.makedirs(f"{web.folder}/simple/tiny")
    wheel = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{web.folder}/{wheel}", "w") as made:
        for name, text in {
            "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }.items():
            made.writestr(f"tiny-1.0.dist-info/{name}", text)
    with open(f"{web.folder}/simple/tiny/index.html", "w", encoding="ascii") as file:
        file.write(f'<!DOCTYPE html><a href="/{wheel}">{wheel}</a>')
    box.open(allowed_domains=ALLOWED, nameservers=[names.address])
    for host, works in (("allowed.test", True), ("other.test", False)):
        index = f"http://{host}:{web.server_port}"
        result = box.run(
            [*pip, "--retries", "0", "--trusted-host", host, "-i", f"{index}/simple", "-d", box.ws, "tiny"]
        )
        assert os.path.exists(f"{box.ws}/{wheel}") is works, result.stderr.decode(errors="replace")
        box.renew()


def test_bytes_arrive_whole_in_both_directions(anywhere: Box, web: Web) -> None:
    need("curl")
    url = f"http://allowed.test:{web.server_port}"
    size = 5_000_003
    for how in ([], ["-p"], ["--noproxy", "*"]):
        got = anywhere.run([*CURL, *how, f"{url}/size/{size}"], limit=1 << 23)
        assert got.stdout == b"x" * size
        sent = anywhere.run([*CURL, *how, "--data-binary", "@-", url], stdin=b"y" * 300_000)
        assert (sent.stdout, web.requests[-1][2]) == (b"300000", b"y" * 300_000), sent
    chunks = anywhere.run([*CURL, "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", url], stdin=b"z" * 100_000)
    assert (chunks.stdout, web.requests[-1][2]) == (b"100000", b"z" * 100_000), chunks


def test_servers_of_the_commands_own_still_work(filtered: Box, web: Web) -> None:
    source = (
        "import socket, sys\ns = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "c = socket.create_connection(s.getsockname()); a, _ = s.accept(); a.sendall(b'own'); print(c.recv(3).decode())"
    )
    # The port of a server outside, which is listed too: inside, the own one comes first.
    assert filtered.py(source, str(web.server_port)).stdout == b"own\n"
    assert web.requests == []


def test_localhost_in_the_list_is_this_machine(box: Box, web: Web) -> None:
    need("curl")
    url = f"http://localhost:{web.server_port}"
    box.open(allowed_domains=["example.com"])
    assert box.run([*CURL, url]).returncode != 0
    box.open(allowed_domains=[f"localhost:{web.server_port}"])
    assert box.run([*CURL, url]).stdout == MARK
    assert box.run([*CURL, "--noproxy", "", url]).stdout == MARK


# -- lists ---------------------------------------------------------------------------------------------------------


def test_deny_wins_also_where_everything_else_is_allowed(box: Box, web: Web, names: Names) -> None:
    need("curl")
    box.open(network=True, denied_domains=["*.test"], nameservers=[names.address])
    assert box.policy is not None
    assert box.policy.network is Network.FILTERED
    refused = box.run([*CURL, "-f", f"http://allowed.test:{web.server_port}/"])
    assert "take '*.test' out of sandbox_workspace_write.denied_domains" in refused.denials[0].cure
    assert web.requests == []


def test_a_pattern_with_a_port_opens_that_port_only(box: Box, web: Web, names: Names) -> None:
    need("curl")
    box.open(allowed_domains=["allowed.test:1", "127.0.0.1"], nameservers=[names.address])
    for how in ((), ("--noproxy", "*")):
        refused = box.run([*CURL, "-f", *how, f"http://allowed.test:{web.server_port}/"])
        if how == ():
            assert only(refused) == f"allowed.test:{web.server_port}"
    assert [request for request in web.requests if request[1] != f"allowed.test:{web.server_port}"] == []


def test_a_read_only_command_reaches_nothing(box: Box, web: Web, names: Names) -> None:
    box.open(SandboxMode.READ_ONLY, allowed_domains=ALLOWED, nameservers=[names.address])
    assert box.py(TALK, "v4", "allowed.test", str(web.server_port)).returncode != 0
    assert (web.requests, names.asked) == ([], [])


# -- attacks -------------------------------------------------------------------------------------------------------

SAY = """
import ast, socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(ast.literal_eval(sys.argv[2]))
s.shutdown(socket.SHUT_WR)
data = b""
try:
    while piece := s.recv(65536):
        data += piece
except ConnectionResetError:
    pass
sys.stdout.buffer.write(data)
"""


def say(box: Box, request: bytes) -> bytes:
    """Send raw bytes to the proxy; what comes back."""
    result = box.py(SAY, PROXY, repr(request))
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "host",
    [
        *(
            "other.test\0.below.test",
            "other.test%00.below.test",
            "other.test#.below.test",
            "x@127.0.0.1",
            "a b.below.test",
        ),
        *("2130706433", "0x7f.0.0.1", "0177.0.0.1", "127.1", "[::ffff:7f00:2]", "[::1%25lo]", "[::1%1]", "127.0.0.2"),
        *(
            "169.254.169.254",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::1]",
            "[fd00:ec2::254]",
            "[64:ff9b::7f00:2]",
            "192.0.2.2",
        ),
        *("b\u00fccher.below.test", "below.test", "other.test", "x.below.test.other.test", ".below.test", ""),
    ],
    ids=ascii,
)
def test_a_hostile_spelling_opens_nothing(filtered: Box, web: Web, names: Names, host: str) -> None:
    names.zone["x.below.test"] = ["127.0.0.1"]
    names.zone[host] = ["127.0.0.1"]
    port = web.server_port
    opened = say(filtered, f"CONNECT x.below.test:{port} HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n".encode())
    assert MARK in opened, "the same request with an honest name works"
    web.requests.clear()
    raw = host.encode("latin-1")
    for request in (
        b"CONNECT %s:%d HTTP/1.1\r\nHost: x.below.test\r\n\r\nGET / HTTP/1.0\r\n\r\n" % (raw, port),
        b"GET http://%s:%d/ HTTP/1.1\r\nHost: x.below.test\r\n\r\n" % (raw, port),
    ):
        assert say(filtered, request).split(b" ", 2)[1] in {b"403", b"400"}
    bare = raw.strip(b"[]")
    named = bytes([5, 1, 0, 5, 1, 0, 3, len(bare)]) + bare + port.to_bytes(2, "big")
    assert say(filtered, named + b"GET / HTTP/1.0\r\n\r\n")[2:4] == b"\x05\x02"
    assert web.requests == []


@pytest.mark.parametrize(
    "address", ["127.0.0.2", "169.254.169.254", "10.0.0.1", "::1", "fd00:ec2::254", "::ffff:127.0.0.2"]
)
def test_an_allowed_name_that_leads_to_a_private_address_is_refused(
    anywhere: Box, names: Names, address: str, listen: Callable[..., Listener]
) -> None:
    family = socket.AF_INET6 if address == "::1" else socket.AF_INET
    local = address if address == "::1" else "127.0.0.2"
    server = listen(family, socket.SOCK_STREAM, (local, 0))
    port = server.address[1]
    names.zone["x.below.test"] = [address]
    with socket.create_connection((local, port)):
        assert server.reached(), "outside it is reached"
    answer = say(anywhere, b"CONNECT x.below.test:%d HTTP/1.1\r\n\r\n" % port)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"x.below.test leads to " in answer
    assert anywhere.py(TALK, "v4", "x.below.test", str(port)).returncode != 0
    assert not server.reached()


def test_a_name_that_changes_its_address_is_judged_each_time(filtered: Box, web: Web, names: Names) -> None:
    other = Web("127.0.0.2")
    names.zone["x.below.test"] = ["127.0.0.2", "127.0.0.1"]
    request = b"CONNECT x.below.test:%d HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n"
    assert MARK in say(filtered, request % web.server_port), "of several addresses, the one that is allowed is taken"
    say(filtered, request % other.server_port)
    other.shutdown()
    other.server_close()
    assert other.requests == []


def test_this_machines_own_addresses_are_closed(filtered: Box, names: Names) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback ones")
        own = probe.getsockname()[0]
    names.zone["x.below.test"] = [own]
    server = Web(own)
    answer = say(filtered, b"CONNECT x.below.test:%d HTTP/1.1\r\n\r\n" % server.server_port)
    assert answer.startswith(b"HTTP/1.1 403 ")
    filtered.open(allowed_domains=[*ALLOWED, own], nameservers=[names.address])
    opened = say(filtered, b"CONNECT x.below.test:%d HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n" % server.server_port)
    assert MARK in opened, "unless one is listed"
    server.shutdown()
    server.server_close()


def test_no_name_that_is_not_allowed_leaves_the_machine(filtered: Box, names: Names) -> None:
    source = (
        "import socket, sys\ntry: print(socket.getaddrinfo(sys.argv[1], 80))\nexcept OSError as error: print('refused')"
    )
    assert b"127.0.0.1" in filtered.py(source, "allowed.test").stdout
    names.asked.clear()
    refused = filtered.py(source, "secret-data.other.test")
    assert refused.stdout == b"refused\n"
    assert only(refused) == "secret-data.other.test"
    texts = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06secret\x05below\x04test\x00\x00\x10\x00\x01"
    ask = (
        "import ast, socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)\n"
        "s.sendto(ast.literal_eval(sys.argv[1]), ('127.0.0.1', 53)); print(s.recv(512)[3] & 15)"
    )
    assert filtered.py(ask, repr(texts)).stdout == b"0\n", "other records than addresses are empty"
    assert names.asked == []


def test_datagrams_do_not_leave(filtered: Box, listen: Callable[..., Listener]) -> None:
    server = listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
    source = (
        "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.sendto(b'x', ('127.0.0.1', int(sys.argv[1])))"
    )
    filtered.free_py(source, str(server.address[1]))
    assert server.reached()
    filtered.py(source, str(server.address[1]))
    assert not server.reached()


def test_an_address_that_nobody_looked_up_is_refused_by_name(anywhere: Box) -> None:
    source = (
        "import socket\ntry: socket.create_connection(('198.51.100.7', 443))\n"
        "except OSError as error: print(error.strerror)"
    )
    result = anywhere.py(source)
    assert result.stdout == b"Permission denied\n"
    assert only(result) == "198.51.100.7:443"
    assert "no name that is allowed led there" in result.denials[0].rule
    assert result.contacts[0].allowed is False


def test_the_request_line_decides_and_not_the_host_header(filtered: Box, web: Web) -> None:
    port = web.server_port
    say(filtered, b"GET http://allowed.test:%d/a HTTP/1.1\r\nHost: other.test\r\nhost: third.test\r\n\r\n" % port)
    assert web.requests == [("GET /a", f"allowed.test:{port}", b"")]


SMUGGLED = b"GET http://other.test/stolen HTTP/1.1\r\nHost: other.test\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n" + SMUGGLED,
        b"Content-Length: 3\r\n\r\nabc" + SMUGGLED,
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + SMUGGLED,
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"Content-Length: 3\r\nContent-Length: 0\r\n\r\nabc" + SMUGGLED,
        b"Content-Length: +3\r\n\r\nabc" + SMUGGLED,
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"Content-Length : 3\r\n\r\nabc" + SMUGGLED,
        b"X: y\n\r\n\r\n" + SMUGGLED,
        b"Connection: content-length\r\nContent-Length: 3\r\n\r\nabc" + SMUGGLED,
    ],
)
def test_one_request_is_sent_on_and_nothing_behind_it(filtered: Box, web: Web, body: bytes) -> None:
    method = b"GET" if body.startswith(b"\r\n") else b"POST"
    say(filtered, method + b" http://allowed.test:%d/first HTTP/1.1\r\n" % web.server_port + body)
    assert [request[0] for request in web.requests] in ([], [f"{method.decode()} /first"])
    assert all(request[2] in {b"", b"abc"} for request in web.requests)


def test_a_line_of_a_body_that_does_not_end_breaks_the_request_off(filtered: Box, web: Web) -> None:
    head = b"POST http://allowed.test:%d/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % web.server_port
    assert b" 200 " in say(filtered, head + b"3;x=" + b"a" * 1000 + b"\r\nabc\r\n0\r\n\r\n")
    assert b" 200 " not in say(filtered, head + b"3;x=" + b"a" * 20_000 + b"\r\nabc\r\n0\r\n\r\n")
    assert len(web.requests) == 1


def test_a_redirect_to_another_host_is_judged_anew(filtered: Box, web: Web) -> None:
    need("curl")
    web.redirect = f"http://other.test:{web.server_port}/stolen"
    result = filtered.run([*CURL, "-L", f"http://allowed.test:{web.server_port}/redirect"])
    assert only(result) == f"other.test:{web.server_port}"
    assert [request[0] for request in web.requests] == ["GET /redirect"]


@pytest.mark.parametrize("port", [gateway.PROXY_PORT, gateway.TRANSPARENT_PORT, 53])
def test_the_filter_does_not_lead_to_itself(anywhere: Box, port: int) -> None:
    answer = say(anywhere, b"CONNECT [::1]:%d HTTP/1.1\r\n\r\n" % port)
    assert answer.startswith(b"HTTP/1.1 403 ")
    direct = anywhere.py(SAY, str(gateway.TRANSPARENT_PORT), repr(b"CONNECT allowed.test:80 HTTP/1.1\r\n\r\n"))
    assert direct.stdout == b"", "a connection that the supervisor has not led there is broken off"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n", b"400"),
        (b"CONNECT allowed.test HTTP/1.1\r\n\r\n", b"400"),
        (b"GET https://allowed.test/ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://allowed.test/ HTTP/2.0\r\n\r\n", b"400"),
        (b"GET http://allowed.test/ HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET http://nowhere.below.test/ HTTP/1.1\r\n\r\n", b"502"),
    ],
)
def test_what_is_not_understood_is_answered(filtered: Box, request_bytes: bytes, status: bytes) -> None:
    assert say(filtered, request_bytes).split(b" ", 2)[1] == status


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"\x05\x01\x02", b"\x05\x01\x00\x05\x02\x00\x01", b"\x05"],
)
def test_other_dialects_of_socks_are_turned_away(filtered: Box, request_bytes: bytes) -> None:
    assert say(filtered, request_bytes)[:3] != b"\x05\x00\x00"


# -- ends and bounds -----------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return list(map(int, file.read().split()))


def filter_of(box: Box) -> int:
    """Give the pid of the process that filters."""
    for pid in children(box.owner.pid):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"codex-egress" in file.read():
                return pid
    raise AssertionError


MANY = """
import resource, socket, sys, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
count, port = int(sys.argv[2]), sys.argv[1]
opened = []
for _ in range(count):
    s = socket.create_connection(("127.0.0.1", PROXY))
    s.sendall(f"CONNECT allowed.test:{port} HTTP/1.1\\r\\n\\r\\nGET /x HTTP/1.0\\r\\n\\r\\n".encode())
    opened.append(s)
print("all", flush=True)
sys.stdin.readline()
good = 0
for s in opened:
    data = b""
    while piece := s.recv(4096):
        data += piece
    good += data.endswith(b"served")
    s.close()
print(good)
""".replace("PROXY", PROXY)


def test_a_thousand_connections_all_get_through_with_bounded_memory_and_descriptors(
    filtered: Box, web: Web, eventually: Callable[[Callable[[], object]], None]
) -> None:
    pid = filter_of(filtered)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("a process here may not open a thousand connections")
    assert MARK in say(filtered, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n\r\n" % web.server_port)
    before, idle, most, over = memory(pid), descriptors(pid), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, descriptors(pid))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        result = filtered.run(filtered.program(MANY, str(web.server_port), "1000"), stdin=b"go\n", timeout=29)
    finally:
        over.set()
        watching.join()
    assert result.stdout == b"all\n1000\n", result
    assert memory(pid) - before < 40_000, "KiB; 256 connections at a time"
    assert most - idle <= 256 * 6, "two sockets and two pipes each"
    eventually(lambda: descriptors(pid) <= idle)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid: int) -> int:
    """Give the most memory that a process has had, in KiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


def test_without_the_filter_nothing_is_reached_and_nothing_more_is_run(anywhere: Box, web: Web) -> None:
    source = "import sys; print('begun', flush=True); open(sys.argv[1]).read()\n" + TALK.replace(
        "sys.argv[1:]", "sys.argv[2:]"
    )
    gate = os.path.join(anywhere.ws, "gate")
    os.mkfifo(gate)
    os.chmod(gate, 0o666)
    anywhere.start(anywhere.program(source, gate, "v4", "127.0.0.1", str(web.server_port)))
    os.kill(filter_of(anywhere), signal.SIGKILL)
    with open(gate, "w", encoding="ascii"):
        pass
    ended, _ = anywhere.wait()
    assert ended is not None
    assert ended.returncode != 0
    assert web.requests == []
    with pytest.raises(SandboxUnavailableError, match="start codex again"):
        anywhere.run(["true"])


def test_the_filter_has_no_privileges_and_lets_nobody_into_its_memory(filtered: Box) -> None:
    assert say(filtered, b"CONNECT other.test:80 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 "), "it has begun"
    pid = filter_of(filtered)
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert (int(status["CapPrm"], 16), int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    look = "import sys; print(len(open(f'/proc/{sys.argv[1]}/environ', 'rb').read()) > 0)"
    assert filtered.free_py(look, str(filtered.owner.pid)).stdout == b"True\n", "another process of the user's"
    if filtered.user.uid:
        assert filtered.free_py(look, str(pid)).stdout == b""


def test_the_filter_ends_with_its_owner(filtered: Box, eventually: Callable[[Callable[[], object]], None]) -> None:
    pid = filter_of(filtered)
    filtered.owner.kill()
    eventually(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_closing_the_launcher_ends_the_filter(filtered: Box) -> None:
    pid = filter_of(filtered)
    filtered.close()
    assert not os.path.exists(f"/proc/{pid}")


def test_a_dead_name_server_is_given_up(filtered: Box, names: Names) -> None:
    names.silent = True
    answer = say(filtered, b"CONNECT x.below.test:80 HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"no server answers" in answer


def test_a_slow_name_server_delays_those_that_wait_for_it_and_no_other(filtered: Box, web: Web, names: Names) -> None:
    names.zone["slow.below.test"] = ["127.0.0.1"]
    names.delay = 0.7
    source = """
import select, socket, sys
def get(host):
    s = socket.create_connection(("127.0.0.1", PROXY))
    s.sendall(f"GET http://{host}:{sys.argv[1]}/ HTTP/1.1\\r\\n\\r\\n".encode())
    return s
def rest(s):
    data = b""
    while piece := s.recv(65536):
        data += piece
    return data[-6:].decode()
slow = get("slow.below.test")
for _ in range(3):
    print(rest(get("127.0.0.1")))
print(select.select([slow], [], [], 0)[0], rest(slow))
""".replace("PROXY", PROXY)
    assert filtered.py(source, str(web.server_port)).stdout == b"served\n" * 3 + b"[] served\n"


SEND_THEN_READ = """
s.sendall(b"all there is")
s.shutdown(socket.SHUT_WR)
data = b""
while piece := s.recv(64):
    data += piece
print(data.decode())
"""
READ_THEN_SEND = """
assert s.recv(64) == b"hello" and s.recv(64) == b""
s.sendall(b"all there is")
"""
CONNECTED = """
import socket, sys
s = socket.create_connection(("127.0.0.1", PROXY))
s.sendall(f"CONNECT 127.0.0.1:{sys.argv[1]} HTTP/1.1\\r\\n\\r\\n".encode())
assert b" 200 " in s.recv(39)
""".replace("PROXY", PROXY)
DIRECT = """
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
"""


@pytest.mark.parametrize("begin", [CONNECTED, DIRECT], ids=["by the proxy", "by itself"])
@pytest.mark.parametrize("first", ["program", "server"])
def test_a_connection_that_one_side_has_half_closed_goes_on_the_other_way(
    anywhere: Box, begin: str, first: str
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    received = []

    def serve() -> None:
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(20)
            if first == "server":
                accepted.sendall(b"hello")
                accepted.shutdown(socket.SHUT_WR)
            data = b""
            while piece := accepted.recv(64):
                data += piece
            received.append(data)
            if first == "program":
                accepted.sendall(b"answer to " + data)

    serving = threading.Thread(target=serve)
    serving.start()
    rest = SEND_THEN_READ if first == "program" else READ_THEN_SEND
    result = anywhere.py(begin + rest, str(listening.getsockname()[1]))
    serving.join()
    listening.close()
    assert result.returncode == 0, result
    assert received == [b"all there is"]
    assert result.stdout == (b"answer to all there is\n" if first == "program" else b"")


WAITING = """
import ast, socket, sys
s = socket.create_connection(("127.0.0.1", PROXY))
s.sendall(ast.literal_eval(sys.argv[2]))
if sys.argv[3] == "relay":
    assert b" 200 " in s.recv(39)
with open(sys.argv[1], "w") as begun:
    begun.write("x")
try:
    data = s.recv(1)
except ConnectionError:
    data = b""
sys.exit(1 if data else 7)
""".replace("PROXY", PROXY)


@pytest.mark.parametrize("step", ["accept", "head", "look-up", "dial", "relay"])
def test_a_filter_that_is_killed_at_any_step_breaks_off_what_waits_and_lets_nothing_more_run(
    anywhere: Box,
    names: Names,
    fifo: Callable[[str], Fifo],
    eventually: Callable[[Callable[[], object]], None],
    step: str,
) -> None:
    names.silent = True
    pid = filter_of(anywhere)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_server(("127.0.0.1", 0)) as silent:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # what comes after them waits for an answer
            filler.setblocking(False)  # noqa: FBT003 - the standard library's signature
            filler.connect_ex(full.getsockname())
        ports = {"dial": full.getsockname()[1], "relay": silent.getsockname()[1]}
        asks = f"CONNECT {'slow.below.test' if step == 'look-up' else '127.0.0.1'}:{ports.get(step, 80)} HTTP/1.1"
        text = {"accept": b"", "head": asks[:20].encode()}.get(step, asks.encode() + b"\r\n\r\n")
        begun = fifo(os.path.join(anywhere.ws, "begun"))
        if step == "accept":
            os.kill(pid, signal.SIGSTOP)
        anywhere.start(anywhere.program(WAITING, begun.path, repr(text), step))
        anywhere.drive(begun)
        deadline = time.monotonic() + 10
        while step == "look-up" and not names.asked and time.monotonic() < deadline:
            anywhere.wait(0.05)
        anywhere.wait(0.1)
        os.kill(pid, signal.SIGKILL)
        ended, _ = anywhere.wait()
        assert ended is not None, "it waits no longer"
        assert ended.returncode == 7, ended
        for filler in fillers:
            filler.close()
    eventually(lambda: _is_zombie(pid))
    with pytest.raises(SandboxUnavailableError, match="start codex again"):
        anywhere.run(["true"])


def test_nobody_takes_over_the_port_of_a_filter_that_has_been_killed(floor: Box) -> None:
    assert say(floor, b"CONNECT other.test:80 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
    pid = filter_of(floor)
    ports = _listening_of(pid)
    assert ports
    os.kill(pid, signal.SIGKILL)
    for port in ports:
        with socket.socket() as taking, pytest.raises(OSError, match="in use"):
            taking.bind(("127.0.0.1", port))
    floor.close()
    for port in ports:
        with socket.socket() as taking:
            taking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taking.bind(("127.0.0.1", port))


def test_connections_of_a_command_end_with_it(filtered: Box, web: Web) -> None:
    pid = filter_of(filtered)

    def held() -> int:
        assert filtered.py(TALK, "v4", "allowed.test", str(web.server_port)).returncode == 0
        return len(os.listdir(f"/proc/{pid}/fd"))

    before = held()
    assert max(held() for _ in range(5)) <= before + 6, "one connection may still be ending"


def test_what_one_command_looked_up_the_next_one_does_not_know(box: Box, names: Names, web: Web) -> None:
    own = "127.0.0.9"
    names.zone["allowed.test"] = [own]
    server = Web(own)
    box.open(allowed_domains=["allowed.test", f"{own}:1"], nameservers=[names.address])
    result = box.py(
        "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])))",
        own,
        str(server.server_port),
    )
    assert result.returncode != 0
    server.shutdown()
    server.server_close()
    assert (server.requests, web.requests) == ([], [])


def test_nothing_of_it_is_left_behind(filtered: Box) -> None:
    before = _digest()
    assert filtered.run(["cat", "/etc/resolv.conf"]).stdout == b"nameserver 127.0.0.1\n" or not os.path.exists(
        "/etc/resolv.conf"
    )
    assert filtered.run(["ls", "-A", "/dev/shm", "."]).returncode == 0
    assert filtered.py("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))").stdout == b"[0, 1, 2, 3]\n"
    filtered.close()
    assert (_digest(), os.listdir(filtered.ws)) == (before, [])


def _digest() -> bytes:
    with contextlib.suppress(FileNotFoundError), open("/etc/resolv.conf", "rb") as file:
        return file.read()
    return b""


# -- hosts that can do less ----------------------------------------------------------------------------------------


def test_without_namespaces_and_a_supervisor_the_filter_is_refused_with_the_cure(
    box_without: Callable[[str], Box],
) -> None:
    weak = box_without("namespaces,supervisor")
    with pytest.raises(SandboxUnavailableError, match=r"need a network namespace, or .*allow user") as caught:
        weak.open(allowed_domains=["example.com"], allow_degraded=[str(promise) for promise in Promise])
    assert "\n" not in str(caught.value)


def test_without_namespaces_and_rules_for_tcp_the_filter_is_refused(
    monkeypatch: pytest.MonkeyPatch, any_box: Box
) -> None:
    class NoNamespaces:
        def clone(self, plan: Plan) -> tuple[socket.socket, int]:
            assert plan.clone_flags, "the floor is not tried"
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), "clone")

        def sweep(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(kernel, "landlock_abi", lambda: 3)
    settings = SandboxSettings(SandboxMode.WORKSPACE_WRITE, allowed_domains=("example.com",))
    policy = build_policy(settings, cwd=any_box.ws, environ={}, codex_home=any_box.codex_home)
    with pytest.raises(SandboxUnavailableError, match="floor: Landlock ABI 3 has no rules for TCP"):
        LinuxLauncher(policy, NoNamespaces())


# Each is given HOST and PORT of a server of this machine's, and says what it has done.
TRICKS = {
    "datagram": "s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'x', server)",
    "datagram, with a high bit": "ctypes.CDLL(None).socket(2, ctypes.c_long(2 | 1 << 32), 0) >= 0 or error()",
    "ping": "socket.socket(type=socket.SOCK_DGRAM, proto=1)",
    "raw": "socket.socket(type=socket.SOCK_RAW, proto=255)",
    "another protocol": "s = socket.socket(proto=262); s.connect(server)",
    "fast open": "s = socket.socket(); s.sendto(b'x', 0x20000000, server)",
    "fast open by message": "s = socket.socket(); s.sendmsg([b'x'], [], 0x20000000, server)",
    "fast open with the first byte": "s = socket.socket(); s.setsockopt(6, 30, 1); s.connect(server); s.sendall(b'x')",
    "connect without a port of one's own": "s = socket.socket(); s.setsockopt(0, 24, 1); s.connect(server)",
    "connect": "socket.create_connection(server)",
    "connect to the unspecified address": "socket.create_connection(('0.0.0.0', server[1]))",
    "connect by IPv6": "s = socket.socket(socket.AF_INET6); s.connect(('::ffff:' + server[0], server[1]))",
    "connect to no family": "s = socket.socket(); ctypes.CDLL(None, use_errno=True).connect(s.fileno(), bytes(16), 16)"
    " == 0 or error()",
    "bind": "s = socket.socket(); s.bind(('', 0))",
    "listen": "s = socket.socket(); s.listen()",
    "listen, by IPv6": "s = socket.socket(socket.AF_INET6); s.listen()",
    "a route of one's own": "socket.socket().setsockopt(0, 4, bytes([131, 7, 4, *socket.inet_aton(server[0]), 0]))",
}
TRY = """
import ctypes, os, socket, sys
server = sys.argv[1], int(sys.argv[2])
def error():
    raise OSError(ctypes.get_errno(), "refused")
try:
    exec(sys.argv[3])
except OSError as failed:
    print("refused", failed)
else:
    print("done")
"""


@pytest.mark.parametrize("trick", TRICKS)
def test_without_a_network_namespace_only_what_is_led_leaves(
    floor: Box, listen: Callable[..., Listener], trick: str
) -> None:
    kind = socket.SOCK_DGRAM if "datagram" in trick else socket.SOCK_STREAM
    server = listen(socket.AF_INET, kind, ("127.0.0.2", 0))
    words = (server.address[0], str(server.address[1]), TRICKS[trick])
    if "unspecified" in trick:
        server = listen(socket.AF_INET, kind, ("127.0.0.1", 0))
        floor.open(allowed_domains=["127.0.0.1:1"], allow_degraded=ACCEPTED)
        words = ("127.0.0.1", str(server.address[1]), TRICKS[trick])
    free = floor.free_py(TRY, *words)
    if free.stdout != b"done\n":
        pytest.skip(f"this user cannot do that without the sandbox either: {free.stdout!r}")
    server.reached()
    tried = floor.py(TRY, *words)
    assert tried.stdout.startswith(b"refused"), tried
    assert not server.reached()


def test_a_listener_that_is_swapped_while_it_is_judged_does_not_listen(floor: Box) -> None:
    # One thread asks for a unix socket to listen, another puts an internet socket in its place.
    source = """
import os, socket, threading, time
inet, unix = socket.socket(), socket.socket(socket.AF_UNIX)
unix.bind(ws + "/socket")
slot = os.dup(unix.fileno())
target = socket.socket(fileno=os.dup(unix.fileno()))
number, over = target.fileno(), False
def swap():
    while not over:
        os.dup2(inet.fileno(), number)
        os.dup2(unix.fileno(), number)
swapping = threading.Thread(target=swap)
swapping.start()
until, tries = time.monotonic() + float(LENGTH), 0
while time.monotonic() < until and inet.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0:
    tries += 1
    try:
        target.listen()
    except OSError:
        pass
over = True
swapping.join()
print("listens" if inet.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) else tries > 50)
"""
    assert floor.free_py(source.replace("LENGTH", "10")).stdout == b"listens\n"
    os.unlink(os.path.join(floor.ws, "socket"))
    assert floor.py(source.replace("LENGTH", "2")).stdout == b"True\n"


def test_what_the_supervisor_has_not_led_to_the_filter_is_not_served(floor: Box, web: Web) -> None:
    request = f"CONNECT allowed.test:{web.server_port} HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n".encode()
    assert MARK in say(floor, request), "from inside it is"
    web.requests.clear()
    ports = _listening_of(filter_of(floor))
    assert ports
    for port in ports:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.settimeout(20)
            with contextlib.suppress(OSError):
                stranger.sendall(request)
                assert stranger.recv(64) == b""
    assert web.requests == []


def _listening_of(pid: int) -> list[int]:
    """Give the IPv4 ports that a process listens on, from the kernel's table of sockets."""
    inodes = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


def test_without_a_network_namespace_two_commands_at_once_have_ways_of_their_own(
    box_without: Callable[[str], Box], names: Names, web: Web
) -> None:
    need("curl")
    floor = box_without("namespaces")
    floor.open(allowed_domains=ALLOWED, nameservers=[names.address], allow_degraded=ACCEPTED, forge="helper")
    command = floor.command([*CURL, "-f", "-o", "/dev/null", f"http://allowed.test:{web.server_port}/"])
    assert floor.ask("run_many", command, 5, 3) == [0] * 15


def test_without_a_network_namespace_the_loss_is_said(floor: Box) -> None:
    strength = floor.open(allowed_domains=ALLOWED, allow_degraded=ACCEPTED)
    assert Promise.NETWORK in strength.kept
    assert strength.lost[Promise.LOOPBACK].startswith("nothing listens but on unix sockets")


def test_below_another_supervisor_proxies_work_and_this_is_said(
    box_without: Callable[[str], Box], web: Web, names: Names
) -> None:
    need("curl")
    weak = box_without("supervisor")
    strength = weak.open(allowed_domains=ALLOWED, nameservers=[names.address])
    assert "follow the proxy variables" in strength.lost[Promise.OWN_SOCKETS]
    url = f"http://allowed.test:{web.server_port}"
    assert weak.run([*CURL, url]).stdout == MARK
    assert weak.run([*CURL, "--noproxy", "*", url]).returncode != 0


# -- unix sockets --------------------------------------------------------------------------------------------------

REACH = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    print("reached")
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize("network", [False, True])
def test_a_listed_socket_is_reached_and_no_other(box: Box, listen: Callable[..., Listener], *, network: bool) -> None:
    listed, other = (os.path.join(box.outside, name) for name in ("listed", "other"))
    servers = [listen(socket.AF_UNIX, socket.SOCK_STREAM, path) for path in (listed, other)]
    assert box.free_py(REACH, other).stdout == b"reached\n"
    assert servers[1].reached()
    box.open(network=network, allowed_unix_sockets=[listed])
    assert box.py(REACH, listed).stdout == b"reached\n"
    assert servers[0].reached()
    refused = box.py(REACH, other)
    assert only(refused) == other
    assert refused.denials[0].cure == f"add {other!r} to sandbox_workspace_write.allowed_unix_sockets"
    assert not servers[1].reached()


def test_a_listed_socket_that_is_made_anew_is_reached(box: Box, listen: Callable[..., Listener]) -> None:
    path = os.path.join(box.outside, "listed")
    listen(socket.AF_UNIX, socket.SOCK_STREAM, path)
    box.open(allowed_unix_sockets=[path])
    os.unlink(path)
    again = listen(socket.AF_UNIX, socket.SOCK_STREAM, path)
    assert box.py(REACH, path).stdout == b"reached\n"
    assert again.reached()


@pytest.mark.parametrize("how", ["symlink", "folder", "link"])
def test_another_socket_in_the_place_of_a_listed_one_is_not_reached(
    box: Box, listen: Callable[..., Listener], how: str
) -> None:
    folder = os.path.join(box.ws, "run")
    os.mkdir(folder)
    box.user.owns(box.base)
    listed, other = os.path.join(folder, "listed"), os.path.join(box.outside, "listed")
    server = listen(socket.AF_UNIX, socket.SOCK_STREAM, listed)
    victim = listen(socket.AF_UNIX, socket.SOCK_STREAM, other)
    box.user.owns(box.base)
    box.open(allowed_unix_sockets=[listed])
    assert box.py(REACH, listed).stdout == b"reached\n"
    assert server.reached()
    swap = {
        "symlink": "os.unlink(path); os.symlink(outside + '/listed', path)",
        "folder": "os.rename(ws + '/run', ws + '/old'); os.symlink(outside, ws + '/run')",
        "link": "os.unlink(path)\n    os.link(outside + '/listed', path)",
    }[how]
    attack = f"import os, sys\npath = sys.argv[1]\ntry:\n    {swap}\nexcept OSError as error: pass\n" + REACH
    result = box.py(attack, listed)
    assert b"reached" not in result.stdout, result
    assert not victim.reached()


def test_another_socket_of_the_workspace_does_not_take_the_place_of_a_listed_one(
    box: Box, listen: Callable[..., Listener]
) -> None:
    listed, other = (os.path.join(box.ws, name) for name in ("listed", "other"))
    move = "import os, sys\nos.rename(ws + '/other', sys.argv[1])\n" + REACH
    server, victim = (listen(socket.AF_UNIX, socket.SOCK_STREAM, path) for path in (listed, other))
    assert box.free_py(move, listed).stdout == b"reached\n"
    assert victim.reached()
    os.unlink(listed)
    server, victim = (listen(socket.AF_UNIX, socket.SOCK_STREAM, path) for path in (listed, other))
    box.user.owns(box.base)
    box.open(allowed_unix_sockets=[listed])
    assert box.py(REACH, listed).stdout == b"reached\n"
    assert server.reached()
    assert box.py(move, listed).stdout == b"Permission denied\n"
    assert not victim.reached()


@pytest.mark.parametrize("name", ["link", "folder/other"])
def test_a_listed_path_is_not_followed_through_links_that_appear_later(
    box: Box, listen: Callable[..., Listener], name: str
) -> None:
    victim = listen(socket.AF_UNIX, socket.SOCK_STREAM, os.path.join(box.outside, "other"))
    listed = os.path.join(box.outside, name)
    box.open(allowed_unix_sockets=[listed])
    os.symlink(box.outside if "/" in name else "other", os.path.join(box.outside, name.partition("/")[0]))
    assert box.free_py(REACH, listed).stdout == b"reached\n"
    assert victim.reached()
    assert box.py(REACH, listed).stdout == b"Permission denied\n"
    assert not victim.reached()


REFUSALS = """
import socket, sys
def ask(host):
    made = socket.create_connection(("127.0.0.1", 13128))
    made.sendall(f"CONNECT {host}:80 HTTP/1.1\\r\\n\\r\\n".encode())
    return made.recv(100).split()[1]
assert {ask(f"n{number}.refused.test") for number in range(1100)} == {b"403"}
assert ask("allowed.test") != b"403"
"""


def test_what_was_reached_is_not_hidden_behind_what_was_refused(filtered: Box) -> None:
    result = filtered.py(REFUSALS)
    assert result.returncode == 0, result.stderr
    assert [contact.host for contact in result.contacts if contact.allowed] == ["allowed.test"]
    assert len(result.contacts) == 1025


def test_the_environment_names_the_proxy(filtered: Box) -> None:
    lines = set(filtered.run(["env"]).stdout.decode().splitlines())
    for name in ("HTTP_PROXY", "https_proxy", "all_proxy", "npm_config_proxy", "CARGO_HTTP_PROXY"):
        assert f"{name}=http://127.0.0.1:{PROXY}" in lines
    assert {"NO_PROXY=localhost,127.0.0.1,::1", "NODE_USE_ENV_PROXY=1"} <= lines
