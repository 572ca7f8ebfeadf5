"""Check the URLs of recordings before they are enqueued, without requesting or resolving anything."""

from voicequeue.ingest.links.checker import LinkChecker
from voicequeue.ingest.links.finding import Finding

__all__ = ["Finding", "LinkChecker"]
