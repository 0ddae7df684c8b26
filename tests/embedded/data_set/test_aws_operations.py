import pytest

from lora_assets.embedded.data_set.aws_operations import first_sentence, operations
from lora_assets.errors import LoraAssetsError


def test_operations_are_read_with_their_first_sentence() -> None:
    found = {operation.name: operation for operation in operations("s3")}
    assert found["CreateMultipartUpload"].service_name == "S3"
    assert all(20 <= len(operation.sentence) <= 120 for operation in found.values())
    assert len({operation.sentence for operation in found.values()}) == len(found) > 90


@pytest.mark.parametrize(
    ("documentation", "sentence"),
    [
        ("<p>Lists <code>Jobs</code>. Then more.</p>", "Lists Jobs."),
        ("<p>Calls <a href='x'>GetJob</a> . More.</p>", "Calls GetJob."),
        ("<p>Reads A &amp; B.</p><p>More.</p>", "Reads A & B."),
        ("<note><p>Not for you.</p></note><p>Starts a\n  job.</p>", "Starts a job."),
        ("<p>Adds tags, e.g. a name. More.</p>", "Adds tags, e.g. a name."),
        ("<p>Has no end</p>", ""),
        ("", ""),
    ],
)
def test_documentation_becomes_one_plain_sentence(documentation: str, sentence: str) -> None:
    assert first_sentence(documentation) == sentence


def test_an_unknown_service_is_refused_with_close_matches() -> None:
    with pytest.raises(LoraAssetsError, match="dynamodb"):
        operations("dynamdb")
    with pytest.raises(LoraAssetsError, match="no AWS service"):
        operations("../s3")
