"""A deterministic grader that compares words and knows no meaning.

It stands in for an LLM judge where the reference is a sentence of the context, as in the
embedded data set.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from lora_assets.judging.refusals import declines
from lora_assets.records.grades import Letter

A_FROM = 0.85
"""Token F1 from which an answer says what the reference says: in a sentence of ten words,
one may differ or be missing."""

B_FROM = 0.5
"""Token F1 from which an answer has more in common with the reference than not."""

_ARTICLES = frozenset(("a", "an", "the"))


def grade_lexically(
    context: str, question: str, question_type: str, reference: str, answer: str
) -> tuple[Letter, str]:
    """Return A, B or C, and why.

    An answer that is the reference gets A. A negative gets A if the answer declines, else C.
    Otherwise declining gets C, since the answer was there, unless the reference reads like a
    refusal itself ("... not in the list.").
    Where the reference is quoted from the context, an answer that is nearer to another part of
    the context gets C, as sentences of one AWS service differ in a word or two. The rest goes by
    token F1 against the reference. `question` is ignored: words can't tell whether an answer
    suits it.
    """
    if _plain(answer).split() == _plain(reference).split():
        return "A", "is the reference"
    declined = declines(answer)
    if question_type == "negative":
        return ("A", "declines") if declined else ("C", "answers what the context does not hold")
    if declined and not declines(reference):
        return "C", "declines although the context holds the answer"
    words, wanted = _words(answer), _words(reference)
    score = _f1(words, wanted)
    for other in _others(context, wanted):
        if _f1(words, other) > score:
            return "C", "says what the context says about something else"
    letter: Letter = "A" if score >= A_FROM else "B" if score >= B_FROM else "C"
    return letter, f"token F1 against the reference is {score:.2f}"


_WORD = re.compile(r"(?:(?<!\w)-(?=\d))?\w+[+#]*")
"""A sign belongs to its number, and C++ is not C."""


_MEANINGFUL = ("<super>", "<sub>", "<fraction>")


def _plain(text: str) -> str:
    """Return the text in lower case, without differences of form: ligatures, widths, dashes.

    It is Unicode's NFKC, but 10\u2076 is not 106.
    """
    characters = unicodedata.normalize("NFC", text).replace("\u2212", "-")
    folded = (
        character
        if unicodedata.decomposition(character).startswith(_MEANINGFUL)
        else unicodedata.normalize("NFKC", character)
        for character in characters
    )
    return unicodedata.normalize("NFC", "".join(folded)).lower()


def _words(text: str) -> tuple[str, ...]:
    """Split into lower-case words without punctuation and articles, like SQuAD's evaluation.

    A text of articles alone (the option "A") keeps them, one of symbols alone keeps those.
    """
    plain = _plain(text)
    words: list[str] = _WORD.findall(plain)
    return tuple(word for word in words if word not in _ARTICLES) or tuple(words or plain.split())


def _f1(words: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall, over words with their counts."""
    shared = (Counter(words) & Counter(wanted)).total()
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0


def _others(context: str, wanted: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the context's sentences, with and without their "Name: ", except those in `wanted`.

    Yield nothing where `wanted` is not in the context: the reference is a paraphrase then, and
    an answer that quotes the context is right.
    """
    if not _within(wanted, _words(context)):
        return
    for sentence in re.split(r"\n+|(?<=[.!?])\s+", context):
        for part in {sentence, re.sub(r"^\W*\w+:\s", "", sentence)}:
            words = _words(part)
            if not _within(wanted, words) and not _within(words, wanted):
                yield words


def _within(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    return any(
        whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1)
    )
