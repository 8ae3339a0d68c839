"""The cost of policies is measured on the policies themselves."""

from __future__ import annotations

import json

import pytest

from bench import performance, policies
from proxy.core.call import Call
from proxy.core.reply import Reply


def test_every_policy_is_measured_and_shown(tmp_path, capsys):
    assert policies.main(["--rounds", "2", "--times", "20", "--output", str(tmp_path / "p.json")]) == 0
    result = json.loads((tmp_path / "p.json").read_text())
    assert list(result["policies_us"]) == list(policies.chains())
    assert all(found["low"] <= found["median"] <= found["high"] for found in result["policies_us"].values())
    assert "authenticate, a key that is known" in capsys.readouterr().out
    assert "| circuit_breaker | " in performance.document(tmp_path)


def test_a_policy_that_waits_is_no_measurement():
    class Waits:
        def __await__(self):
            yield

    async def handler(_call: Call) -> Reply:
        await Waits()
        return Reply()

    with pytest.raises(RuntimeError, match="waits"):
        policies.seconds(handler, policies.calls(None), 1)
