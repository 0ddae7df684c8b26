"""Signatures of verdicts: only who has the key can make one that promotion takes."""

import hmac
from collections.abc import Mapping

from lora_assets.records.verdict import Verdict

VERDICT_KEY = "LORA_ASSETS_VERDICT_KEY"
_VERDICT, _SIGNATURE = "verdict.", "verdict_signature."


def verdict_tags(key: str, model: str, version: int, verdict: Verdict) -> Mapping[str, str]:
    """Return a verdict as tags of its model version; without a key it is not signed."""
    stored = verdict.model_dump_json()
    signature = {_SIGNATURE + verdict.gate: _sign(key, model, version, stored)} if key else {}
    return {**signature, _VERDICT + verdict.gate: stored}


def read_verdicts(key: str, model: str, version: int, tags: Mapping[str, str]) -> list[Verdict]:
    """Return the verdicts among a model version's tags.

    With a key, one whose signature is missing or wrong decides nothing: that is its fault.
    """
    verdicts = []
    for name, stored in tags.items():
        if not name.startswith(_VERDICT):
            continue
        verdict = Verdict.model_validate_json(stored)
        given = tags.get(_SIGNATURE + verdict.gate, "")
        if key and not hmac.compare_digest(given, _sign(key, model, version, stored)):
            wrong = "wrong" if given else "missing"
            fault = f"its signature is {wrong} ({VERDICT_KEY}): run {verdict.gate} again"
            verdict = verdict.model_copy(update={"faults": (*verdict.faults, fault)})
        verdicts.append(verdict)
    return verdicts


def _sign(key: str, model: str, version: int, stored: str) -> str:
    """HMAC-SHA256 (RFC 2104), hexadecimal, over what is judged and the verdict as it is stored."""
    return hmac.digest(key.encode(), f"{model}\0{version}\0{stored}".encode(), "sha256").hex()
