"""A deterministic grader that compares words. It knows no meaning, and is named so.

It stands in for an LLM judge where the reference is a sentence of the context, as in the
embedded data set.
"""

import re
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
    """A, B or C, and why.

    A negative: A if the answer declines, else C. Otherwise declining is C, since the answer
    was there; so is an answer that is nearer to another part of the context than to the
    reference, where the reference is quoted from the context (sentences of one AWS service
    differ in a word or two); the rest goes by token F1 against the reference.
    `question` is not looked at: words can't tell whether an answer suits it.
    """
    declined = declines(answer)
    if question_type == "negative":
        return ("A", "declines") if declined else ("C", "answers what the context does not hold")
    if declined:
        return "C", "declines although the context holds the answer"
    words, wanted = _words(answer), _words(reference)
    score = _f1(words, wanted)
    for other in _others(context, wanted):
        if _f1(words, other) > score:
            return "C", "says what the context says about something else"
    letter: Letter = "A" if score >= A_FROM else "B" if score >= B_FROM else "C"
    return letter, f"token F1 against the reference is {score:.2f}"


def _words(text: str) -> tuple[str, ...]:
    """Lower-case words without punctuation and articles (as SQuAD's evaluation script)."""
    return tuple(word for word in re.findall(r"\w+", text.lower()) if word not in _ARTICLES)


def _f1(words: Sequence[str], wanted: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words with their counts (SQuAD's F1)."""
    shared = (Counter(words) & Counter(wanted)).total()
    return 2 * shared / (len(words) + len(wanted)) if shared else 0.0


def _others(context: str, wanted: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The context's sentences, with and without their "Name: ", but for those in `wanted`.

    None where `wanted` is not itself in the context: a paraphrase is no quotation, and an
    answer that quotes what it paraphrases is right.
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
