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

#: Event streams in the forms that the specification allows, and some that it does not.
STREAMS: tuple[bytes, ...] = (
    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    b'\xef\xbb\xbfdata: {"choices":[]}\r\n\r\ndata: [DONE]\r\n\r\n',
    b'data:{"choices":\rdata:[]}\r\r: comment\r\rretry: 3\rid: 7\r\r',
    b'event: error\ndata: {"error":{"message":"m","code":"server_error"}}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":1}}}\n\n',
)

EVENT_WORDS: tuple[bytes, ...] = (
    b"data:",
    b"data: ",
    b"event: ",
    b"id: ",
    b": ",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"[DONE]",
    b'"error"',
    b'"usage"',
    b',"usage":null',
    b'"finish_reason"',
    b'"stop"',
    b"null",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b"\xf0\x9f\x8e\x89",
    b"\xff",
    b"\xef\xbb\xbf",
    b"a" * 700,
    *VALUES[:12],
)

#: A provider's answers, whole.
ANSWERS: tuple[bytes, ...] = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n1;a=b\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nxyz",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 23:00:00 GMT\r\nSet-Cookie: a=b\r\nset-cookie: c\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\nX-Request-ID: 1\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
)

_CHAT = b'{"model":"m","messages":[]}'
_POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"

#: Clients' requests, whole.
REQUESTS: tuple[bytes, ...] = (
    _POST + b"Content-Length: %d\r\n\r\n%b" % (len(_CHAT), _CHAT),
    _POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(_CHAT), _CHAT),
    _POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b" % (len(_CHAT), _CHAT),
    _POST + b'Content-Length: 41\r\n\r\n{"model":"m","messages":[],"stream":true}  ',
    b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/models/a%2fb HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 70\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n',
    b"GET http://a/v1/models?x=1&key=2 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)

HTTP_WORDS: tuple[bytes, ...] = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\x00",
    b" ",
    b"\t",
    b":",
    b"HTTP/1.1 ",
    b"HTTP/1.0",
    b"200",
    b"100",
    b"204",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Proxy-Connection: close\r\n",
    b"Trailer: x\r\n",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"Content-Encoding: gzip\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff",
    b"-1",
    b"18446744073709551616",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD ",
    b"POST ",
    b"/v1/chat/completions",
    b"%00",
    b"%2e%2e/",
    b"\xff\xfe",
    b"X-A: b\r\n" * 40,
    b"a" * 3000,
    _CHAT,
)

#: Objects as clients write them.
OBJECTS: tuple[bytes, ...] = (
    _CHAT,
    b'{ "x":1.50e+1 ,"mod\\u0065l" :"a","model":"b","messages":[{"model":"c"}],\n\t"stream_options":  {"include_usage":true} }',
    b'{"usage":null}',
    b'{"a":{"usage":1},"usage":{"usage":[]},"b":"\\"usage\\":","":{}}',
    b"{}",
    b'{"model":"\\\\\\"","\\u006dodel":[1,[2,{"model":3}]],"stream_options":null}',
)

JSON_WORDS: tuple[bytes, ...] = (
    b'"model"',
    b'"usage"',
    b'"stream_options"',
    b'"mod\\u0065l"',
    b":",
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b'\\"',
    b"\\\\",
    b"\\u",
    b"null",
    b"1",
    b'"a":1,',
    b',"model":"x"',
    b'{"usage":1}',
    b" ",
    b"\n",
)
