"""URLs from callers never lead into this queue's own network or to a cloud's internal services."""

from __future__ import annotations

import io
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.archive.downloader import Downloader, DownloadFailed, DownloadLimits
from tests.support.scripted import ScriptedServer, always, answer
from voicequeue.errors import InvalidAudioError
from voicequeue.ingest.preflight import RecordingChecker, RecordingRules
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_client import request
from voicequeue.net.http_types import HttpTimeouts, RequestFailed, Target, UrlNotAllowed

PUBLIC_ONLY = AddressPolicy.parse("", setting="S")
HASTY = HttpTimeouts(connect_s=0.3, total_s=0.3)
PLAIN = ssl.create_default_context()

#: Addresses of the internal services of clouds.
CLOUDS = {
    "AWS: metadata": "169.254.169.254",
    "AWS: metadata, IPv6": "fd00:ec2::254",
    "AWS: credentials of a task": "169.254.170.2",
    "AWS: credentials of a pod": "169.254.170.23",
    "AWS: credentials of a pod, IPv6": "fd00:ec2::23",
    "Azure: wire server": "168.63.129.16",
    "Alibaba": "100.100.100.200",
    "Alibaba, IPv6": "fd00:100::100:200",
    "Akamai, IPv6": "fd00:a9fe:a9fe::1",
    "Equinix Metal": "192.80.8.124",
    "Google, IPv6": "fd20:ce::254",
    "IBM: infrastructure": "161.26.0.10",
    "IBM: the first service endpoint": "166.8.0.0",
    "IBM: the last service endpoint": "166.11.255.255",
    "OpenStack, IPv6": "fe80::a9fe:a9fe",
    "Oracle Classic": "192.0.0.192",
    "Oracle, IPv6": "fd00:c1::a9fe:a9fe",
    "Scaleway": "169.254.42.42",
    "Scaleway, IPv6": "fd00:42::42",
    "Tencent": "169.254.0.23",
}
BEHIND_IPV4 = {name: address for name, address in CLOUDS.items() if ":" not in address}


@pytest.fixture(autouse=True)
def on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that would connect to another machine."""
    connect = socket.socket.connect

    def guarded(end: socket.socket, address: Any) -> None:
        if end.family in (socket.AF_INET, socket.AF_INET6):
            assert ip_address(address[0]).is_loopback, f"a connection to {address}"
        connect(end, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def ipv6_forms(address: IPv4Address) -> dict[str, IPv6Address]:
    """Return an IPv4 address in every form of IPv6 that embeds one."""
    number = int(address)
    prefix = int(IPv6Address("2606:4700::"))
    return {
        "mapped": IPv6Address(0xFFFF << 32 | number),
        "compatible": IPv6Address(number),
        "translated": IPv6Address(0xFFFF << 48 | number),
        "NAT64": IPv6Address(0x64FF9B << 96 | number),
        "local NAT64, /96": IPv6Address(0x64FF9B0001 << 80 | number),
        "local NAT64, /48": IPv6Address(0x64FF9B0001 << 80 | (number >> 16) << 64 | (number & 0xFFFF) << 40),
        "6to4": IPv6Address(0x2002 << 112 | number << 80),
        "Teredo": IPv6Address(0x20010000 << 96 | 0x01010101 << 64 | number ^ 0xFFFFFFFF),
        "ISATAP": IPv6Address(prefix | 0x5EFE << 32 | number),
        "ISATAP, global": IPv6Address(prefix | 0x02005EFE << 32 | number),
    }


@pytest.mark.parametrize("name", CLOUDS)
def test_no_request_goes_to_a_clouds_own_service(name: str) -> None:
    """Some of them are public addresses by their number."""
    assert PUBLIC_ONLY.objection("metadata.example", CLOUDS[name]) is not None


@pytest.mark.parametrize("name", BEHIND_IPV4)
def test_no_form_of_ipv6_leads_to_a_clouds_own_service(name: str) -> None:
    """Mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP."""
    for form, address in ipv6_forms(IPv4Address(CLOUDS[name])).items():
        assert PUBLIC_ONLY.objection("h", str(address)) is not None, form


@pytest.mark.parametrize("name", ["AWS: metadata", "Azure: wire server", "Equinix Metal", "Alibaba"])
def test_nat64_with_an_unknown_prefix_leads_to_no_metadata(name: str) -> None:
    """An operator's own NAT64 prefix, which the code cannot know."""
    address = IPv6Address(int(IPv6Address("2a01:4f8:64::")) | int(IPv4Address(CLOUDS[name])))

    assert PUBLIC_ONLY.objection("h", str(address)) is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.ip_addresses(v=4))
