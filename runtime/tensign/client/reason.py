"""What gRPC says of a connection that failed, in the words of whoever has to mend it."""

from __future__ import annotations

import re

_NO_CONNECTION = "failed to connect to all addresses"
_BROKEN = re.compile(
    r"Socket closed|Connection closed|recvmsg:|sendmsg:|GOAWAY|Stream removed|keepalive|Broken pipe|reset by peer"
    r"|endpoint closing"
)
_HTTP = re.compile(r"Received http2 header with status: (\d+)")

_CAUSES = (
    (r"errors resolving .*(Domain name not found|Name or service not known)", "no such host name"),
    (r"errors resolving .*?(?:lookup failed for [^:]*(?::\d+)?: )(?P<cause>[^\]]+)", "the name cannot be resolved: {cause}"),
    (r"Failed to connect to remote host: (?P<cause>.+)", "{cause}"),
    (
        r"CERTIFICATE_VERIFY_FAILED: (?P<cause>[^:]+)",
        "its certificate is not trusted ({cause}); name its authority with tls/--ca",
    ),
    (r"Hostname Verification", "its certificate is for another host name"),
    (r"WRONG_VERSION_NUMBER", "it does not speak TLS; connect without"),
    (r"ALPN", "it speaks TLS, but no HTTP/2, so it is no gRPC server; perhaps this is an HTTPS port"),
    (r"Tls handshake failed[^:]*: (?P<cause>.+)", "the TLS handshake failed: {cause}"),
    (r"Failed parsing HTTP/2", "what answers there is no gRPC server{tls}; perhaps this is the HTTP port"),
    (r"[Rr]eset by peer|Socket closed|Connection closed|endpoint closing|EOF", "it closed the connection at once{plain}"),
)


def reason(said: str, *, tls: bool) -> str:
    """`said` by gRPC of a call that found no server -> what to tell; the server's own words stay as they are."""
    if http := _HTTP.search(said):
        return f"it answers with HTTP status {http[1]}, so it is no gRPC server, or a proxy that finds none"
    if not said.startswith((_NO_CONNECTION, "errors resolving")):
        return "the connection broke" if _BROKEN.search(said) else said
    hints = {"tls": "" if tls else " that speaks without TLS", "plain": "" if tls else "; perhaps it wants TLS"}
    for pattern, text in _CAUSES:
        if found := re.search(pattern, said):
            return "cannot connect: " + text.format(**hints, **found.groupdict())
    return f"cannot connect: {said.removeprefix(_NO_CONNECTION).removeprefix('; last error: ') or 'no answer'}"
