"""A chat endpoint: a real server on this machine that answers as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], str]


def says(text: str, status: int = 200, **headers: str) -> Reply:
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})
    return status, {k.replace("_", "-"): v for k, v in headers.items()}, body


@dataclass
class Endpoint:
    """reply: (what was asked, how often that was asked before) -> what is answered."""

    reply: Callable[[str, int], Reply] = lambda asked, before: says("5")
    url: str = ""
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        asked = body["messages"][0]["content"]
        with self.lock:
            before = sum(b["messages"][0]["content"] == asked for _, b, _ in self.requests)
            self.requests.append((request.path, body, dict(request.headers)))
            self.times.append(time.perf_counter())
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        status, headers, text = self.reply(asked, before)
        with self.lock:
            self.busy -= 1
        data = text.encode()
        request.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)


@contextmanager
def served() -> Iterator[Endpoint]:
    """In the time of the block; NO_PROXY must name 127.0.0.1."""
    here = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                here.handle(self)
            except BrokenPipeError:  # the client has given up, as a test wants it to
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
