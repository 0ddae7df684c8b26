"""The one shape of an error that a client gets: vLLM's."""

from http import HTTPStatus
from typing import Any


class ApiError(Exception):
    """A refusal with vLLM's message, type and status code."""

    def __init__(
        self,
        message: str,
        kind: str = "BadRequestError",
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.status = status
        self.param = param

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.status.value,
            }
        }
