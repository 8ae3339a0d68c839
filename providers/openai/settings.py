"""What an OpenAI account can be told beside the network's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from providers.openai.headers import forwardable
from providers.settings import BaseURL, NetworkSettings

ForwardedNames = Annotated[tuple[str, ...], AfterValidator(lambda names: tuple(dict.fromkeys(map(forwardable, names))))]


class OpenAISettings(NetworkSettings):
    """An OpenAI account, or any server that speaks its dialect."""

    kind: Literal["openai"] = Field("openai", description="which dialect it speaks")
    base_url: BaseURL = Field("https://api.openai.com/v1", description="where it is, up to and with /v1")
    organization: str | None = Field(None, description="sent as OpenAI-Organization")
    project: str | None = Field(None, description="sent as OpenAI-Project")
    forward_headers: ForwardedNames = Field((), description="further headers of the client's that are passed on, such as HTTP-Referer")
    stream_usage: bool = Field(True, description="ask for the usage of streams; false for servers that refuse stream_options")
