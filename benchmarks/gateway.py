"""Rows POSTed to one gateway process as NDJSON, and that process's memory while they come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import requests

from benchmarks.load import jobs
from workers.stack import Stack
from workers.supervisor import Supervisor

ROWS = 100_000

#: Bytes that the client sends at once.
_PIECE = 1 << 16


def measure(stack: Stack, supervisor: Supervisor) -> dict[str, float]:
    """Rows a second, until every outcome is there; the gateway's memory (MB) before, and at its peak."""
    web = stack.start_web(webhooks=False)
    pid = supervisor.pid("web")
    if pid is None:
        raise RuntimeError("the gateway is not there")
    gateway = psutil.Process(pid)
    before = gateway.memory_info().rss
    command = [sys.executable, "-m", "benchmarks.gateway", f"{web}/v1/batches/posted/jobs"]
    sizes = []
    # The client is a process of its own, so that neither takes the other's time.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as client:
        while client.poll() is None:
            sizes.append(gateway.memory_info().rss)
            time.sleep(0.05)
        told = json.loads(client.stdout.read() if client.stdout else "")
    if (told["new"], told["outcomes"]) != (ROWS, ROWS):
        raise RuntimeError(f"the gateway took {told}, not {ROWS} rows")
    return {
        "rows POSTed a second": ROWS / told["seconds"],
        "gateway's memory before, MB": before / 1e6,
        "gateway's memory at its peak, MB": max(sizes) / 1e6,
    }


def post(url: str) -> dict[str, float]:
    """Send all rows and count what comes back."""
    body = "".join(job.model_dump_json(exclude_defaults=True, exclude={"batch"}) + "\n" for job in jobs(ROWS, "posted"))
    began = time.perf_counter()
    headers = {"Content-Type": "application/x-ndjson"}
    with requests.post(url, _pieces(body.encode()), headers=headers, stream=True, timeout=300) as answer:
        *outcomes, last = answer.iter_lines(1 << 16)
    return {
        "new": json.loads(last)["summary"]["new"],
        "outcomes": len(outcomes),
        "seconds": time.perf_counter() - began,
    }


def _pieces(body: bytes) -> Iterator[bytes]:
    return (body[start : start + _PIECE] for start in range(0, len(body), _PIECE))


if __name__ == "__main__":
    print(json.dumps(post(sys.argv[1])))
