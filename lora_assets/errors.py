"""The errors that are meant for a person."""


class LoraAssetsError(Exception):
    """Bad input or a broken neighbour: one line with the cause and the remedy.

    The command line prints it as that line and exits with 1; anything else that
    escapes is a bug of ours and keeps its stack trace.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause = cause
        self.remedy = remedy
        super().__init__(f"{cause}. {remedy}")


class ConnectionLost(LoraAssetsError):
    """Dagster can't be reached, while its run may go on: the command line exits with 75.

    That code (EX_TEMPFAIL of sysexits.h) alone says that trying again may help.
    """
