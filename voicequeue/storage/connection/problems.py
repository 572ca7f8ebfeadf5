"""Problems of a connection to Redis that an operator has to solve; the texts say how, and contain no secrets."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from redis.exceptions import ConnectionError
from redis.utils import str_if_bytes

#: OpenSSL's code in the text of an error.
_CODE: Final = re.compile(r"\[(?:\w+: )?(\w+)\]")

#: How an operator ends a failure of TLS, by OpenSSL's code.
_TLS_CURES: Final[Mapping[str, str]] = {
    "CERTIFICATE_VERIFY_FAILED": "if an authority of your own has signed the server's certificate, name its file in "
    "the Redis URL: ?ssl_ca_certs=/path/to/ca.pem",
    "WRONG_VERSION_NUMBER": "this port does not use TLS: name its TLS port, or use redis:// or sentinel://",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server requires a client certificate: ?ssl_certfile=…&ssl_keyfile=… in "
    "the Redis URL",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server does not accept the client certificate: check ssl_certfile in the Redis "
    "URL",
    "KEY_VALUES_MISMATCH": "ssl_keyfile is not the key of ssl_certfile: correct the Redis URL",
}

#: The cure of any other failure: most are files in another format.
_CHECK_FILES: Final = (
    "check ssl_ca_certs, ssl_certfile and ssl_keyfile in the Redis URL: PEM files that this process can read"
)

#: The servers that a queue cannot use, by the mode that they report, and what to do.
_UNUSABLE: Final[Mapping[str, str]] = {
    "cluster": "is a Cluster, which is not supported: use one primary, or sentinels that replace it",
    "sentinel": "is a sentinel: use sentinel://HOST:PORT/PRIMARY/0, with all sentinels, in the Redis URL",
}


#: Errors of OpenSSL by which the server has closed the connection without a reason.
CLOSED = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


class ConnectionProblem(ConnectionError):
    """A connection that could not be opened; the text is for operators."""


class TlsError(ConnectionProblem):
    """TLS with the server failed."""


class NoPrimaryError(ConnectionProblem):
    """No sentinel names a primary that can be used."""


class UnusableServerError(ConnectionProblem):
    """The server cannot keep a queue."""


@contextmanager
def tls_errors(host: str, port: int) -> Iterator[None]:
    """Raise TlsError for what is not a failure of the network: certificates and their files."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise TlsError(f"TLS with {host}:{port} failed: {error.strerror}; {_CHECK_FILES}") from None
    except CLOSED:
        raise
    except ssl.SSLError as error:
        raise tls_error(host, port, error) from None


def tls_error(host: str, port: int, error: ssl.SSLError) -> TlsError:
    """Return the error for an operator: OpenSSL's code, and what to do."""
    match = _CODE.search(str(error))
    code = error.reason or (match[1] if match else "unknown")
    detail = f" ({error.verify_message})" if isinstance(error, ssl.SSLCertVerificationError) else ""
    return TlsError(f"TLS with {host}:{port} failed: {code}{detail}; {_TLS_CURES.get(code, _CHECK_FILES)}")


def require_usable(reply: Any, host: str, port: int) -> None:
    """Raise UnusableServerError unless a server with this reply to HELLO can keep a queue."""
    items = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    mode = {str_if_bytes(name): str_if_bytes(value) for name, value in items}.get("mode")
    if mode in _UNUSABLE:
        raise UnusableServerError(f"{host}:{port} {_UNUSABLE[mode]}")
