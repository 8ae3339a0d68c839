"""What can be set of the simulated provider: its pace, its length, its faults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from proxy.fields import Duration, Section

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of all requests, from 0 (none) to 1 (all)."""

NotNegative = Annotated[Duration, Field(ge=0)]


class SimSettings(Section):
    """`providers.<name>` with `kind: sim`.

    first_token   silence before the first token
    per_token     time between two tokens; an answer that is not streamed takes as long as its stream would
    length        tokens of an answer in free text, where the request does not stop it sooner
    error_share   requests that are answered by `error_status`; exact in every hundred requests, in a seeded order
    error_status  the status of those answers
    cut_share     streams whose connection breaks in the middle
    stall_share   streams that fall silent in the middle and never end
    seed          what answers and faults are drawn from, where a request brings no `seed` of its own
    dimensions    length of an embedding, where the request names none
    """

    kind: Literal["sim"] = "sim"
    first_token: NotNegative = 0.0
    per_token: NotNegative = 0.0
    length: int = Field(default=40, ge=1, le=100_000)
    error_share: Share = 0.0
    error_status: int = Field(default=500, ge=400, le=599)
    cut_share: Share = 0.0
    stall_share: Share = 0.0
    seed: int = 0
    dimensions: int = Field(default=256, ge=1, le=4096)
