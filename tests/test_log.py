"""The log's lines: whole, in order, and never waited for."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from proxy import log
from proxy.core import events


@pytest.fixture
def stream() -> io.BytesIO:
    return io.BytesIO()


@pytest.fixture
def writer(stream: io.BytesIO) -> Iterator[log.LineWriter]:
    made = log.LineWriter(stream, pretty=False)
    made.start()
    yield made
    made.stop()
    logging.getLogger().handlers.clear()
    events.EAR.hear = None


def lines(stream: io.BytesIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_event_is_one_line_in_its_order(writer: log.LineWriter, stream: io.BytesIO) -> None:
    for number in range(500):
        writer({"event": "request", "number": number})
    writer.stop()
    assert [line["number"] for line in lines(stream)] == list(range(500))


def test_a_line_says_when_and_how_grave(writer: log.LineWriter, stream: io.BytesIO) -> None:
    writer({"event": "request", "time": 1_700_000_000.1239})
    writer.stop()
    assert lines(stream) == [{"timestamp": "2023-11-14T22:13:20.123Z", "level": "info", "event": "request"}]


def test_an_event_may_be_json_already(writer: log.LineWriter, stream: io.BytesIO) -> None:
    before = datetime.now(UTC)
    writer.members('"event":"request","model":"{é}"'.encode(), b'{"number":7,"name":"%d"}')
    writer.stop()
    [line] = lines(stream)
    when = datetime.fromisoformat(str(line.pop("timestamp")))
    assert before - timedelta(milliseconds=1) <= when <= datetime.now(UTC)
    assert line == {"level": "info", "event": "request", "model": "{é}", "number": 7, "name": "%d"}


def test_each_line_says_which_worker_wrote_it(stream: io.BytesIO) -> None:
    writer = log.LineWriter(stream, pretty=False, worker=3)
    writer.start()
    writer({"event": "one"})
    writer.members(b'"event":"other"', b'{"number":1}')
    writer.stop()
    assert [(line["event"], line["worker"]) for line in lines(stream)] == [("one", 3), ("other", 3)]


def test_nothing_is_left_behind_between_two_batches(writer: log.LineWriter, stream: io.BytesIO) -> None:
    for number in range(200):
        writer.members(b'"event":"one"', b'{"number":%d}' % number)
        time.sleep(0.001)
    writer.stop()
    assert [line["number"] for line in lines(stream)] == list(range(200))


def test_our_events_and_the_standard_library_speak_through_it(writer: log.LineWriter, stream: io.BytesIO) -> None:
    log.configure(writer)
    events.warning("credential_missing", provider="up")
    logging.getLogger("aiohttp.server").error("a client's bytes: %s", "sk-canary")
    logging.getLogger("comporta").warning("a plug-in's words: %s", "sk-canary")
    writer.stop()
    own, library, foreign = lines(stream)
    assert (foreign["event"], foreign["logger"]) == ("library", "comporta")
    assert (own["event"], own["level"], own["provider"]) == ("credential_missing", "warning", "up")
    assert (library["event"], library["logger"]) == ("library", "aiohttp.server")
    assert b"canary" not in stream.getvalue()


def test_what_others_do_to_the_standard_librarys_logging_silences_no_event(writer: log.LineWriter, stream: io.BytesIO) -> None:
    log.configure(writer)
    logger, disabled = logging.getLogger("comporta"), logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)
        logger.disabled = True
        events.info("stopping", grace=1)
    finally:
        logging.disable(disabled)
        logger.disabled = False
    writer.stop()
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["grace"]) == ("stopping", "info", 1)


def test_where_nobody_hears_them_events_are_records(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "comporta"):
        events.warning("credential_missing", provider="up")
    (record,) = caplog.records
    assert (record.name, record.levelname, record.message, vars(record)["fields"]) == (
        "comporta",
        "WARNING",
        "credential_missing",
        {"provider": "up"},
    )


def test_nobody_waits_for_a_pipe_that_is_stuck() -> None:
    released = threading.Event()

    class Stuck(io.RawIOBase):
        def write(self, _data: object) -> int:
            released.wait(5)
            raise BrokenPipeError

    writer = log.LineWriter(Stuck(), pretty=False)  # type: ignore[arg-type]  # all of it that is used
    writer.start()
    for number in range(log.MOST * 2):
        writer({"event": "request", "number": number})
    assert (dropped := writer.dropped) > 0
    writer.members(b'"event":"request"', b'{"number":1}')
    assert writer.dropped == dropped + 1
    released.set()
    writer.stop()


def test_a_log_that_fails_counts_its_lines_as_lost() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", buffering=0) as stream:
        writer = log.LineWriter(stream, pretty=False)
        writer.start()
        writer({"event": "request"})
        writer.stop()
    assert writer.dropped == 1


def test_people_get_colours_and_no_empty_fields(stream: io.BytesIO) -> None:
    writer = log.LineWriter(stream, pretty=True)
    writer.start()
    writer({"event": "request", "status": 200, "error": None})
    writer.members(b'"event":"other","usage":null', b'{"total_ms":1.250}')
    writer.stop()
    shown = stream.getvalue().decode()
    assert "request" in shown and "200" in shown and "error" not in shown
    assert "other" in shown and "1.25" in shown and "usage" not in shown
