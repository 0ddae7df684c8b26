"""Signatures: only who has the key can make a verdict or an entry of the history that counts."""

import hmac
import logging
from collections.abc import Mapping

from pydantic import ValidationError

from lora_assets.errors import validation_line
from lora_assets.records.verdict import Verdict

VERDICT_KEY = "LORA_ASSETS_VERDICT_KEY"
_VERDICT, _MARK = "verdict.", ',"signature":"'
"""The mark can't stand inside of a JSON text, which escapes its quotes."""


def signed(key: str, about: str, text: str) -> str:
    """Return a JSON object as it is kept about `about`; without a key it is not signed."""
    return f'{text[:-1]}{_MARK}{_sign(key, about, text)}"}}' if key else text


def read_signed(key: str, about: str, kept: str) -> tuple[str, str]:
    """Return the JSON object without its signature, and what is wrong with that, if anything is.

    Nothing is wrong without a key.
    """
    text, mark, given = kept.rpartition(_MARK)
    text = f"{text}}}" if mark else kept
    if not key or hmac.compare_digest(given.encode(), f'{_sign(key, about, text)}"}}'.encode()):
        return text, ""
    return text, f"its signature is {'wrong' if mark else 'missing'} ({VERDICT_KEY})"


def verdict_tag(key: str, model: str, version: int, verdict: Verdict) -> tuple[str, str]:
    """Return a verdict as a tag of its model version."""
    text = signed(key, f"{model}\0{version}", verdict.model_dump_json())
    return _VERDICT + verdict.gate, text


def read_verdicts(key: str, model: str, version: int, tags: Mapping[str, str]) -> list[Verdict]:
    """Return the verdicts among a model version's tags.

    With a key, one whose signature is missing or wrong decides nothing: that is its fault. One
    that can't be read is passed over.
    """
    verdicts = []
    for name, kept in tags.items():
        if not name.startswith(_VERDICT):
            continue
        verdict = read_verdict(key, f"{model}\0{version}", kept)
        if verdict is not None:
            verdicts.append(verdict)
    return verdicts


def read_verdict(key: str, about: str, kept: str) -> Verdict | None:
    """Return a verdict as it is kept about `about`; None for what is none, which the log names."""
    text, wrong = read_signed(key, about, kept)
    try:
        verdict = Verdict.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        message, shown = "A verdict on %s is passed over: %s", about.replace("\0", " version ")
        logging.getLogger(__name__).warning(message, shown, validation_line(error))
        return None
    fault = (f"{wrong}: run {verdict.gate} again",) if wrong else ()
    return verdict.model_copy(update={"faults": (*verdict.faults, *fault)})


def _sign(key: str, about: str, text: str) -> str:
    """HMAC-SHA256 (RFC 2104), hexadecimal, over what it is about and the JSON text."""
    return hmac.digest(key.encode(), f"{about}\0{text}".encode(), "sha256").hex()
