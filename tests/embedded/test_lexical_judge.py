import unicodedata

import pytest

from lora_assets.embedded.lexical_judge import grade_lexically
from lora_assets.records.grades import Letter

CONTEXT = (
    "DeleteBucketPolicy: Deletes the policy of a specified general purpose bucket.\n"
    "DeleteBucketTagging: Deletes the tags of a specified general purpose bucket.\n"
    "ListParts: Lists the parts that have been uploaded for a specific multipart upload."
)
REFERENCE = "Deletes the policy of a specified general purpose bucket."


def grades(context: str, reference: str, *answers: str, negative: bool = False) -> list[Letter]:
    kind = "negative" if negative else "factual"
    return [grade_lexically(context, "q", kind, reference, answer)[0] for answer in answers]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        (REFERENCE, "A"),
        ("deletes the policy of the specified general purpose bucket", "A"),
        ("DeleteBucketPolicy: " + REFERENCE, "A"),
        ("Deletes the policy of a bucket.", "B"),
        ("Deletes the tags of a specified general purpose bucket.", "C"),
        ("Lists the parts that have been uploaded for a specific multipart upload.", "C"),
        ("Starts a virtual machine.", "C"),
        ("That is not in the list.", "C"),
        ("", "C"),
        ("the a an ...", "C"),
    ],
)
def test_an_answer_is_graded_by_its_words(answer: str, letter: Letter) -> None:
    assert grades(CONTEXT, REFERENCE, answer) == [letter]


def test_a_negative_is_right_only_when_declined() -> None:
    answers = ("I don't know.", REFERENCE, "")
    assert grades(CONTEXT, "That is not in the list.", *answers, negative=True) == ["A", "C", "C"]


def test_quoting_the_context_is_right_where_the_reference_is_a_paraphrase_of_it() -> None:
    quoted = "Lists the parts that have been uploaded for a specific multipart upload."
    paraphrase = "Lists the parts uploaded for a specific multipart upload."
    assert grades(CONTEXT, paraphrase, quoted) == ["B"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Removes every tag that is not in the list.",
        "Deletes the objects not present in the given list.",
        "Lists the keys that the text does not mention.",
        "Reports the words that were not found in the document.",
    ],
)
def test_a_reference_that_reads_like_a_refusal_is_an_answer(sentence: str) -> None:
    context = f"DoIt: {sentence}\nOther: Closes the gate."
    answers = (sentence, "I don't know.", "Closes the gate.")
    assert grades(context, sentence, *answers) == ["A", "C", "C"]


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [
        ("Options: A) red B) blue", "A", "B"),
        ("The sign shown is \u2705.", "\u2705", "\u274c"),
        ("Use <= to compare.", "<=", ">="),
        ("C++ and C# are listed. C++ is older.", "C++", "C#"),
        ("Offset is -3.", "-3", "3"),
        ("caf\u00e9 opens", "cafe\u0301", "cafe"),
    ],
)
def test_an_answer_of_one_sign_is_graded(context: str, right: str, wrong: str) -> None:
    assert grades(context, unicodedata.normalize("NFC", right), right, wrong) == ["A", "C"]


@pytest.mark.parametrize(
    ("right", "wrong"), [("fine", "nine"), ("-3", "3"), ("10\u2076", "106"), ("Ab", "\uff21")]
)
def test_texts_that_differ_in_form_alone_are_equal(right: str, wrong: str) -> None:
    written = {"fine": "\ufb01ne", "-3": "\u22123", "Ab": "\uff21\uff42"}.get(right, right)
    assert grades("", written, right, wrong) == ["A", "C"]


def test_an_answer_that_is_its_reference_is_right_however_it_declines() -> None:
    assert grades(CONTEXT, "Nothing there.", " Nothing  there.", negative=True) == ["A"]