def test_a_rejected_ipv4_address_is_rejected_in_every_form_of_ipv6(address: IPv4Address) -> None:
    """For any IPv4 address."""
    if PUBLIC_ONLY.objection("h", str(address)):
        assert all(PUBLIC_ONLY.objection("h", str(form)) for form in ipv6_forms(address).values())


@pytest.mark.parametrize("name", CLOUDS)
def test_an_allowed_host_may_not_lead_to_a_clouds_own_service(name: str) -> None:
    """Its DNS may be controlled by others; the error says what would allow it."""
    allowed = AddressPolicy.parse("hooks.example", setting="S")

    assert allowed.objection("hooks.example", "10.0.0.1") is None
    reason = allowed.objection("hooks.example", CLOUDS[name])
    assert reason is not None
    assert reason.endswith("which S does not allow by its address")


@pytest.mark.parametrize("name", CLOUDS)
def test_an_allowed_network_excludes_cloud_services_unless_named_by_address(name: str) -> None:
    """An operator allows a network for its other hosts."""
    address = CLOUDS[name]
    wide = AddressPolicy.parse("0.0.0.0/0 ::/0 100.64.0.0/10 168.0.0.0/8 fc00::/7 160.0.0.0/3", setting="S")

    assert wide.objection("h", "10.0.0.1") is None
    assert wide.objection("h", address) is not None
    assert AddressPolicy.parse(address, setting="S").objection("h", address) is None
    if address in BEHIND_IPV4.values():
        assert AddressPolicy.parse(address, setting="S").objection("h", f"::ffff:{address}") is None


# ── spellings ─────────────────────────────────────────────────────────────────────────────────────

#: Hosts that mean this machine, in spellings that some resolver or URL parser accepts.
HERE = [
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.255.255.254", "0x7f.1", "0x7f000001", "0X7F.0.0.1",
    "2130706433", "017700000001", "0177.0.0.1", "0177.0x0.0.1", "0", "0.0.0.0", "00.0.0.0", "localhost", "LocalHost",
    "localhost.", "①②⑦.⓪.⓪.①", "127。0。0。1", "１２７.0.0.1", "ⓁⓄⒸⒶⓁⒽⓄⓈⓉ", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]",
    "[::1%lo]", "[::1%25lo]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[0:0:0:0:0:ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2606:4700::5efe:127.0.0.1]", "%31%32%37.0.0.1", "127.0.0.1%00.invalid",
    "127.0.0.1%2f.invalid", "user@127.0.0.1", "user:secret@127.0.0.1", "public.invalid@127.0.0.1", "a@b@127.0.0.1",
    "public.invalid\\@127.0.0.1", "public.invalid%2f@127.0.0.1", "public.invalid%23@127.0.0.1", "127.0.0.1\t",
    "127.0.\n0.1", "\t127.0.0.1",
]  # fmt: skip

#: Whole URLs that parsers disagree about: for some, the host is this machine.
WHOLE = [
    "http://127.0.0.1:{port}\\@public.invalid/",
    "http://127.0.0.1:{port}#@public.invalid/",
    "http://public.invalid#@127.0.0.1:{port}/",
    "http://public.invalid?@127.0.0.1:{port}/",
    "http://public.invalid/@127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\.public.invalid/",
    "http://127.0.0.1:{port} /",
    "http://127.0.0.1 :{port}/",
    "http://[::ffff:127.0.0.1]:{port}@public.invalid/",
    "http://\ud800.invalid/",
    "http://public.invalid/\ud800",
    "http://\ud800@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/?\udfff",
    "http://public.invalid:٨٠/",
    "http://[v1.a]/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET",
    "http://",
    "http://@/",
    "http://.",
    "http://..invalid/",
]


def refusal(url: str, allowed: AddressPolicy = PUBLIC_ONLY) -> str:
    """Send a request that must be rejected or find no host; return the reason."""
    with (
        pytest.raises((UrlNotAllowed, RequestFailed)) as raised,
        request("GET", Target.parse(url), headers={}, policy=allowed, timeouts=HASTY, tls=PLAIN),
    ):
        pytest.fail("there was an answer")
    return str(raised.value)


