"""The errors that are meant for a person."""

import re

from pydantic import ValidationError

_USER_OF_URL = re.compile(r"//[^/?#\s'\"]*@")


class LoraAssetsError(Exception):
    """Bad input or a broken neighbour: one line with the cause and the remedy.

    The command line prints it as that line and exits with 1; anything else that
    escapes is a bug of ours and keeps its stack trace. No password of a URL is in it.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause = _USER_OF_URL.sub("//", cause)
        self.remedy = _USER_OF_URL.sub("//", remedy)
        super().__init__(f"{self.cause}. {self.remedy}")


class ConnectionLost(LoraAssetsError):
    """Dagster can't be reached, while its run may go on: the command line exits with 75.

    That code (EX_TEMPFAIL of sysexits.h) alone says that trying again may help.
    """


class Stopped(BaseException):
    """SIGINT or SIGTERM ends the command, with one line and 128 + the signal's number.

    Not an Exception, so that nothing on its way takes it for an error that it can deal with.
    """

    def __init__(self, number: int, outcome: str = "") -> None:
        self.number = number
        super().__init__(f"stopped; {outcome}" if outcome else "stopped")


def validation_line(error: ValidationError) -> str:
    """Return the first fault of a pydantic error as one line: `field: message`.

    The value itself is not shown: it may be a secret or a whole document.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}" if field else first["msg"]
