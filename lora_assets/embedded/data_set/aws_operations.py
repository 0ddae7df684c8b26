"""What each AWS operation does, in one sentence, from botocore's service models."""

import difflib
import html
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from botocore.loaders import Loader

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record

SHORTEST, LONGEST = 20, 120
_MODEL = "service-2"

# A note warns about one edge case ("not supported for directory buckets") before the
# documentation says what the operation is for.
_ASIDE = re.compile(r"<(note|important)>.*?</\1>", re.DOTALL)
_INLINE_TAG = re.compile(r"</?(?:a|b|code|em|i|strong)(?:\s[^>]*)?>")
_TAG = re.compile(r"<[^>]+>")
_SENTENCE = re.compile(r".+?\.(?=\s+[A-Z]|$)")


class Operation(Record):
    """One operation of an AWS service.

    `service` is botocore's name for the service (`s3`), `service_name` the one for people
    (`S3`), `sentence` the first sentence of the operation's documentation.
    """

    service: str
    service_name: str
    name: str
    sentence: str


@cache
def _loader() -> Loader:
    # botocore's default search path includes ~/.aws/models, which differs between machines.
    return Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)


@cache
def list_services() -> tuple[str, ...]:
    """Return the name of every service that the installed botocore knows."""
    return tuple(sorted(_loader().list_available_services(_MODEL)))


def operations(service: str) -> tuple[Operation, ...]:
    """Return the service's operations whose first sentence is plain and of 20 to 120 characters.

    They are in name order; of those that share a sentence only the first is kept. Raise
    LoraAssetsError for a service that botocore does not know, naming close matches.
    """
    if service not in list_services():
        close = difflib.get_close_matches(service, list_services(), n=3, cutoff=0.5)
        hint = f"Use {' or '.join(close)}" if close else "Use a service that botocore knows"
        raise LoraAssetsError(f"There is no AWS service {service!r}", f"{hint}.")
    model: Mapping[str, Any] = _loader().load_service_model(service, _MODEL)
    service_name = model["metadata"]["serviceId"]
    found: dict[str, Operation] = {}
    for name in sorted(model["operations"]):
        sentence = first_sentence(model["operations"][name].get("documentation", ""))
        if SHORTEST <= len(sentence) <= LONGEST and sentence not in found:
            found[sentence] = Operation(
                service=service, service_name=service_name, name=name, sentence=sentence
            )
    return tuple(found.values())


def first_sentence(documentation: str) -> str:
    """Return the first sentence of an HTML description as plain text, or an empty text."""
    text = _INLINE_TAG.sub("", _ASIDE.sub(" ", documentation))
    text = " ".join(html.unescape(_TAG.sub(" ", text)).split())
    text = re.sub(r"\s+([.,;:)])", r"\1", text).replace("( ", "(")
    match = _SENTENCE.match(text)
    return match.group(0) if match else ""
