"""A server that stands in for a vision-language model: real HTTP on this machine, answers by a script."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the server answers to one request.

    Attributes:
        body: sent as it stands.
        status: of HTTP.
        headers: beside Content-Length.
        delay: seconds before the body.
    """

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class StandIn:
    """The server's address, and what it was sent, in the order of arrival.

    Attributes:
        address: as --vlm takes it.
        requests: bodies of the requests.
        headers: their headers, names in small letters.
    """

    address: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


Script = Callable[[dict[str, Any], int], Said]  # from a request and its number to what is said


def completion(text: str | None, **message: Any) -> Said:
    """A whole answer of a model, as servers write it."""
    values = {
        "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102},
    }
    return Said(body=json.dumps(values).encode())


def question_of(request: dict[str, Any]) -> str:
    """The text after the pictures."""
    text: str = request["messages"][0]["content"][-1]["text"]
    return text


@contextmanager
def serving(script: Script) -> Iterator[StandIn]:
    """A server on a free port of the loopback address, gone afterwards."""
    seen = StandIn()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(seen.requests)
                seen.requests.append({**content, "path": self.path})
                seen.headers.append({name.lower(): value for name, value in self.headers.items()})
            said = script(content, number)
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            time.sleep(said.delay)
            try:
                self.wfile.write(said.body)
            except OSError:  # whoever asked is gone
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    seen.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