def test_no_spelling_of_this_machine_is_connected_to() -> None:
    """For any URL one parser decides, and the resolved address is checked; the reason names neither."""
    with ScriptedServer(always(answer("secret"))) as inside:
        port = inside.url.rpartition(":")[2]
        for url in (*(f"http://{host}:{port}/" for host in HERE), *(url.replace("{port}", port) for url in WHOLE)):
            reason = refusal(url)
            assert "127" not in reason, url
            assert port not in reason, url
    assert inside.accepted == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=30), st.sampled_from(["", "http://", "https://", "http://[", "http://a/"]))
def test_any_text_is_a_url_or_rejected(text: str, start: str) -> None:
    """Half characters included: no text causes another error."""
    try:
        target = Target.parse(start + text)
    except UrlNotAllowed:
        return
    assert target.path.isascii()
    assert target.path.isprintable()


# ── names and redirects ───────────────────────────────────────────────────────────────────────────


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Make the resolver return these addresses, one after the other; return the hosts that it was asked for.

    A caller that resolves an address instead of a name, such as a Redis client in another thread, gets the real answer.
    """
    hosts, remaining = [], list(answers)
    really = socket.getaddrinfo

    def resolve(host: str, port: int, *more: Any, **named: Any) -> list[Any]:
        if host[-1].isdigit():
            return really(host, port, *more, **named)
        hosts.append(host)
        address = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return hosts


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("metadata.google.internal", "169.254.169.254"),
        ("metadata.tencentyun.com", "169.254.0.23"),
        ("metadata.platformequinix.com", "192.80.8.124"),
        ("kubernetes.default.svc", "10.96.0.1"),
        ("recordings.example", "168.63.129.16"),
    ],
)
def test_a_name_is_checked_by_its_address(monkeypatch: pytest.MonkeyPatch, host: str, address: str) -> None:
    """Names of clouds and clusters need no list."""
    resolve_to(monkeypatch, address)

    assert refusal(f"http://{host}/").startswith("its host resolves to ")


def test_a_name_is_resolved_once_and_the_checked_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of the DNS answer does not help an attacker."""
    with ScriptedServer(always(answer("here"))) as outside:
        port = outside.url.rpartition(":")[2]
        hosts = resolve_to(monkeypatch, "127.0.0.1", "169.254.169.254")
        target, allowed = (
            Target.parse(f"http://rebinding.example:{port}/"),
            AddressPolicy.parse("127.0.0.1", setting="S"),
        )
        with request("GET", target, headers={}, policy=allowed, timeouts=HttpTimeouts(), tls=PLAIN) as response:
            assert response.status == 200
    assert hosts == ["rebinding.example"]


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{port}/", "//127.1:{port}/", "http://168.63.129.16/", "http://[64:ff9b::a9fe:a9fe]/",
              "http://public.invalid\\@127.0.0.1:{port}/", "\thttp://0x7f.1:{port}/", "file:///etc/passwd", "http://["]
)  # fmt: skip
def test_no_redirect_leads_inside(location: str) -> None:
    """In the archive and in the preflight; each step is checked like the first."""
    allowed = AddressPolicy.parse("localhost", setting="S")
    with ScriptedServer(always(answer("secret"))) as inside:
        target = location.replace("{port}", inside.url.rpartition(":")[2])
        with ScriptedServer(always(answer("", status="302 Found", headers=[f"Location: {target}"]))) as outside:
            url = outside.url.replace("127.0.0.1", "localhost")
            with pytest.raises(DownloadFailed) as rejected:
                Downloader(allowed=allowed, bounds=DownloadLimits()).download(url, io.BytesIO())
            with pytest.raises(InvalidAudioError) as unfit:
                RecordingChecker(RecordingRules(policy=allowed)).check(url)
    assert inside.accepted == 0
    assert rejected.value.is_permanent
    assert unfit.value.kind == "forbidden_address"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It could connect to any address."""
    with ScriptedServer(always(answer("proxy"))) as proxy:
        monkeypatch.setenv(name, proxy.url)
        for url in ("http://127.0.0.1:1/", "https://127.0.0.1:1/", "http://public.invalid/"):
            refusal(url)
    assert proxy.accepted == 0
