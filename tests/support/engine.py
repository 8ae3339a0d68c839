"""A real engine from packages alone: llama.cpp's own server on a model of random weights, in a process of its own.

What it says is noise and depends on the seed only; how it says it is llama.cpp's, written by other people: `content: null` in the role
chunk, `timings` beside `usage`, error codes that are numbers, file names as model names.

    with Engine(folder) as engine:
        httpx2.post(f"{engine.url}/chat/completions", ...)

`python -m tests.support.engine FOLDER` is that process: it writes the model, serves it on a free port, prints the address, and stops
on SIGTERM.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import xllamacpp

ROOT = Path(__file__).resolve().parents[2]
MODEL = "noise.gguf"
SLOTS = 2
READY_SECONDS = 30.0
STOP_SECONDS = 10.0

# Three tokens that mean something to llama.cpp, then one for each byte: any text can be read and written.
SPECIAL = (b"<unk>", b"<s>", b"</s>")
VOCABULARY = len(SPECIAL) + 256
WIDTH, LAYERS, HEADS, INNER = 48, 2, 3, 96
CONTEXT = 8192  # long enough for an answer that takes many seconds, so that it can be left in the middle
CHAT_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


def write_model(path: Path, seed: int = 7) -> None:
    """A llama of two layers, about 0.4 MB, in the GGUF format (github.com/ggml-org/ggml, docs/gguf.md)."""
    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer)
    _vocabulary(writer)
    random = np.random.default_rng(seed)

    def dense(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, (random.standard_normal((rows, columns)) * 0.5 / np.sqrt(columns)).astype(np.float32))

    def unit(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    dense("token_embd.weight", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        place = f"blk.{layer}"
        unit(f"{place}.attn_norm.weight")
        unit(f"{place}.ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            dense(f"{place}.{name}.weight", WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            dense(f"{place}.{name}.weight", INNER, WIDTH)
        dense(f"{place}.ffn_down.weight", WIDTH, INNER)
    unit("output_norm.weight")
    dense("output.weight", VOCABULARY, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_name("noise")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_feed_forward_length(INNER)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)


def _vocabulary(writer: gguf.GGUFWriter) -> None:
    kind = gguf.TokenType
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*SPECIAL, *(f"<0x{byte:02X}>".encode() for byte in range(256))])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([kind.UNKNOWN, kind.CONTROL, kind.CONTROL, *[kind.BYTE] * 256])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def free_port() -> int:
    """llama.cpp wants to be told its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(folder: Path) -> None:
    """Serves until SIGTERM, chat and embeddings both."""
    path = folder / MODEL
    write_model(path)
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.hostnames, settings.port = ["127.0.0.1"], free_port()
    settings.n_parallel, settings.n_ctx = SLOTS, SLOTS * CONTEXT
    settings.cpuparams.n_threads = 1
    settings.embedding, settings.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    settings.warmup, settings.ui, settings.offline, settings.endpoint_slots = False, False, True, True
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    server = xllamacpp.Server(settings)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    stopped.wait()


class Engine:
    """The engine, running. `url` is what a client takes as its base URL."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.origin = self.url = ""

    def __enter__(self) -> Engine:
        self._log = (self._folder / "engine.log").open("wb")
        command = [sys.executable, "-m", "tests.support.engine", str(self._folder)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log)
        watchdog = threading.Timer(READY_SECONDS, self._process.kill)
        watchdog.start()
        assert self._process.stdout is not None
        self.origin = self._process.stdout.readline().decode().strip()
        watchdog.cancel()
        if not self.origin:
            self.__exit__()
            raise AssertionError(f"the engine did not start: {(self._folder / 'engine.log').read_text()[-2000:]}")
        self.url = self.origin + "/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def busy(self) -> int:
        """How many of its slots are at work."""
        with urllib.request.urlopen(f"{self.origin}/slots", timeout=5) as answer:
            slots: list[dict[str, Any]] = json.load(answer)
        return sum(slot["is_processing"] for slot in slots)

    def await_busy(self, count: int, seconds: float) -> float:
        """Seconds until `count` slots were at work."""
        started = time.monotonic()
        while self.busy() != count:
            assert time.monotonic() - started < seconds, f"{self.busy()} slots are busy after {seconds} s, not {count}"
            time.sleep(0.005)
        return time.monotonic() - started


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
