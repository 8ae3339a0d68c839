"""The words of docs/performance.md between its tables."""

from __future__ import annotations

HEAD = """\
# Performance

What the gateway adds to a request and to a stream, measured against nginx in front of the same upstream in the same run. This page is made
by `make performance-doc` of the results under [bench/results](../bench/results); nothing in it is written by hand.
"""

RATIOS = """\
What the ratios mean:

- A ratio is processor time of the gateway's process over processor time of nginx's, for the same requests, in the same round. It says how
  much more machine the gateway needs than a proxy that reads nothing. It is no latency: that is the second table.
- nginx hands bytes on. The gateway parses each request, chooses a provider by its body, checks and counts the answer, asks for usage and
  takes it out again where the client did not ask, and writes a record and metrics.
- A request of a language model takes seconds of a GPU. Ten times nginx is still a ten-thousandth of that; it matters for how many streams a
  core carries.
- A chunk's cost depends on how many come at a time: with few streams each wakes the process, with many one turn of the loop serves several,
  which is cheaper for everyone. Figures compare only with the same number of streams and the same pace.
"""

LAYERS = """\
The server's own objects, driven in one process over connections that lead nowhere, with marks on the way; beneath them the processor time
of the real process over sockets, of which the kernel's part is known. What is left is the event loop's own work, and what comes of many
connections at once: other code and other data in between, so that little is found in the processor's caches. Waking a task and suspending
it hold a turn of the loop each. A chunk's real cost holds its share of its stream's beginning and end.
"""

POLICIES = """\
Each policy by itself, around a handler that answers at once, with calls as the edge makes them for a head that a client repeats; what the
handler and the making of the call cost is taken off. In one process, with warm caches. `resolve` with a section `llm` here also writes a
parameter into the body. `make bench-policies`.
"""

HISTORY = """\
Ratio to nginx before and after each change, from short runs; see [the method](#method) for how far two of them can be compared.
"""

METHOD = """\
## Method

- Upstream and load generator share one core; the server under test has the other to itself, one worker. Requests come from wrk over
  keep-alive connections, streams from a client that checks every chunk of every stream. Whatever is answered wrongly makes the run fail.
- In each round every server is measured in each slot, one after the other, the order turned from round to round. Shown is the median of
  the rounds' ratios, with the least and the greatest. Processor time is the kernel's own count for the process, in ticks of 10 ms.
- The gateway runs with its defaults: `record` (log lines and metrics), `authenticate` (open), `resolve`, `route`, `fallback`, `retry`,
  `circuit_breaker` and `timeout` are on, nothing else is configured.
- nginx runs with its defaults for a proxy with keep-alive to the upstream, without an access log; for streams without buffering.
- `make bench-check` repeats a short run and compares its ratios with `bench/results/baseline.json`: more than {margin:.0%} worse, and the
  spread of the rounds on top, is a failure. It is no part of the tests: a busy machine would fail them.

```sh
make bench            # the first tables, about three minutes; ARGS=--memory for memory too
make bench-layers     # where the time goes
make bench ARGS="--open-streams 10000"
make bench-check      # has it become slower?
```

Results are kept under `bench/results`; `make performance-doc` then writes this page. What a change brought is kept by
`python -m bench.history add --note "..."`, at the commit in question.
"""

DOUBTS = """\
## Doubts

- The machine is a small virtual one. Neighbours come and go, and a wake-up across cores costs more than on bare metal, for nginx as well.
  Ratios bear this better than times, not perfectly.
- Ticks of 10 ms: a slot of a second is known to about one part in a hundred at best.
- Loopback: no network card, no packets lost, no TLS. With TLS both sides of a ratio grow, and the ratio falls.
- One model, one provider, bodies of one size, an upstream that answers at once. A real mix has longer prompts, whose parsing is paid per
  byte.
- The layers are timed one request at a time, with warm caches; their sum is what the process does at best. Marks cost about as much as they
  measure in the smallest layers; what they cost is taken off evenly.
"""

FILE_LIMIT = """\
{wanted:,} were asked for. The machine lets a process open {file_limit:,} files, of which each stream takes two (its client and its
provider), so {streams:,} were held open; memory for {wanted:,} is reckoned from those.
"""

#: What a run says of itself, in words.
WARNINGS = {
    "failed": "answered wrongly",
    "saturated": "the server's core was full while streaming",
    "coalesced": "chunks were put together on their way",
    "disturbed": "something else ran on the server's core",
}
