"""The HTTP server on loopback: answers, limits, and what malformed requests get."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune.masks.folder import MaskFolder
from finetune.serve import Limits, make_app
from finetune.serving.answers import Answerer, Request
from finetune.serving.resident import Resident
from finetune.tasks.encode import Backbone

uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
LIMITS = Limits(max_body_bytes=2000, max_requests=3, max_characters=100)


@pytest.fixture
def server(tiny_model: Path, make_mask: Callable[..., Path]) -> Iterator[tuple[int, Answerer]]:
    folders = [MaskFolder.open(make_mask(task)) for task in ("one", "two")]
    answerer = Answerer(Resident(str(tiny_model), folders), Backbone.load(str(tiny_model)))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        config = uvicorn.Config(make_app(answerer, LIMITS), log_level="critical", ws="none")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield port, answerer
        running.should_exit = True
        thread.join(10)


def call(port: int, body: bytes | dict, path: str = "/predict") -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, raw, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_answers_and_bad_requests(server: tuple[int, Answerer]) -> None:
    port, answerer = server
    good = {"requests": [{"text": "red sky", "task": "two"}, {"text": "blue", "pair": "sea"}]}
    wanted = answerer.answer([Request("red sky", None, "two"), Request("blue", "sea")])
    expected = {"answers": [wanted[:1], wanted[1:]]}
    assert call(port, good) == (200, expected)

    def one(**fields: object) -> dict:
        return {"requests": [fields]}

    bad: list[tuple[bytes | dict, int, str]] = [
        (b"{", 422, "JSON"),
        (b"\xff\xfe\x00", 400, "parsing the body"),
        (b"", 422, "required"),
        ({"requests": []}, 422, "at least 1"),
        ([], 422, "dictionary"),  # type: ignore[list-item]
        (one(text=7), 422, "string"),
        (one(text="red", tasks="one"), 422, "requests.0.tasks"),
        (one(text="red", task="ner"), 422, "found 'ner', expected one of one, two"),
        (one(text="  "), 422, "no words"),
        (one(text="red \ud800"), 422, "text: found \\ud800, half a surrogate pair"),
        (one(text=["red", "\udfff"]), 422, "text: found \\udfff, half a surrogate pair"),
        (one(text="red", pair="\ud800"), 422, "pair: found \\ud800, half a surrogate pair"),
        (one(text="red", task="\ud800"), 422, "task: found"),
        (one(text="red", **{"\ud800": 1}), 422, "requests.0"),
        (one(text="red " * 50), 422, "at most 100 characters"),
        ({"requests": [{"text": "red"}] * 4}, 422, "found 4, expected at most 3"),
        (b"x" * 3000, 413, "at most 2,000 bytes"),
    ]
    for body, status, message in bad:
        got, answer = call(port, body)
        assert got == status, (body, answer)
        assert message in answer["error"]
    assert call(port, good, "/nothing")[0] == 404
    # What is cut off, or bigger than it says, doesn't take the server down either.
    for raw in (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
        b"nonsense\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"fa0\r\n" + b"y" * 4000 + b"\r\n0\r\n\r\n",
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(100)
    assert call(port, good) == (200, expected)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/health")
    health = json.loads(connection.getresponse().read())
    assert health == {"status": "ok", "tasks": {"one": ["no", "yes"], "two": ["a", "b", "c"]}}


def test_calls_at_once_get_their_own_answers(server: tuple[int, Answerer]) -> None:
    port, answerer = server
    texts = ["red sky", "blue sea", "green tree", "house one two"]
    expected = {
        (t, k): answerer.answer([Request(t, None, k)])[0] for t in texts for k in ("one", "two")
    }
    wrong: list[object] = []

    def client(text: str, task: str) -> None:
        for _ in range(3):
            status, body = call(port, {"requests": [{"text": text, "task": task}]})
            if (status, body) != (200, {"answers": [[expected[text, task]]]}):
                wrong.append((status, body))

    threads = [threading.Thread(target=client, args=key) for key in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
