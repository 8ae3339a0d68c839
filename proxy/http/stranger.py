"""`/v1/users/llm-config` for who has no preferences of its own: a key of the configuration's, no key, or nothing stored of anybody."""

from __future__ import annotations

from proxy.core.call import Call
from proxy.core.errors import ClientError
from proxy.core.reply import Reply


def refusal() -> ClientError:
    return ClientError("Only a user's own key has preferences.", status=403, code="permission_denied")


async def refuse(_call: Call) -> Reply:
    """A handler. Raises ClientError (403)."""
    raise refusal()
