"""Who is told of changes: keeps what it was told."""

from __future__ import annotations


class Told(list[tuple[str, str]]):
    async def __call__(self, subject: str, name: str) -> bool:
        self.append((subject, name))
        return True
