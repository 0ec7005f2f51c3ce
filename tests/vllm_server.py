"""A stand-in for a vLLM server: a real server with its routes, which answers by `sample` with the weights that it was
told to read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests import fakes
from tunesmith.generate.sample import Sample, Sampling, sample

Reply = tuple[int, Any]


@dataclass
class Served:
    """base: the model's folder. tuning: which weights it takes. device: what it says that it runs on. deaf: it says
    that it took weights, and did not. changes: laid over what it answers, by route."""

    base: Path
    tuning: str
    deaf: bool = False
    room: int = 192
    version: str = "default"
    device: str = "cuda"
    changes: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    written: list[list[Sample]] = field(default_factory=list)
    taken: list[Path] = field(default_factory=list)
    adapters: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.own = self._read(self.base)

    def answer(self, route: str, body: dict[str, Any] | None) -> Reply:
        with self.lock:
            if route in self.changes:
                return self.changes[route]  # type: ignore[no-any-return]
            match route:
                case "/v1/models":
                    return 200, {"data": [{"id": "base", "max_model_len": self.room}]}
                case "/version":
                    return 200, {"version": "0.32.0"}
                case "/v1/completions":
                    assert body is not None
                    return self._write(body)
                case "/v1/load_lora_adapter" | "/v1/unload_lora_adapter" if self.tuning == "lora":
                    return self._adapter(route, body or {})
                case "/collective_rpc" if self.tuning == "full":
                    return self._reload(body or {})
                case "/server_info?config_format=json" if self.tuning == "full":
                    return 200, {"vllm_config": {"device_config": {"device": self.device}}}
                case "/weight_info" if self.tuning == "full":
                    return 200, {"weight_version": self.version}
                case "/update_weight_version" if self.tuning == "full":
                    assert body is not None
                    self.version = body["new_version"]
                    return 200, {"success": True}
        return 404, {"detail": "Not Found"}

    def _write(self, body: dict[str, Any]) -> Reply:
        if body["model"] != "base" and body["model"] not in self.adapters:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        self.asked.append(body)
        cut = Sampling(body["temperature"], body["top_p"], body["top_k"] if body["top_k"] > 0 else None)
        drawn = sample(
            fakes.model(path="padded", module_=self.adapters.get(body["model"], self.own)),
            [body["prompt"]],
            count=body["n"],
            sampling=cut,
            seed=body["seed"],
            max_new_tokens=body["max_tokens"],
            end_ids=body["stop_token_ids"],
            pad_id=0,
            num_slots=body["n"],
        )
        found = {number: one for _, number, one in drawn}
        self.written.append([found[i] for i in range(body["n"])])
        choices = [
            {
                "index": i,
                "token_ids": one.ids,
                "logprobs": {"token_logprobs": one.logps.tolist()},
                "finish_reason": "stop" if one.ended else "length",
            }
            for i, one in found.items()  # in the order that they were finished in
        ]
        return 200, {"choices": choices}

    def _adapter(self, route: str, body: dict[str, Any]) -> Reply:
        if "lora_name" not in body:
            return 422, {"detail": "Field required"}
        name = body["lora_name"]
        if route == "/v1/unload_lora_adapter":
            del self.adapters[name]
            return 200, "done"
        path = Path(body["lora_path"])
        self.adapters[name] = (
            next(iter(self.adapters.values()))
            if self.deaf and self.adapters
            else PeftModel.from_pretrained(self._read(self.base), path).merge_and_unload()
        )
        self.taken.append(path)
        return 200, "done"

    def _reload(self, body: dict[str, Any]) -> Reply:
        if "method" not in body:
            return 400, {"detail": "Missing 'method' in request body"}
        assert body["method"] == "reload_weights"
        path = Path(body["kwargs"]["weights_path"])
        if not self.deaf:
            self.own = self._read(path)
        self.taken.append(path)
        return 200, {"results": [None]}

    @staticmethod
    def _read(path: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(path, dtype="float32")


@contextmanager
def serving(base: Path, tuning: str, **settings: Any) -> Iterator[Served]:
    """In the time of the block; NO_PROXY must name 127.0.0.1."""
    here = Served(base, tuning, **settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, body: Any) -> None:
            status, said = here.answer(self.path, body)
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
