"""The section `credentials`: by what the credentials are encrypted that the gateway keeps itself; see `proxy.safe`."""

from __future__ import annotations

from pydantic import Field

from proxy.fields import SecretRef, Section


class CredentialSettings(Section):
    """What encrypts the credentials that are given to the gateway itself; `store:NAME` refers to one, and `storage` says where they are."""

    key: SecretRef | None = Field(
        None,
        description="the key that encrypts them, by reference; there is no default: comporta credentials init-key makes one",
        pattern="^(env|file|keyring):",
    )
