"""`cusa serve` as a process with real connections: clients that hang up, are slow or send rubbish, and signals."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from serving import png, process_of, running, until

from cusa.commands.serving import add_serve

ROOT = Path(__file__).parents[2]
CUSA = Path(sys.executable).parent / "cusa"
QUICK = {
    "upload_seconds": 1.0,
    "head_seconds": 1.0,
    "idle_seconds": 1,
    "upload_bytes": 1 << 20,
    "queue": 4,
    "batch": 2,
}
HEAD = b"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"


@pytest.fixture(scope="module")
def server(shapes_index):
    with process_of(shapes_index, **QUICK) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_else_is_disturbed(server):
    """After whatever a client did, the next one is answered."""
    yield
    assert server.search().status_code == 200
    assert "Traceback" not in server.log


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Status and content of the answer on a connection that the server then closes, or keeps."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65_536)
        assert part, f"no answer, but {received!r}"
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
    while len(body) < length:
        body += connection.recv(65_536)
    return int(head.split()[1]), json.loads(body)


def raw(server, data: bytes) -> tuple[int, dict[str, str]]:
    with server.connect() as connection:
        connection.sendall(data)
        return answer_of(connection)


def test_the_address_is_the_first_line(server):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.address)
    assert server.get("/").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page/..%2fserver.py",
        "/../../etc/passwd",
        "/api/indexes/shapes/pictures/..%2f..%2f..%2fetc%2fpasswd",
        "/api/indexes/..%2f..%2fetc/pictures/0",
        "/api/indexes/%00/pictures/0",
        "//etc/passwd",
    ],
)
def test_paths_lead_to_no_file(server, path):
    status, content = raw(server, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert status == 404
    assert list(content) == ["error"]


def test_a_hundred_megabytes_are_refused_before_they_are_read(server):
    status, content = raw(server, HEAD + b"Content-Length: 104857600\r\n\r\n--x\r\n")
    assert status == 413
    assert content == {"error": "The upload has more than 1 MiB; shrink the picture."}


def test_bytes_are_counted_where_their_number_is_not_said(server):
    """The client sends until it is told; it gets the sentence, and no reset connection."""
    part = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with server.connect() as connection:
        connection.sendall(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + f"{len(start):x}\r\n".encode() + start + b"\r\n"
        )
        for _ in range(40):
            connection.sendall(part)
        connection.sendall(b"0\r\n\r\n")
        status, content = answer_of(connection)
    assert status == 413
    assert content["error"].startswith("The upload has more than 1 MiB")


def test_a_client_that_sends_all_of_a_large_file_reads_why_it_was_refused(server):
    files = {"file": b"x" * (20 << 20)}
    answer = httpx.post(f"{server.address}api/search", files=files, timeout=60)
    assert answer.status_code == 413


def test_a_slow_upload_ends_after_its_time(server):
    started = time.monotonic()
    with server.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n--x")
        status, content = answer_of(connection)
    assert status == 408
    assert content == {"error": "The body of the request was not there after 1 s."}
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "start", [b"", b"GET / HTTP/1.1\r\nHost: 127", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET"],
    ids=["nothing", "half a head", "half a second head"],
)  # fmt: skip
def test_a_head_that_does_not_come_closes_the_connection(server, start):
    with server.connect() as connection:
        connection.sendall(start)
        received = b"x"
        while received:
            received = connection.recv(65_536)


def test_what_is_no_http_is_a_sentence(server):
    status, content = raw(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 rubbish\r\n\r\n")
    assert (status, content) == (400, {"error": "That is not an HTTP request."})


def test_clients_that_hang_up_are_counted_and_wanted_no_more(server):
    def hung_up() -> float:
        return float(re.search(r"^cusa_hung_up_total (\S+)$", server.get("/metrics").text, re.MULTILINE)[1])

    before = hung_up()
    with server.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n--x\r\n")
        time.sleep(0.2)
    until(lambda: hung_up() > before)
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(b"GET /api/search?q=a+red+circle HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    until(lambda: 'cusa_queue_length{index="out"} 0.0' in server.get("/metrics").text)
    assert server.get("/health").json()["ready"] is True


def test_a_full_queue_answers_503_and_every_other_answer_is_right(server):
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda number: server.search(f"a red circle {number}"), range(96)))
    statuses = {answer.status_code for answer in answers}
    assert 200 in statuses
    assert statuses <= {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert "queries are waiting already" in answer.json()["error"]
        else:
            assert len(answer.json()["results"]) == 1


def section() -> str:
    page = (ROOT / "docs/search-page.md").read_text()
    return re.search(r"^## Serve\n(.*?)^## ", page, flags=re.MULTILINE | re.DOTALL)[1]


def test_the_snippet_of_the_page_runs(server, tmp_path, monkeypatch, capsys):
    (snippet,) = re.findall(r"^```python\n(.*?)^```", section(), flags=re.MULTILINE | re.DOTALL)
    assert snippet.count("http://127.0.0.1:8000/") == 1
    (tmp_path / "photo.jpg").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    names: dict[str, dict] = {}
    exec(snippet.replace("http://127.0.0.1:8000/", server.address), names)  # noqa: S102 (it is ours)
    assert len(ast.literal_eval(capsys.readouterr().out)) == 5
    assert names["found"]["query"]["picture"] is True


def test_the_commands_of_the_page_have_these_options():
    (block,) = re.findall(r"^```bash\n(.*?)^```", section(), flags=re.MULTILINE | re.DOTALL)
    parser = argparse.ArgumentParser()
    add_serve(parser.add_subparsers())
    parsed = [parser.parse_args(shlex.split(line)[1:]) for line in block.replace("\\\n", "").splitlines()]
    assert [len(arguments.index) for arguments in parsed] == [1, 2, 1]
    assert parsed[1].port == 8080
    options = set(re.findall(r"`(--[a-z-]+)", section()))
    assert options
    assert options <= _options(parser)


def _options(parser: argparse.ArgumentParser) -> set[str]:
    (commands,) = (action for action in parser._actions if isinstance(action.choices, dict))
    return {option for action in commands.choices["serve"]._actions for option in action.option_strings}


def test_a_server_of_exports_starts_without_torch():
    code = "import cusa.serve.server, sys; print({'torch', 'transformers', 'snakemake'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_on_sigterm_running_requests_are_answered_and_the_status_is_0(shapes_index):
    with process_of(shapes_index) as server:
        body = b'--x\r\nContent-Disposition: form-data; name="q"\r\n\r\nred\r\n--x--\r\n'
        with server.connect() as connection, server.connect() as idle:
            connection.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:20])
            until(lambda: "cusa_requests_under_way 2.0" in server.get("/metrics").text)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: refused(server.port))
            assert idle.recv(10) == b""
            connection.sendall(body[20:])
            status, content = answer_of(connection)
        assert status == 200
        assert content["query"]["q"] == "red"
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log
        assert server.log.rstrip().endswith("stopped")


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.slow
def test_on_sigint_too(shapes_index):
    with process_of(shapes_index) as server:
        assert server.search().status_code == 200
        assert server.stop(signal.SIGINT) == 0
        assert "Traceback" not in server.log


@pytest.mark.slow
def test_killed_under_load_it_starts_again_on_the_same_port(shapes_index):
    with process_of(shapes_index) as server:
        port, stop = server.port, threading.Event()
        seen: list[int] = []

        def ask() -> None:
            while not stop.is_set():
                try:
                    seen.append(server.search().status_code)
                except httpx.TransportError:
                    seen.append(0)
                    time.sleep(0.05)

        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        until(lambda: len(seen) > 40)
        server.process.kill()
        server.process.wait(30)
        until(lambda: seen[-8:] == [0] * 8)
        with process_of(shapes_index, port=port) as again:
            assert again.port == port
            started = len(seen)
            until(lambda: seen[started:].count(200) > 40)
            stop.set()
            for client in clients:
                client.join(60)
            assert set(seen) <= {0, 200}
            assert again.stop() == 0


def test_the_command_serves_several_indexes_and_tells_of_a_port_that_is_taken(shapes_index):
    command = [str(CUSA), "serve", f"one={shapes_index}", f"two={shapes_index}", "--port", "0", "--batch", "4"]
    with running(command) as server:
        assert [index["name"] for index in server.get("/api/indexes").json()] == ["one", "two"]
        assert server.get("/api/search", q="red", index="two", top=3).json()["query"]["index"] == "two"
        taken = [str(CUSA), "serve", str(shapes_index), "--port", str(server.port)]
        done = subprocess.run(taken, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: 127.0.0.1, port {server.port}, cannot be listened on")
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "0.0.0.0"], "Error: --host 0.0.0.0 lets other machines search"),
        (["--token", "x"], "Error: The token has to be 8 or more"),
        (["--port", "-1"], "Error: --port is -1"),
        (["--host", "no.such.host.invalid", "--no-token"], "Error: --host no.such.host.invalid is not an address"),
        (["--port", "0", "--model", "/nowhere"], "Error: "),
    ],
    ids=["host", "token", "port", "name", "model"],
)
def test_what_cannot_be_served_is_a_sentence_and_status_1(shapes_index, arguments, sentence):
    command = [str(CUSA), "serve", str(shapes_index), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence), done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_an_index_is_a_sentence(tmp_path):
    command = [str(CUSA), "serve", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert str(tmp_path) in done.stderr
