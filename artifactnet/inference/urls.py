"""Fetching an image from the web, on behalf of somebody who may not be trusted with the network.

Only http and https; addresses of this machine and of private networks are refused, after every
redirect again, and the connection goes to the very address that was checked. Size, time and number
of redirects are limited. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from artifactnet.types import ArtifactNetError

MAX_BYTES = 100 << 20  # of an image file
TIMEOUT = 10.0  # seconds without an answer
TOTAL_TIMEOUT = 60.0  # seconds for one connection, however slowly its answer comes
MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 1 << 16  # bytes read at once
_KEPT = "/%:@!$&'()*+,;=~-._?"  # of paths and queries; all else is percent-encoded
_Address = tuple[str, int]


def is_url(text: str) -> bool:
    """Whether this is written as an address of the web."""
    return text.lower().startswith(("http://", "https://"))


def fetch_image(url: str, private: bool = False) -> bytes:
    """The content at a URL.

    Args:
        url: of http or https, without user name and password.
        private: allow addresses of this machine and of private networks.

    Raises:
        ArtifactNetError: whatever went wrong, without the URL, in one line.
    """
    target = url
    for _ in range(MAX_REDIRECTS + 1):
        try:
            found = _ask(target, private)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ArtifactNetError(f"cannot be fetched ({_words(error)})") from error
        if isinstance(found, bytes):
            return found
        target = urljoin(target, found)
    raise ArtifactNetError(f"more than {MAX_REDIRECTS} redirects")


def _ask(url: str, private: bool) -> bytes | str:
    """The content, or where a redirect leads."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ArtifactNetError(f"{parts.scheme or 'no scheme'} is not http or https: {url!r:.200}")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise ArtifactNetError("the URL must name a host, and no user or password")
    host = parts.hostname
    if ":" not in host:  # an IPv6 address stays as it is
        host = host.encode("idna").decode("ascii")
    address = _resolve(host, parts.port or _PORTS[parts.scheme], private)
    deadline = time.monotonic() + TOTAL_TIMEOUT
    connection = _Connection(parts.scheme, host, address)
    watchdog = threading.Timer(TOTAL_TIMEOUT, connection.interrupt)
    watchdog.daemon = True
    watchdog.start()
    try:
        return _answer(connection, parts)
    except (OSError, http.client.HTTPException, ArtifactNetError) as error:
        if time.monotonic() >= deadline:
            raise ArtifactNetError(f"not there after {TOTAL_TIMEOUT:g} s") from error
        raise
    finally:
        watchdog.cancel()
        connection.close()


def _answer(connection: _Connection, parts: SplitResult) -> bytes | str:
    path = quote(parts.path or "/", safe=_KEPT)
    query = f"?{quote(parts.query, safe=_KEPT)}" if parts.query else ""
    headers = {"User-Agent": "artifactnet", "Accept": "image/*,*/*;q=0.5"}
    connection.request("GET", path + query, headers=headers)  # asks for identity encoding
    response = connection.getresponse()
    location = response.getheader("Location")
    if response.status in _REDIRECTS and location:
        return location
    if response.status != 200:
        raise ArtifactNetError(f"the server answered {response.status}")
    announced = response.length  # None where the server does not say
    if announced is not None and announced > MAX_BYTES:
        raise ArtifactNetError(f"{announced} bytes are more than {MAX_BYTES}")
    content = bytearray()
    while piece := response.read1(_PIECE):
        content += piece
        if len(content) > MAX_BYTES:
            raise ArtifactNetError(f"more than {MAX_BYTES} bytes")
    if announced is not None and len(content) != announced:
        raise ArtifactNetError(f"broke off after {len(content)} of {announced} bytes")
    if not content:
        raise ArtifactNetError("the answer is empty")
    return bytes(content)


def _resolve(host: str, port: int, private: bool) -> _Address:
    """The address to connect to; all that the host has are checked."""
    found = [entry[4] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    addresses = [(str(address[0]), int(address[1])) for address in found]
    for address, _ in addresses:
        if not private and not _is_public(address):
            raise ArtifactNetError(f"{host} is {address}, which is no public address")
    return addresses[0]


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # an IPv4 address in another form: mapped, 6to4, Teredo or NAT64
        nat64 = address in ipaddress.ip_network("64:ff9b::/96")
        inner = address.ipv4_mapped or address.sixtofour or address.teredo
        if inner is not None or nat64:
            return False
    return address.is_global and not address.is_multicast


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was checked, whatever the host's name means by now."""

    def __init__(self, scheme: str, host: str, address: _Address) -> None:
        super().__init__(host, address[1], timeout=TIMEOUT)
        self.default_port = _PORTS[scheme]
        self._encrypted, self._address = scheme == "https", address

    def connect(self) -> None:
        """Connect, with a certificate of the host if it is encrypted."""
        self.sock = socket.create_connection(self._address, TIMEOUT)
        if self._encrypted:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    def interrupt(self) -> None:
        """End whatever waits for the server, in another thread."""
        if self.sock is not None:
            try:
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
            except OSError:
                return  # it has ended


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT:g} s"
    return " ".join(f"{getattr(error, 'strerror', None) or error}".split())[:200] or repr(error)
