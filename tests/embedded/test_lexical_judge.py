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


def _grade(answer: str, question_type: str = "factual", reference: str = REFERENCE) -> Letter:
    return grade_lexically(CONTEXT, "What does it do?", question_type, reference, answer)[0]


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
    assert _grade(answer) == letter


@pytest.mark.parametrize(
    ("answer", "letter"), [("I don't know.", "A"), (REFERENCE, "C"), ("", "C")]
)
def test_a_negative_is_right_only_when_declined(answer: str, letter: Letter) -> None:
    assert _grade(answer, "negative", "That is not in the list.") == letter


def test_quoting_the_context_is_right_where_the_reference_is_a_paraphrase_of_it() -> None:
    quoted = "Lists the parts that have been uploaded for a specific multipart upload."
    paraphrase = "Lists the parts uploaded for a specific multipart upload."
    assert _grade(quoted, reference=paraphrase) == "B"


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
    graded = [grade_lexically(context, "q", "factual", sentence, answer)[0] for answer in answers]
    assert graded == ["A", "C", "C"]


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
    reference = unicodedata.normalize("NFC", right)
    graded = [grade_lexically(context, "q", "factual", reference, a)[0] for a in (right, wrong)]
    assert graded == ["A", "C"]
