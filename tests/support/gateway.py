"""The gateway as its users run it: a process of its own, asked over sockets, judged by what it says and writes.

gateway = Gateway({"providers": ...}, folder)
answer = chat(gateway.url)
record = gateway.record_of(answer)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.raw_client import Answer

ROOT = Path(__file__).resolve().parents[2]
#: Bounds for what hangs, far from what a busy machine needs: no test is about them.
READY_SECONDS = 60.0
STOP_SECONDS = 30.0
UPSTREAM_KEY = "sk-upstream-secret-0123456789abcdef"
SHORT = {"connect": "1s", "first_token": "1s", "idle": "1s", "total": "5s"}

Record = dict[str, Any]


def provider(url: str, **more: Any) -> dict[str, Any]:
    """An `openai` provider at `url` (without `/v1`) whose patience is short."""
    return {"kind": "openai", "base_url": f"{url}/v1", "api_key": "env:TEST_UPSTREAM_KEY", "timeouts": dict(SHORT), **more}


class Gateway:
    """One `comporta serve` process with `config`, written to `folder`. Nothing but `config` and `env` shapes it."""

    def __init__(
        self, config: Mapping[str, Any], folder: Path, env: Mapping[str, str] | None = None, *, listen: str = "127.0.0.1:0"
    ) -> None:
        self.lines: list[Record] = []
        self.noise: list[str] = []  # what it wrote to stderr that is not a JSON object
        self._written = threading.Condition()
        path = folder / "comporta.yaml"
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        self.config = path
        command = [sys.executable, "-m", "comporta", "serve", "--json", "--config", str(path)]
        command += ["--listen", listen, "--admin-listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment({"XDG_DATA_HOME": str(folder / "data"), **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, name="gateway-stderr", daemon=True)
        self._reader.start()
        self.ready = self._wait_ready()
        self.url: str = self.ready["listen"]
        self.admin: str = self.ready["admin"]

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, and no sign of distress: exit code 0, every line JSON, each request recorded once."""
        if self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.ended()

    def ended(self, seconds: float = STOP_SECONDS) -> None:
        """Wait until it has ended by itself, having been told to, and check the same."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the gateway did not stop within {seconds} s") from None
        finally:
            self._reader.join(5)
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()
        assert code == 0, f"exit code {code}; it wrote {self.tail()}"
        assert not self.noise, f"not JSON on stderr: {self.noise[:10]}"
        assert UPSTREAM_KEY not in json.dumps(self.lines), "the provider's key is in the log"
        seen = [record["id"] for record in self.records]
        assert len(seen) == len(set(seen)), "a request has two records"

    # ------------------------------------------------------------------------------------------------------------------------ records
    @property
    def records(self) -> list[Record]:
        with self._written:
            return [line for line in self.lines if line.get("event") == "request"]

    def mark(self) -> int:
        """How many records there are, what `record_since` starts from. A line comes after its answer: it waits for those due."""
        due = self.metric("llm_requests_total")
        with self._written:
            assert self._written.wait_for(lambda: len(self.records) >= due, 3.0), f"{due} requests, {len(self.records)} records"
            return len(self.records)

    def wait_record(self, wanted: Callable[[Record], bool], timeout: float = 3.0) -> Record:
        """The first record that is `wanted`, waiting for it."""

        def found() -> Record | None:
            return next((line for line in self.lines if line.get("event") == "request" and wanted(line)), None)

        with self._written:
            record = self._written.wait_for(found, timeout)
            assert record, f"no such record within {timeout} s; the last lines are {self.tail()}"
            return record

    def record_of(self, answer: Answer) -> Record:
        """The one record of the request that got `answer`."""
        name = answer.header("x-request-id")
        assert name, f"no x-request-id in {answer.headers}"
        return self.wait_record(lambda record: record["id"] == name)

    def record_since(self, mark: int, timeout: float = 3.0) -> Record:
        """The one record that was written after `mark` was taken."""
        with self._written:
            self._written.wait_for(lambda: sum(line.get("event") == "request" for line in self.lines) > mark, timeout)
        new = self.records[mark:]
        assert len(new) == 1, f"{len(new)} records, not one: {new}; the last lines are {self.tail()}"
        return new[0]

    def memory(self) -> int:
        """Bytes of memory that the process holds now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def wait_line(self, event: str, timeout: float = 5.0, **fields: Any) -> Record:
        """The first line of the log that tells of `event` with these fields, waiting for it."""

        def found() -> Record | None:
            lines = (line for line in self.lines if line.get("event") == event)
            return next((line for line in lines if fields.items() <= line.items()), None)

        with self._written:
            line = self._written.wait_for(found, timeout)
            assert line, f"no {event} {fields} within {timeout} s; the last lines are {self.tail()}"
            return line

    def tail(self, count: int = 6) -> list[Any]:
        return [*self.lines[-count:], *self.noise[-count:]]

    # ------------------------------------------------------------------------------------------------------------------------ metrics
    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of `name` that have these labels; 0 where there is none."""
        return sum(value for (key, have), value in self.metrics().items() if key == name and labels.items() <= dict(have).items())

    def wait_metric(self, wanted: float, name: str, timeout: float = 5.0, **labels: str) -> None:
        until = time.monotonic() + timeout
        while (value := self.metric(name, **labels)) != wanted:
            assert time.monotonic() < until, f"{name}{labels} is {value}, not {wanted}, after {timeout} s"
            time.sleep(0.02)

    # ------------------------------------------------------------------------------------------------------------------------ process
    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            text = raw.decode("utf-8", "backslashreplace").rstrip("\n")
            value = _json_object(text)
            with self._written:
                if value is None:
                    self.noise.append(text)
                else:
                    self.lines.append(value)
                self._written.notify_all()

    def _wait_ready(self) -> dict[str, Any]:
        watchdog = threading.Timer(READY_SECONDS, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        watchdog.cancel()
        value = _json_object(line.decode())
        if value is None or value.get("event") != "ready":
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()
            raise AssertionError(f"the gateway did not start: {line!r}; it wrote {self.tail(40)}")
        return value


def error_of(answer: Answer) -> dict[str, Any]:
    """The error object of `answer`, which is an error as OpenAI's clients want it: shape, types, headers."""
    assert answer.status >= 400, answer
    assert answer.ended, f"the error was cut: {answer.body!r}"
    assert (answer.header("content-type") or "").split(";")[0] == "application/json", answer.headers
    assert answer.header("x-request-id"), answer.headers
    value = answer.json()
    assert set(value) == {"error"}, value
    return checked_error(value["error"])


