import pytest
from botocore.loaders import Loader

from lora_assets.embedded.data_set.aws_operations import first_sentence
from lora_assets.embedded.data_set.questions import REFUSAL
from lora_assets.judging.refusals import declines


@pytest.mark.parametrize(
    "answer",
    [
        REFUSAL,
        "not in the list.",
        "I don't know.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I can't answer that.",
        "This cannot be answered from the context.",
        "I am unable to determine the answer from the provided documents.",
        "The context does not contain information about Frobnicate.",
        "The provided context\ndoesn't say what Frobnicate does.",
        "The context only describes S3. It does not describe Frobnicate.",
        "THERE IS NO INFORMATION ABOUT FROBNICATE IN THE CONTEXT.",
        "Frobnicate isn't listed.",
        "None of the operations in the context is Frobnicate.",
        "There is not enough information to answer.",
        "This information is not available in the provided documentation.",
        "Frobnicate is not mentioned there.",
        "No such operation is listed.",
        "Information not available.",
        "No relevant information found.",
        "The context says nothing about it.",
        "Nothing in the context describes Frobnicate.",
        "There is nothing about it in the context.",
        "The answer can't be found.",
        "Cannot be determined.",
        "I was unable to find it.",
        "I cannot provide an answer.",
    ],
)
def test_an_answer_that_declines_is_recognised(answer: str) -> None:
    assert declines(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Deletes a multicast group if it is not in use by a FUOTA task.",
        "List reports for a service, or all of them if serviceArn is not provided.",
        "Starts a recommendation run when you don't know what rules to write.",
        "You cannot find traces through this API if Transaction Search is enabled.",
        "Validates that a resource policy does not grant a wide range of principals access.",
        "Returns information about a context store.",
        "This API action isn't intended for you to use.",
        "Returns an error where the bucket cannot be found.",
        "Lists the domains, or nothing from a Region that is not enabled.",
    ],
)
def test_documentation_that_negates_something_is_no_refusal(answer: str) -> None:
    assert not declines(answer)


def test_no_first_sentence_of_the_aws_documentation_reads_as_a_refusal() -> None:
    loader = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH])
    sentences = {
        first_sentence(operation.get("documentation", ""))
        for service in ("accessanalyzer", "backup", "dynamodb", "glacier", "iot", "kms", "s3")
        for operation in loader.load_service_model(service, "service-2")["operations"].values()
    }
    assert len(sentences) > 500
    assert not [sentence for sentence in sentences if declines(sentence)]
