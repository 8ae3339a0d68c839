"""What can be set of the simulated provider: its pace, its length, its faults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from proxy.fields import Duration, Section

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of all requests, from 0 (none) to 1 (all)."""

NotNegative = Annotated[Duration, Field(ge=0)]


class SimSettings(Section):
    """A provider that calls no model: for demonstrations, tests and load."""

    kind: Literal["sim"] = Field("sim", description="answers that are made up in this process; no model is called")
    first_token: NotNegative = Field(0.0, description="silence before the first token")
    per_token: NotNegative = Field(0.0, description="time between two tokens; a whole answer takes as long as its stream would")
    length: int = Field(40, ge=1, le=100_000, description="tokens of an answer in free text, where the request does not stop it sooner")
    error_share: Share = Field(0.0, description="requests that are answered by error_status; exact in every hundred, in a seeded order")
    error_status: int = Field(500, ge=400, le=599, description="the status of those answers")
    cut_share: Share = Field(0.0, description="streams whose connection breaks in the middle")
    stall_share: Share = Field(0.0, description="streams that fall silent in the middle and never end")
    seed: int = Field(0, description="what answers and faults are drawn from, where a request brings no seed of its own")
    dimensions: int = Field(256, ge=1, le=4096, description="length of an embedding, where the request names none")
