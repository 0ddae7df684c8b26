"""The base model that adapters are trained on, and what it says by which it is known again."""

from lora_assets.records import Record

_TEXTS = (
    "Amazon S3 stores objects in buckets, and every object has a key",
    "The capital of France is Paris, and the capital of Italy is",
    "To read a file in Python, open it and call its method",
    "Returns a list of all the functions that the caller may use",
)
PROMPTS: tuple[str, ...] = tuple(
    " ".join(text.split()[:words]) for text in _TEXTS for words in range(3, 9)
)
"""What a base model is asked for its next token. Beginnings, since one token that differs would
change all tokens after it."""


class NextToken(Record):
    """The likeliest token after a prompt: its text, bare, and its log-probability in nats."""

    text: str
    logprob: float


def bare(text: str) -> str:
    """Return a token's text without what servers write in their own ways: its edges."""
    return text.replace("\ufffd", "").strip()


class Base(Record):
    """A base model: its `identity`, and its answers to PROMPTS; empty where nobody kept them.

    The identity is a digest of its files (64 hexadecimal characters) or the hub's commit (40).
    """

    identity: str = ""
    answers: tuple[NextToken, ...] = ()
