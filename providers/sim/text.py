"""Prose made from a prompt, as a list of pieces of about one token each."""

from __future__ import annotations

import re

from providers.sim.dice import Dice

# One piece is a word with the space before it, at most twelve letters of it; a few marks; one ideograph, kana or hangul syllable; or
# white space. Every character is in exactly one piece, so joining them gives the text back.
_PIECE = re.compile(r" ?[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]| ?\w{1,12}| ?[^\w\s]{1,4}|\s+")
_WORD = re.compile(r"[^\W\d_]{3,24}")
_NAME = re.compile(r"(?<=[a-z,;:] )[A-Z]\w{2,23}")
_SAMPLE = 4096
_QUOTED = 16
_WORDS = 12

_COMMON = (
    "a about after all also am an and any are as at be been but by can could did do does for from get give had has have he her him his how "
    "i if in into is it its just like may me more most my no not of on one or our out over please say she should so some such tell than "
    "that the their them then there these they this those to up us use using very was we were what when where which who why will with "
    "would you your"
)
STOPWORDS = frozenset(_COMMON.split())


def split(text: str) -> list[str]:
    """The pieces of `text`; joined, they are `text`."""
    return _PIECE.findall(text)


def count_tokens(text: str) -> int:
    """About how many tokens a model would see in `text`; a long one is extrapolated from its beginning."""
    if len(text) <= _SAMPLE:
        return len(_PIECE.findall(text))
    return len(_PIECE.findall(text, 0, _SAMPLE)) * len(text) // _SAMPLE


def keywords(text: str) -> list[str]:
    """A few words that `text` is about; never empty."""
    head = text[: _SAMPLE // 4]
    found: dict[str, None] = {}
    for word in _WORD.findall(head):
        if word.lower() not in STOPWORDS:
            found[word] = None
            if len(found) >= _WORDS:
                break
    return list(found) or ["this"]


def names(text: str) -> list[str]:
    """What looks like a name in `text`; its keywords where nothing does."""
    return list(dict.fromkeys(_NAME.findall(text[: _SAMPLE // 4]))) or keywords(text)


_OPENING = split("This is a simulated answer (no model was called)")
_SHORT = split("This is a simulated answer, no model was called")
_SHORTEST = [split(text) for text in ("Simulated", "Simulated.", "A simulated answer", "A simulated answer.", "This is simulated text.")]

_SENTENCES = [
    [None if piece == " {" else piece for piece in split(" " + sentence.replace("{}", "{")) if piece]
    for sentence in (
        "A real model would have something to say about {} here.",
        "Nothing has been computed about {} .",
        "These words only stand where an answer about {} would be.",
        "Whoever asks about {} again gets the same words.",
        "Please read nothing into the mention of {} .",
        "The word {} was taken from the question.",
        "Connect a provider to learn more about {} .",
        "It is good for trying things out, but knows nothing of {} .",
        "So much for {} .",
        "As for {} , the simulation has no opinion.",
        "On {} it can only repeat what was asked.",
        "That concludes the part about {} .",
    )
]
"""Sentences in pieces; None is where the word goes."""


def write(subject: str, dice: Dice, length: int) -> list[str]:
    """Exactly `length` pieces of text that answers `subject` and says that it is simulated."""
    if length <= len(_OPENING):
        return _write_short(length)
    pieces = _OPENING.copy()
    room = min(length - len(pieces) - 3, _QUOTED)
    quote = split(" ".join(subject[: _SAMPLE // 16].split()))[: max(room, 0)]
    if quote:
        pieces += (" to", ' "', *quote, '".')
    else:
        pieces.append(".")
    words = keywords(subject)
    while len(pieces) < length:
        word = " " + dice.pick(words)
        for piece in dice.pick(_SENTENCES):
            pieces.append(word if piece is None else piece.lstrip() if piece in {" .", " ,"} else piece)
    return _ended(pieces, length)


def _write_short(length: int) -> list[str]:
    return _SHORTEST[length - 1].copy() if length <= len(_SHORTEST) else _ended(_SHORT.copy(), length)


def _ended(pieces: list[str], length: int) -> list[str]:
    """The first `length` pieces, the last one made a full stop, or, where there is one already, an ellipsis."""
    if len(pieces) > length or pieces[-1][-1] != ".":
        del pieces[length - 1 :]
        if pieces[-1] == ",":
            pieces[-1] = "."
        pieces.append(".." if pieces[-1][-1] == "." else ".")
    return pieces


def clip(pieces: list[str], limit: int | None, stops: tuple[str, ...]) -> tuple[list[str], str]:
    """What of `pieces` a server sends that makes at most `limit` tokens and ends before the first of `stops`; and the `finish_reason`."""
    reason = "stop"
    if limit is not None and limit < len(pieces):
        pieces = pieces[:limit]
        reason = "length"
    if not stops:
        return pieces, reason
    text = "".join(pieces)
    cuts = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (_before(pieces, min(cuts)), "stop") if cuts else (pieces, reason)


def _before(pieces: list[str], end: int) -> list[str]:
    kept = []
    for piece in pieces:
        if end <= 0:
            break
        kept.append(piece[:end])
        end -= len(piece)
    return kept
