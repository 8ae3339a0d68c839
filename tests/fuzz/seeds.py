"""Bytes that broke a reader once, or are made to. A new failure is added here, so that it is tried for ever."""

from __future__ import annotations

DEEP = b"[" * 2000 + b"]" * 2000

#: JSON values that a hostile or careless provider may send where an object is expected.
VALUES: tuple[bytes, ...] = (
    b"{}",
    b"[]",
    b"null",
    b"7",
    b'"text"',
    b'{"type":[]}',
    b'{"type":{}}',
    b'{"error":[]}',
    b'{"error":[1]}',
    b'{"error":{"code":[],"type":{},"message":[]}}',
    b'{"error":{"code":"' + b"9" * 5000 + b'"}}',
    b'{"error":{"status":400,"x":' + b"[" * 300 + b"]" * 300 + b"}}",
    b'{"error":{"code":true}}',
    b'{"error":{"code":' + b"9" * 400 + b"}}",
    b'{"choices":5}',
    b'{"choices":{"a":1}}',
    b'{"choices":[5,null,[]]}',
    b'{"choices":[{"delta":5,"finish_reason":[]}]}',
    b'{"choices":[{"message":{"content":' + b"[" * 300 + b"]" * 300 + b"}}]}",
    b'{"choices":[{"delta":{"content":"a"}}],"usage":[1]}',
    b'{"choices":[{"delta":{"content":"a"}}],"usage":"\xff"}',
    b'{"choices":[{"delta":{"content":"a"}}],"\xff":1,"usage":null}',
    b'{"choices":[{"delta":{"content":"a"}}],"us\\u0061ge":{}}',
    b'{"response":5,"type":"response.completed"}',
    b'{"usage":{"prompt_tokens":1e400}}',
    DEEP,
    b'{"x":' + DEEP + b"}",
    b"{" * 5000,
    b"\xff\xfe\x00",
    b"",
)
