"""Streams and answers as OpenAI-compatible servers send them, and what a client must get of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.core.call import Usage

DONE = b"data: [DONE]\n\n"
_HEAD = b'"id":"c1","object":"chat.completion.chunk","created":1,"model":"m"'


def chunk(choices: bytes, rest: bytes = b"") -> bytes:
    """One canonical event, as OpenAI sends it."""
    return b'data: {%b,"choices":[%b]%b}\n\n' % (_HEAD, choices, rest)


def delta(text: bytes, index: int = 0) -> bytes:
    return b'{"index":%d,"delta":{"content":"%b"},"finish_reason":null}' % (index, text)


def finish(index: int = 0) -> bytes:
    return b'{"index":%d,"delta":{},"finish_reason":"stop"}' % index


ROLE = b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}'
COUNTS = (
    b'{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4},'
    b'"completion_tokens_details":{"reasoning_tokens":2}}'
)
USAGE = Usage(9, 3, 4, 2, reported=True)
NULL = b',"usage":null'
LAST = chunk(b"", b',"usage":' + COUNTS)

PLAIN = chunk(ROLE) + chunk(delta(b"Hel")) + chunk(delta("lö".encode())) + chunk(finish())
WITH_NULLS = chunk(ROLE, NULL) + chunk(delta(b"Hel"), NULL) + chunk(delta("lö".encode()), NULL) + chunk(finish(), NULL)


@dataclass(frozen=True)
class Stream:
    """What comes (`upstream`), and what must go (`client`). `failure` is the kind of error that ends it."""

    upstream: bytes
    client: bytes
    usage: Usage | None = None
    failure: str | None = None
    done: bool = True
    wants_usage: bool = False
    choices: int = 1
    notes: str = field(default="", compare=False)


CHAT: dict[str, Stream] = {
    "plain": Stream(PLAIN + DONE, PLAIN + DONE),
    "usage taken out again": Stream(WITH_NULLS + LAST + DONE, PLAIN + DONE, USAGE),
    "usage kept": Stream(WITH_NULLS + LAST + DONE, WITH_NULLS + LAST + DONE, USAGE, wants_usage=True),
    "obfuscation stays": Stream(
        chunk(ROLE) + chunk(delta(b"a"), NULL + b',"obfuscation":"xy"') + chunk(finish()) + LAST + DONE,
        chunk(ROLE) + chunk(delta(b"a"), b',"obfuscation":"xy"') + chunk(finish()) + DONE,
        USAGE,
    ),
    "usage on the last content stays": Stream(
        chunk(delta(b"a")) + chunk(finish(), b',"usage":' + COUNTS) + DONE,
        chunk(delta(b"a")) + chunk(finish(), b',"usage":' + COUNTS) + DONE,
        USAGE,
    ),
    "what stands beside usage stays": Stream(
        chunk(delta(b"a")) + chunk(finish(), b',"usage":' + COUNTS + b',"timings":{"n":1}') + DONE,
        chunk(delta(b"a")) + chunk(finish(), b',"usage":' + COUNTS + b',"timings":{"n":1}') + DONE,
        USAGE,
    ),
    "usage on a choice that says nothing stays": Stream(
        PLAIN + chunk(b'{"index":0,"delta":{"content":""},"finish_reason":null}', b',"usage":' + COUNTS) + DONE,
        PLAIN + chunk(b'{"index":0,"delta":{"content":""},"finish_reason":null}', b',"usage":' + COUNTS) + DONE,
        USAGE,
    ),
    "usage on each content, and alone at the end": Stream(
        chunk(delta(b"a"), b',"usage":' + COUNTS) * 3 + chunk(finish()) + LAST + DONE,
        chunk(delta(b"a"), b',"usage":' + COUNTS) * 3 + chunk(finish()) + DONE,
        USAGE,
    ),
    "usage that says nothing stays": Stream(
        chunk(delta(b"a"), b',"usage":{}') + PLAIN + DONE, chunk(delta(b"a"), b',"usage":{}') + PLAIN + DONE
    ),
    "what the engine says beside usage alone goes with it": Stream(
        PLAIN + chunk(b"", b',"usage":' + COUNTS + b',"timings":{"n":1}') + DONE,
        PLAIN + DONE,
        USAGE,
    ),
    "citations beside usage alone, and no choices": Stream(
        PLAIN + b'data: {"usage":' + COUNTS + b',"citations":["u"]}\n\n' + DONE,
        PLAIN + b'data: {"choices":[{"index":0,"delta":{},"finish_reason":null}],"citations":["u"]}\n\n' + DONE,
        USAGE,
    ),
    "citations beside usage alone": Stream(
        PLAIN + chunk(b"", b',"usage":' + COUNTS + b',"citations":["u"]') + DONE,
        PLAIN + chunk(b'{"index":0,"delta":{},"finish_reason":null}', b',"citations":["u"]') + DONE,
        USAGE,
    ),
    "usage with what every event may say": Stream(
        PLAIN + chunk(b"", b',"usage":' + COUNTS + b',"system_fingerprint":"f","timings":null,"x_timings":{"n":1}') + DONE,
        PLAIN + DONE,
        USAGE,
    ),
    "usage first among the members": Stream(
        b'data: {"usage":null,"choices":[' + delta(b"a") + b"]}\n\n" + chunk(finish()) + DONE,
        b'data: {"choices":[' + delta(b"a") + b"]}\n\n" + chunk(finish()) + DONE,
    ),
    "usage repeated: the last one counts": Stream(
        chunk(delta(b"a"), b',"usage":{"prompt_tokens":9,"completion_tokens":1}') + chunk(finish()) + LAST + DONE,
        chunk(delta(b"a"), b',"usage":{"prompt_tokens":9,"completion_tokens":1}') + chunk(finish()) + DONE,
        USAGE,
    ),
    "usage in the choice that ends": Stream(
        chunk(delta(b"a")) + chunk(finish()[:-1] + b',"usage":' + COUNTS + b"}") + DONE,
        chunk(delta(b"a")) + chunk(finish()[:-1] + b',"usage":' + COUNTS + b"}") + DONE,
        USAGE,
    ),
    "numbers keep their spelling where usage goes": Stream(
        chunk(delta(b"a"), b',"x": 1.50e2,"y":123456789012345678901234567890,"usage": null') + chunk(finish()) + DONE,
        chunk(delta(b"a"), b',"x": 1.50e2,"y":123456789012345678901234567890') + chunk(finish()) + DONE,
    ),
    "missing [DONE]": Stream(PLAIN, PLAIN + DONE),
    "[DONE] without its blank line": Stream(PLAIN + b"data: [DONE]\n", PLAIN + DONE),
    "missing [DONE], usage after the end": Stream(WITH_NULLS + LAST, PLAIN + DONE, USAGE),
    "missing finish_reason": Stream(
        chunk(ROLE) + chunk(delta(b"a")), chunk(ROLE) + chunk(delta(b"a")), None, "stream_truncated", done=False
    ),
    "missing finish_reason before [DONE], as some servers have it": Stream(
        chunk(delta(b"a")) + chunk(delta(b"b")) + DONE, chunk(delta(b"a")) + chunk(delta(b"b")) + DONE
    ),
    "an empty finish_reason ends nothing": Stream(
        chunk(delta(b"a")) + chunk(delta(b"b")).replace(b"null", b'""'),
        chunk(delta(b"a")) + chunk(delta(b"b")).replace(b"null", b'""'),
        None,
        "stream_truncated",
        done=False,
    ),
    "a finish_reason in blanks": Stream(
        chunk(delta(b"a")) + chunk(finish()).replace(b'n":"', b'n" : "'),
        chunk(delta(b"a")) + chunk(finish()).replace(b'n":"', b'n" : "') + DONE,
    ),
    "cut inside an event": Stream(chunk(delta(b"a")) + chunk(delta(b"b"))[:-20], chunk(delta(b"a")), None, "stream_truncated", done=False),
    "two choices": Stream(
        chunk(delta(b"a")) + chunk(delta(b"b", 1)) + chunk(finish()) + chunk(finish(1)),
        chunk(delta(b"a")) + chunk(delta(b"b", 1)) + chunk(finish()) + chunk(finish(1)) + DONE,
        choices=2,
    ),
    "two choices in one event": Stream(
        chunk(delta(b"a") + b"," + delta(b"b", 1)) + chunk(finish() + b"," + finish(1)),
        chunk(delta(b"a") + b"," + delta(b"b", 1)) + chunk(finish() + b"," + finish(1)) + DONE,
        choices=2,
    ),
    "one of two choices cut": Stream(
        chunk(delta(b"a")) + chunk(delta(b"b", 1)) + chunk(finish()),
        chunk(delta(b"a")) + chunk(delta(b"b", 1)) + chunk(finish()),
        None,
        "stream_truncated",
        done=False,
        choices=2,
    ),
    "one of two choices cut, the other one ended twice": Stream(
        chunk(delta(b"a")) + chunk(delta(b"b", 1)) + chunk(finish()) * 2,
        chunk(delta(b"a")) + chunk(delta(b"b", 1)) + chunk(finish()) * 2,
        None,
        "stream_truncated",
        done=False,
        choices=2,
    ),
    "two choices without an index": Stream(
        chunk(b'{"delta":{"content":"a"}},{"delta":{"content":"b"}}') + chunk(b'{"finish_reason":"stop"}') * 2,
        chunk(b'{"delta":{"content":"a"}},{"delta":{"content":"b"}}') + chunk(b'{"finish_reason":"stop"}') * 2 + DONE,
        choices=2,
    ),
    "halves of a character": Stream(
        chunk(delta(b"a")) + chunk(delta(b"\\ud83d"), NULL) + chunk(delta(b"\\ude00"), NULL) + chunk(finish()) + LAST + DONE,
        chunk(delta(b"a")) + chunk(delta(b"\\ud83d")) + chunk(delta(b"\\ude00")) + chunk(finish()) + DONE,
        USAGE,
    ),
    "tool calls": Stream(
        chunk(b'{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":""}}]},"finish_reason":null}')
        + chunk(b'{"index":0,"delta":{},"finish_reason":"tool_calls"}')
        + DONE,
        chunk(b'{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":""}}]},"finish_reason":null}')
        + chunk(b'{"index":0,"delta":{},"finish_reason":"tool_calls"}')
        + DONE,
    ),
    "a legacy completion": Stream(
        b'data: {"choices":[{"text":"a","index":0,"finish_reason":null}]}\n\n'
        b'data: {"choices":[{"text":"","index":0,"finish_reason":"length"}]}\n\n',
        b'data: {"choices":[{"text":"a","index":0,"finish_reason":null}]}\n\n'
        b'data: {"choices":[{"text":"","index":0,"finish_reason":"length"}]}\n\n' + DONE,
    ),
    "an error later": Stream(
        chunk(delta(b"a")) + b'data: {"error":{"message":"no more","type":"server_error"}}\n\n' + chunk(delta(b"b")),
        chunk(delta(b"a")),
        None,
        "server_error",
        done=False,
    ),
    "an error later by its name alone": Stream(
        chunk(delta(b"a")) + b'event: error\ndata: {"message":"no more","code":"overloaded"}\n\n' + chunk(delta(b"b")),
        chunk(delta(b"a")),
        None,
        "overloaded",
        done=False,
    ),
    "other names say nothing": Stream(
        b"event: message\n" + chunk(delta(b"a")) + b"event: error\ndata:\n\n" + chunk(finish()) + b"event: error\n" + DONE,
        chunk(delta(b"a")) + chunk(finish()) + DONE,
    ),
    "an error later in MiniMax's way": Stream(
        chunk(delta(b"a")) + b'data: {"choices":[],"base_resp":{"status_code":1000,"status_msg":"unknown"}}\n\n' + chunk(delta(b"b")),
        chunk(delta(b"a")),
        None,
        "server_error",
        done=False,
    ),
    "success in MiniMax's way": Stream(
        chunk(delta(b"a")) + chunk(finish(), b',"base_resp":{"status_code":0}') + chunk(b"", b',"base_resp":{"status_code":0}') + DONE,
        chunk(delta(b"a")) + chunk(finish(), b',"base_resp":{"status_code":0}') + chunk(b"", b',"base_resp":{"status_code":0}') + DONE,
    ),
    "a word that only looks like an error": Stream(
        chunk(delta(b'say \\"error\\" and \\"usage\\"')) + chunk(finish(), b',"error":null') + DONE,
        chunk(delta(b'say \\"error\\" and \\"usage\\"')) + chunk(finish(), b',"error":null') + DONE,
    ),
    "nonsense before the end": Stream(chunk(finish()) + b"data: {nonsense\n\n", chunk(finish()), None, "invalid_response", done=False),
    "what follows [DONE] is nobody's": Stream(PLAIN + DONE + chunk(delta(b"x")), PLAIN + DONE),
    "all line ends, comments and names": Stream(
        b"\xef\xbb\xbf: hi\r\n\r\nevent: x\rid: 1\r" + chunk(delta(b"a"))[:-2] + b"\r\r" + chunk(finish()).replace(b"\n", b"\r\n") + DONE,
        chunk(delta(b"a")) + chunk(finish()) + DONE,
    ),
    "events without data": Stream(
        b"data:\n\n" + chunk(delta(b"a")) + b"data: \n\nevent: ping\ndata\n\n" + chunk(finish()) + DONE,
        chunk(delta(b"a")) + chunk(finish()) + DONE,
    ),
    "data over several lines": Stream(
        b'data: {"choices":\ndata: [' + delta(b"a") + b"]}\n\n" + chunk(finish()) + DONE,
        b'data: {"choices": [' + delta(b"a") + b"]}\n\n" + chunk(finish()) + DONE,
    ),
    "no space after the colon": Stream(
        chunk(delta(b"a")).replace(b"data: ", b"data:") + chunk(finish()).replace(b"data: ", b"data:") + b"data:[DONE]\n\n",
        chunk(delta(b"a")) + chunk(finish()) + DONE,
    ),
    "bytes that are not UTF-8": Stream(
        chunk(delta(b"\xff")) + chunk(delta(b"\xfe"), NULL) + chunk(finish()) + DONE,
        chunk(delta(b"\xff")) + chunk(delta(b"\xfe")) + chunk(finish()) + DONE,
    ),
}

#: Streams that fail before content: nothing of them may have gone out. Stream -> kind and status.
CHAT_REFUSED: dict[str, tuple[bytes, str, int]] = {
    "an error first": (b'data: {"error":{"message":"m","code":"rate_limit_exceeded"}}\n\n', "rate_limit_exceeded", 429),
    "an error after the role": (chunk(ROLE) + b'data: {"error":{"message":"m","type":"overloaded_error"}}\n\n', "overloaded", 503),
    "an error with a status": (b'data: {"error":{"message":"m","code":500}}\n\n', "server_error", 500),
    "an error that is text": (b'data: {"error":"boom"}\n\n', "server_error", 502),
    "an error with a code of many digits": (b'data: {"error":{"code":"' + b"9" * 4400 + b'"}}\n\n', "server_error", 502),
    "a deep error with a status": (b'data: {"error":{"status":400,"x":' + b"[" * 300 + b"]" * 300 + b"}}\n\n", "rejected", 400),
    "an error by its name alone": (b'event: error\ndata: {"message":"m","code":"rate_limit_exceeded"}\n\n', "rate_limit_exceeded", 429),
    "an error by its name, as it stands elsewhere": (
        b'event: error\ndata: {"error":{"message":"m","code":429}}\n\n',
        "rate_limit_exceeded",
        429,
    ),
    "an error by its name, which says nothing": (chunk(ROLE) + b"event: error\ndata: {}\n\n", "server_error", 502),
    "an error by its name, which is no JSON": (b"event: error\ndata: boom\n\n", "invalid_response", 502),
    "an error in MiniMax's way": (
        b'data: {"choices":null,"usage":{"total_tokens":0},"base_resp":{"status_code":1002,"status_msg":"rate limit"}}\n\n',
        "rate_limit_exceeded",
        429,
    ),
    "no JSON": (b"data: hello\n\n", "invalid_response", 502),
    "JSON that is no object": (b"data: [1]\n\n", "invalid_response", 502),
    "no data": (b"data:\n\n", "invalid_response", 502),
    "nothing but the end": (DONE, "invalid_response", 502),
    "nothing at all": (b"", "invalid_response", 502),
    "only a comment": (b": hello\n\n", "invalid_response", 502),
    "only the role": (chunk(ROLE), "invalid_response", 502),
    "choices that are none": (b'data: {"choices":[5,null]}\n\ndata: {"choices":7}\n\n', "invalid_response", 502),
    "too large": (b"data: " + b"x" * 5000 + b"\n\n", "response_too_large", 502),
}
