"""No-op applications for servers of HTTP: they take the body, and send a fixed answer."""

from __future__ import annotations

from typing import Any

ANSWER = bytes(64)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = bytearray()
    while True:
        event = await receive()
        body += event["body"]
        if not event["more_body"]:
            break
    headers = [(b"content-length", b"64")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


async def rsgi(scope: Any, protocol: Any) -> None:
    await protocol()
    protocol.response_bytes(200, [("content-type", "application/grpc")], ANSWER)
