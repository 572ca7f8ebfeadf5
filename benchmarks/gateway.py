"""Rows POSTed to one gateway process as NDJSON: rate, and memory of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import psutil

from benchmarks.load import jobs
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

ROWS = 100_000

#: Bytes per chunk that the client sends.
_PIECE = 1 << 16

#: The memory of the gateway is sampled after this many outcomes.
_SAMPLE_EVERY = 1_000


def measure(stack: Stack, supervisor: Supervisor) -> dict[str, float]:
    """Return rows per second until every outcome is received, outcomes received before the last row was sent, and the
    gateway's memory in MB."""
    url = stack.start_gateway(webhooks=False)
    pid = supervisor.pid("web")
    # The client is a separate process, so that both have their own CPU time.
    command = [sys.executable, "-m", "benchmarks.gateway", url, str(pid)]
    env = {**os.environ, "VOICEQUEUE_API_KEY": str(stack.gateway_token())}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    if figures.pop("new") != ROWS:
        raise RuntimeError(f"the gateway did not accept {ROWS:,} rows")
    return figures


def post(url: str, gateway: psutil.Process) -> dict[str, float]:
    """Send all rows from one thread while another counts the outcomes."""
    body = b"".join(
        job.model_dump_json(exclude_defaults=True, exclude={"batch"}).encode() + b"\n" for job in jobs(ROWS, "posted")
    )
    sizes = [gateway.memory_info().rss]
    connection = HTTPConnection(urlsplit(url).netloc, timeout=120)
    sent_at: list[float] = []
    started = time.perf_counter()
    connection.putrequest("POST", "/v1/batches/posted/jobs")
    connection.putheader("Authorization", f"Bearer {os.environ['VOICEQUEUE_API_KEY']}")
    connection.putheader("Content-Type", "application/x-ndjson")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    sender = threading.Thread(target=_send, args=(connection, body, sent_at))
    sender.start()
    early, last = 0, b""
    for outcomes, last in enumerate(connection.getresponse(), start=1):  # noqa: B007  the last is the summary
        early += not sent_at
        if outcomes % _SAMPLE_EVERY == 0:
            sizes.append(gateway.memory_info().rss)
    seconds = time.perf_counter() - started
    sender.join()
    return {
        "new": json.loads(last)["summary"]["new"],
        "gateway, rows POSTed per second": ROWS / seconds,
        "gateway, outcomes received before the last row was sent": early,
        "gateway, MB of memory before": sizes[0] / 1e6,
        "gateway, MB of memory after a tenth": sizes[ROWS // 10 // _SAMPLE_EVERY] / 1e6,
        "gateway, MB of memory at its peak": max(sizes) / 1e6,
    }


def _send(connection: HTTPConnection, body: bytes, sent_at: list[float]) -> None:
    for piece in _pieces(body):
        connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    connection.send(b"0\r\n\r\n")
    sent_at.append(time.perf_counter())


def _pieces(body: bytes) -> Iterator[bytes]:
    return (body[start : start + _PIECE] for start in range(0, len(body), _PIECE))


if __name__ == "__main__":
    print(json.dumps(post(sys.argv[1], psutil.Process(int(sys.argv[2])))))
