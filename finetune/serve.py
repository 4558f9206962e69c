"""`python -m finetune.serve`: the answers of `finetune.predict` over HTTP.

    GET  /health    {"status": "ok", "tasks": {name: its labels}}
    POST /predict   {"requests": [{"text": …, "pair": …, "task": …}, …]} → {"answers": [[…], …]}

One list of answers per request: one answer, or one per task where no task is named. What can't be
answered gets a 4xx and {"error": what was found and expected}: a body over --max_body_bytes (413),
no JSON or another shape, over --max_requests texts, a text over --max_characters (422).
Needs the extra `serve`: pip install "latemask[serve]".
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from finetune.console import CommandParser, run
from finetune.errors import FinetuneError
from finetune.predict import add_model_flags

if TYPE_CHECKING:
    from finetune.serving.answers import Answerer

logger = logging.getLogger(__name__)


class Limits(BaseModel):
    """What one call may ask for."""

    max_body_bytes: int = 1_000_000
    max_requests: int = 256
    max_characters: int = 20_000


class Query(BaseModel):
    """One text to answer for."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: str | list[str]
    pair: str | None = None
    task: str | None = None

    def characters(self) -> int:
        """Length of everything to tokenize."""
        text = self.text if isinstance(self.text, str) else " ".join(self.text)
        return len(text) + len(self.pair or "")


class Call(BaseModel):
    """The body of /predict."""

    model_config = ConfigDict(extra="forbid", strict=True)
    requests: Annotated[list[Query], Field(min_length=1)]


class BodyLimit:
    """ASGI middleware: answers 413 as soon as a body is known to be over the limit, and reads no
    more of it, so that what a client may send bounds what the server holds.
    """

    def __init__(self, app: Any, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Count what `receive` brings; the header alone is enough where it says too much."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.limit:
            await self._refuse(send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client has left
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limit:
                await self._refuse(send)
                return
        pending = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Any:
            return pending.pop() if pending else await receive()

        await self.app(scope, replay, send)

    async def _refuse(self, send: Any) -> None:
        text = json.dumps({"error": f"body: expected at most {self.limit:,} bytes."}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": text})


def make_app(answerer: Answerer, limits: Limits) -> Any:
    """The FastAPI application; FinetuneError if FastAPI isn't installed."""
    try:
        from fastapi import FastAPI
        from fastapi import Request as HttpRequest
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import JSONResponse
        from starlette.exceptions import HTTPException
    except ImportError as error:
        raise FinetuneError(f'{error}: pip install "latemask[serve]".') from None
    from finetune.serving.answers import Request
    from finetune.serving.lines import json_values

    app = FastAPI(title="latemask", docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, limit=limits.max_body_bytes)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: HttpRequest, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        return JSONResponse({"error": f"{where}: {first['msg']}."}, status_code=422)

    @app.exception_handler(HTTPException)
    async def refused(request: HttpRequest, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, status_code=error.status_code)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "tasks": {n: head.labels for n, head in answerer.readouts.items()}}

    # A plain function: FastAPI runs it on a worker thread, so /health answers meanwhile.
    @app.post("/predict")
    def predict(call: Call) -> dict[str, Any]:
        if len(call.requests) > limits.max_requests:
            text = f"requests: found {len(call.requests)}, expected at most {limits.max_requests}."
            raise HTTPException(422, text)
        for index, query in enumerate(call.requests):
            if query.characters() > limits.max_characters:
                text = f"requests.{index}.text: expected at most {limits.max_characters:,} "
                raise HTTPException(422, text + "characters.")
        requests = [Request(query.text, query.pair, query.task) for query in call.requests]
        try:
            found = answerer.answer(requests)
        except FinetuneError as error:
            raise HTTPException(422, str(error)) from None
        answerer.warn_of_cut_texts()
        tasks = 1 if answerer.ensemble else len(answerer.readouts)
        answers = map(json_values, found)
        counts = [1 if request.task else tasks for request in requests]
        return {"answers": [[next(answers) for _ in range(count)] for count in counts]}

    return app


def main(command: Sequence[str]) -> None:
    """Run the command line `command` (without the program's name)."""
    parser = CommandParser(prog="python -m finetune.serve", description=__doc__)
    add_model_flags(parser)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    for name, field in Limits.model_fields.items():
        parser.add_argument(f"--{name}", type=int, default=field.default)
    args = parser.parse_args(command)
    limits = Limits(**{name: getattr(args, name) for name in Limits.model_fields})
    from finetune.serving.models import load

    app = make_app(load(args), limits)
    import uvicorn

    uvicorn.run(app, host=args.host, port=args.port, log_level="warning")


if __name__ == "__main__":
    run("serve", main)
