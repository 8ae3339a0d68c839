"""Start comporta, stream one chat through the official OpenAI SDK, stop it. No key, no configuration: the simulated provider answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openai import OpenAI

QUESTION = "Explain in two sentences what a gateway in front of language models is good for."


@contextmanager
def gateway() -> Iterator[dict[str, Any]]:
    """A gateway on free ports; yields the line that it prints when it is ready."""
    command = [sys.executable, "-m", "comporta", "serve", "--json", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                sys.exit(f"comporta did not start:\n{process.stderr.read() if process.stderr else ''}")
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGTERM)
            _, logs = process.communicate(timeout=30)
            record = next((line for line in logs.splitlines() if '"event":"request"' in line.replace(" ", "")), "")
            print(f"\nThe record of the request:\n  {record}")


def main() -> None:
    with gateway() as ready:
        print(f"comporta answers at {ready['listen']}/v1 (process {ready['pid']})\n\n> {QUESTION}\n")
        client = OpenAI(base_url=f"{ready['listen']}/v1", api_key="none needed")
        stream = client.chat.completions.create(model="sim", messages=[{"role": "user", "content": QUESTION}], stream=True)
        for chunk in stream:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                print(text, end="", flush=True)
        print()


if __name__ == "__main__":
    main()