def checked_error(error: Any) -> dict[str, Any]:
    assert isinstance(error, dict) and set(error) == {"message", "type", "param", "code"}, error
    assert isinstance(error["message"], str) and error["message"], error
    assert isinstance(error["type"], str) and error["type"], error
    assert error["param"] is None or isinstance(error["param"], str), error
    assert error["code"] is None or isinstance(error["code"], str), error
    return error


def stream_error_of(answer: Answer) -> dict[str, Any]:
    """The error event that ended a stream after content: the last event, the only error, and no `[DONE]`."""
    assert answer.status == 200, (answer.status, answer.body)
    assert (answer.header("content-type") or "").split(";")[0] == "text/event-stream", answer.headers
    assert "[DONE]" not in answer.events and b"[DONE]" not in answer.body, answer.body
    errors = [value for value in answer.values if "error" in value]
    assert len(errors) == 1 and "error" in answer.values[-1], answer.values
    assert answer.body.endswith(b"\n\n"), answer.body[-100:]
    return checked_error(errors[0]["error"])


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """What a process needs to run at all, coverage's own variables, and nothing that could find a provider."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(("COVERAGE_", "COV_"))}
    return {**kept, "TEST_UPSTREAM_KEY": UPSTREAM_KEY, "PYTHONWARNINGS": "default", **more}


_KEPT = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "PYTHONPATH", "PYTHONHASHSEED", "VIRTUAL_ENV", "SSL_CERT_FILE"}


def _json_object(text: str) -> Record | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
