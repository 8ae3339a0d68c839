"""OpenAI, and every server that speaks its dialect: bytes in, bytes out."""

from providers.openai.provider import OpenAI
from providers.openai.settings import OpenAISettings

__all__ = ["OpenAI", "OpenAISettings"]
