"""All checks of a URL, and their cheap beginning: most URLs of a file are plain and of few hosts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from voicequeue.ingest.links.expiry import expiry_findings
from voicequeue.ingest.links.file_types import file_type_findings
from voicequeue.ingest.links.finding import Finding, Link
from voicequeue.ingest.links.hosts import host_finding
from voicequeue.ingest.links.share_pages import Rule, share_page, share_rule
from voicequeue.ingest.links.text import text_findings
from voicequeue.net.address_policy import AddressPolicy

#: A URL in which only the host can be wrong.
_PLAIN = re.compile(
    r"https?://([a-z0-9.-]+)/(?!(?:index\.php/)?(?:s|sharing|lnk)/)(?:[A-Za-z0-9/_~+-]++|%20(?!$))++(?:\.(?:mp3|wav))?"
)

#: Hosts remembered; a file with more is slower.
_HOSTS_MAX = 10_000


class LinkChecker:
    """Checks URLs of recordings without a request. `clock` returns Unix seconds.

    A host that the policy allows by its name is not judged.
    """

    def __init__(self, policy: AddressPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        #: By host: the finding about it, and the rule for its links.
        self._hosts: dict[str, tuple[Finding | None, Rule | None]] = {}
        #: Hosts with neither.
        self._plain_hosts: set[str] = set()

    def check(self, url: str) -> Finding | None:
        """Return why a valid URL cannot be used: the first certain finding, or the first doubtful one."""
        match = _PLAIN.fullmatch(url)
        if match and match[1] in self._plain_hosts:
            return None
        link = Link.parse(url)
        if link is None or self._policy.allows_name(link.host):
            return None
        first: Finding | None = None
        for finding in self._findings(url, link):
            if finding.is_certain:
                return finding
            first = first or finding
        return first

    def _findings(self, url: str, link: Link) -> Iterator[Finding]:
        finding, rule = self._of_host(link.host)
        if finding is not None:
            yield finding
        if (page := (rule or share_page)(link)) is not None:
            yield page
        yield from text_findings(url, link)
        yield from file_type_findings(link)
        if link.query:
            yield from expiry_findings(link, self._clock())

    def _of_host(self, host: str) -> tuple[Finding | None, Rule | None]:
        judgement = self._hosts.get(host)
        if judgement is None:
            if len(self._hosts) >= _HOSTS_MAX:
                self._hosts.clear()
                self._plain_hosts.clear()
            judgement = self._hosts[host] = (host_finding(host, self._policy), share_rule(host))
            if judgement == (None, None):
                self._plain_hosts.add(host)
        return judgement
