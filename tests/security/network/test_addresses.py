"""Callers name URLs that this queue calls: none of them leads into its own network, or to a cloud's own services."""

from __future__ import annotations

import io
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.archive.downloader import Bounds, Fetcher, NotFetched
from tests.support.scripted import Scripted, answer, one_answer
from voicequeue.errors import UnfitAudio
from voicequeue.ingest.preflight import Recordings, Rules
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Refused, Target, Times, Unanswered, request

NOBODY = Allowed.of("", setting="S")
HASTY = Times(connect_s=0.3, whole_s=0.3)
PLAIN = ssl.create_default_context()

#: Where clouds serve their own machines.
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
    """Whatever the code does, no test connects to anything else."""
    connect = socket.socket.connect

    def guarded(end: socket.socket, address: Any) -> None:
        assert ip_address(address[0]).is_loopback, f"a connection to {address}"
        connect(end, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def dressed(address: IPv4Address) -> dict[str, IPv6Address]:
    """An IPv4 address in every form of IPv6 that carries one."""
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
    """Some of these are public addresses by their number."""
    assert NOBODY.why_not("metadata.example", CLOUDS[name]) is not None


@pytest.mark.parametrize("name", BEHIND_IPV4)
def test_no_form_of_ipv6_leads_to_a_clouds_own_service(name: str) -> None:
    """Mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP."""
    for form, address in dressed(IPv4Address(CLOUDS[name])).items():
        assert NOBODY.why_not("h", str(address)) is not None, form


@pytest.mark.parametrize("name", ["AWS: metadata", "Azure: wire server", "Equinix Metal", "Alibaba"])
def test_a_translator_with_a_prefix_of_its_own_leads_to_no_metadata(name: str) -> None:
    """NAT64 with an operator's prefix, which nothing here knows."""
    address = IPv6Address(int(IPv6Address("2a01:4f8:64::")) | int(IPv4Address(CLOUDS[name])))

    assert NOBODY.why_not("h", str(address)) is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_better_off_in_a_form_of_ipv6(address: IPv4Address) -> None:
    """What is refused as it is, is refused in each of them."""
    if NOBODY.why_not("h", str(address)):
        assert all(NOBODY.why_not("h", str(form)) for form in dressed(address).values())


@pytest.mark.parametrize("name", CLOUDS)
def test_a_host_that_is_allowed_may_not_lead_to_a_clouds_own_service(name: str) -> None:
    """Its DNS may be anybody's; the refusal says what would allow it."""
    allowed = Allowed.of("hooks.example", setting="S")

    assert allowed.why_not("hooks.example", "10.0.0.1") is None
    why = allowed.why_not("hooks.example", CLOUDS[name])
    assert why is not None
    assert why.endswith("which S does not name by its address")


@pytest.mark.parametrize("name", CLOUDS)
def test_a_wide_network_opens_no_clouds_service_and_its_own_address_does(name: str) -> None:
    """An operator allowed the network for what else is in it."""
    address = CLOUDS[name]
    wide = Allowed.of("0.0.0.0/0 ::/0 100.64.0.0/10 168.0.0.0/8 fc00::/7 160.0.0.0/3", setting="S")

    assert wide.why_not("h", "10.0.0.1") is None
    assert wide.why_not("h", address) is not None
    assert Allowed.of(address, setting="S").why_not("h", address) is None
    if address in BEHIND_IPV4.values():
        assert Allowed.of(address, setting="S").why_not("h", f"::ffff:{address}") is None


# ── spellings ─────────────────────────────────────────────────────────────────────────────────────

#: Hosts that are this machine, in the spellings that some resolver or URL parser takes.
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

#: Whole URLs in which one parser finds this machine, and another something else.
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


def sent(url: str, allowed: Allowed = NOBODY) -> str:
    """Send a request, which must be refused, or find no host; why."""
    with (
        pytest.raises((Refused, Unanswered)) as caught,
        request("GET", Target.of(url), headers={}, allowed=allowed, times=HASTY, tls=PLAIN),
    ):
        pytest.fail("there was an answer")
    return str(caught.value)


def test_no_spelling_of_this_machine_is_connected_to() -> None:
    """Whatever the URL, one parser reads it, and where it leads is checked; the reason names neither."""
    with Scripted(one_answer(answer("secret"))) as inside:
        port = inside.url.rpartition(":")[2]
        for url in (*(f"http://{host}:{port}/" for host in HERE), *(url.replace("{port}", port) for url in WHOLE)):
            why = sent(url)
            assert "127" not in why, url
            assert port not in why, url
    assert inside.accepted == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=30), st.sampled_from(["", "http://", "https://", "http://[", "http://a/"]))
def test_any_text_is_a_url_or_refused(text: str, start: str) -> None:
    """Half characters among them: none ends what reads it."""
    try:
        target = Target.of(start + text)
    except Refused:
        return
    assert target.path.isascii()
    assert target.path.isprintable()


# ── names and redirects ───────────────────────────────────────────────────────────────────────────


def leads_to(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Have the resolver give these addresses, one after the other; gives the hosts that were asked for."""
    asked, left = [], list(answers)

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = left.pop(0) if len(left) > 1 else left[0]
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


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
def test_a_name_counts_as_the_address_that_it_leads_to(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str
) -> None:
    """Names of clouds and clusters need no list."""
    leads_to(monkeypatch, address)

    assert sent(f"http://{host}/").startswith("its host leads to ")


def test_a_name_is_looked_up_once_and_what_was_checked_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leads to a moment later is of no use to an attacker."""
    with Scripted(one_answer(answer("here"))) as outside:
        port = outside.url.rpartition(":")[2]
        asked = leads_to(monkeypatch, "127.0.0.1", "169.254.169.254")
        target, allowed = Target.of(f"http://rebinding.example:{port}/"), Allowed.of("127.0.0.1", setting="S")
        with request("GET", target, headers={}, allowed=allowed, times=Times(), tls=PLAIN) as response:
            assert response.status == 200
    assert asked == ["rebinding.example"]


@pytest.mark.parametrize(
    "there", ["http://127.0.0.1:{port}/", "//127.1:{port}/", "http://168.63.129.16/", "http://[64:ff9b::a9fe:a9fe]/",
              "http://public.invalid\\@127.0.0.1:{port}/", "\thttp://0x7f.1:{port}/", "file:///etc/passwd", "http://["]
)  # fmt: skip
def test_no_redirect_leads_inside(there: str) -> None:
    """Of what is archived and what is looked at before it is ordered; each step is checked like the first."""
    allowed = Allowed.of("localhost", setting="S")
    with Scripted(one_answer(answer("secret"))) as inside:
        to = there.replace("{port}", inside.url.rpartition(":")[2])
        with Scripted(one_answer(answer("", status="302 Found", headers=[f"Location: {to}"]))) as outside:
            url = outside.url.replace("127.0.0.1", "localhost")
            with pytest.raises(NotFetched) as refused:
                Fetcher(allowed=allowed, bounds=Bounds()).fetch(url, io.BytesIO())
            with pytest.raises(UnfitAudio) as unfit:
                Recordings(Rules(allowed=allowed)).look(url)
    assert inside.accepted == 0
    assert refused.value.for_good
    assert unfit.value.kind == "forbidden_address"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It would connect to wherever it likes."""
    with Scripted(one_answer(answer("proxy"))) as proxy:
        monkeypatch.setenv(name, proxy.url)
        for url in ("http://127.0.0.1:1/", "https://127.0.0.1:1/", "http://public.invalid/"):
            sent(url)
    assert proxy.accepted == 0
