"""Looks at evidence while it is gathered."""

from typing import Literal

from lora_assets.records import Record


class Looks(Record):
    """After how many rows, or blocks of a load test, what they show was looked at, and of how many.

    The last of `at` is how many there are; `ended` says why there were no more.
    """

    of: int
    at: tuple[int, ...] = ()
    ended: Literal["", "passed", "failed", "futile"] = ""

    def __str__(self) -> str:
        why = {
            "": "",
            "passed": ": the candidate is non-inferior",
            "failed": ": the candidate is inferior",
            "futile": ": the others would hardly decide it",
        }
        return (
            f"{self.at[-1]} of {self.of} rows were judged, in {len(self.at)} looks"
            + (why[self.ended])
        )
