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
