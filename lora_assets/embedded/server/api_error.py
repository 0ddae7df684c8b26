"""The one shape of an error that a client gets: vLLM's."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


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
        """Return the JSON body."""
        error = {"message": self.message, "type": self.kind, "param": self.param}
        return {"error": {**error, "code": self.status.value}}

    def reply(self) -> Response:
        """Return the whole reply."""
        return JSONResponse(self.body(), self.status)


def not_found(message: str, param: str | None = None) -> ApiError:
    """Return the refusal of a name or a path that does not exist."""
    return ApiError(message, "NotFoundError", HTTPStatus.NOT_FOUND, param)


def internal_error(message: str) -> ApiError:
    """Return the refusal that vLLM makes of an error in its engine."""
    return ApiError(message, "InternalServerError", HTTPStatus.INTERNAL_SERVER_ERROR)


def add_error_handlers(app: FastAPI) -> None:
    """Answer refusals, malformed requests and unknown paths in that shape."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error.reply()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        faults = error.errors()
        count = "1 validation error" if len(faults) == 1 else f"{len(faults)} validation errors"
        where = ".".join(str(part) for part in faults[0]["loc"] if "[" not in str(part))
        message = f"{count}: {where}: {faults[0]['msg']}"
        return ApiError(message, "Bad Request", param=where).reply()

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        return ApiError(error.detail, status.phrase, status).reply()
