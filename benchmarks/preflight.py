"""Bulk files: recordings checked by preflight, 1 % of them bad; a million rows, killed halfway; dry runs."""

from __future__ import annotations

import csv
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from multiprocessing import Process, Queue
from pathlib import Path
from typing import Any

import psutil

from benchmarks.load import write_csv
from voicequeue import VoiceQueue
from voicequeue.storage.connection.client import connect

ROWS, LOOKED_AT, DRY = 1_000_000, 10_000, 100_000

#: One row in a hundred is one of these; drip.wav is sent at a byte per second.
BAD = {
    "missing.wav": "http_error",
    "page.mp3": "wrong_format",
    "short.wav": "too_short",
    "cut.mp3": "truncated",
    "private.wav": "forbidden_address",
    "drip.wav": "too_slow",
}

_FRAME = b"\xff\xfb\x90\xc4" + bytes(413)


def _wav(seconds: int, rate: int = 8_000) -> bytes:
    sound = bytes(seconds * rate)
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate, 1, 8) + b"data" + struct.pack("<I", len(sound))
    return b"RIFF" + struct.pack("<I", len(head) + len(sound)) + head + sound


def _mp3(frames: int, announced: int) -> bytes:
    info = _FRAME[:4] + bytes(17) + b"Info" + struct.pack(">II", 1, announced)
    return info + bytes(len(_FRAME) - len(info)) + _FRAME * frames


class _Files(BaseHTTPRequestHandler):
    """Serves good recordings of 12 s, and the bad ones by name."""

    protocol_version = "HTTP/1.1"
    wav, mp3 = _wav(12), _mp3(500, 500)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2].partition("?")[0]
        if name == "missing.wav":
            self._send(b"", 404)
        elif name == "private.wav":
            self._send(b"", 302, Location="http://10.0.0.1/a.wav")
        elif name == "page.mp3":
            self._send(b"<!doctype html><html>Please sign in</html>")
        elif name == "short.wav":
            self._send(_wav(5))
        elif name == "cut.mp3":
            self._send(_mp3(200, 500))
        elif name == "drip.wav":
            self._drip()
        else:
            self._send(self.mp3 if name.endswith("mp3") else self.wav)

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.wav)))
        self.end_headers()
        with suppress(OSError):
            for byte in self.wav[:600]:
                self.wfile.write(bytes([byte]))
                time.sleep(1)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _serve(port: Queue[int]) -> None:
    server = _Server(("127.0.0.1", 0), _Files)
    port.put(server.server_port)
    server.serve_forever()


@dataclass(slots=True)
class _CommandResult:
    """The result of a command: its output, duration, and samples of its memory (bytes)."""

    output: dict[str, Any]
    seconds: float
    sizes: list[int]


def _ingest(
    file: Path, batch: str, *options: str, kill: Callable[[], bool] | None = None, **settings: str
) -> _CommandResult:
    command = [sys.executable, "-m", "voicequeue.cli", "ingest", str(file), "--batch", batch, "--json", *options]
    started, sizes = time.perf_counter(), []
    with subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.PIPE) as producer:
        process = psutil.Process(producer.pid)
        while producer.poll() is None:
            with suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info().rss)
            if kill is not None and kill():
                producer.send_signal(signal.SIGKILL)
                break
            time.sleep(0.1)
        output = producer.stdout.read() if producer.stdout else b""
    return _CommandResult(json.loads(output or b"{}"), time.perf_counter() - started, sizes)


def _check(holds: bool, details: object) -> None:
    if not holds:
        raise RuntimeError(f"unexpected result: {details}")


@contextmanager
def _file_server() -> Iterator[str]:
    port: Queue[int] = Queue()
    process = Process(target=_serve, args=(port,), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{port.get(timeout=10)}"
    process.terminate()
    process.join()


def measure(url: str, folder: Path, rows: int = ROWS) -> dict[str, float]:
    """Run all three measurements. Raises RuntimeError on a wrong count."""
    os.environ["REDIS_URL"] = url
    return _check_recordings(folder) | _dry_run(url, folder) | _resume_after_kill(url, folder, rows)


def _check_recordings(folder: Path) -> dict[str, float]:
    file = folder / "looked_at.csv"
    with _file_server() as server, file.open("w", encoding="utf-8", newline="") as text:
        table = csv.writer(text)
        table.writerow(["audio_url", "title", "prompt"])
        kinds, bad = cycle(BAD), dict.fromkeys(BAD.values(), 0)
        for number in range(LOOKED_AT):
            name = next(kinds) if number % 100 == 50 else ("a.wav", "b.mp3")[number % 2]
            bad |= {BAD[name]: bad[BAD[name]] + 1} if name in BAD else {}
            table.writerow([f"{server}/{number}/{name}", "A song", "la"])
        text.flush()
        result = _ingest(file, "looked", "--preflight", VOICEQUEUE_AUDIO_ALLOWED_HOSTS="127.0.0.1")
    _check(result.output["reasons"] == bad and result.output["new"] == LOOKED_AT - sum(bad.values()), result.output)
    with Path(result.output["rejected_file"]).open(encoding="utf-8", newline="") as text:
        kinds_rejected = [BAD[row["audio_url"].rpartition("/")[2]] for row in csv.DictReader(text)]
    _check(len(kinds_rejected) == sum(bad.values()), kinds_rejected)
    return {
        f"{LOOKED_AT:,} recordings checked, 1 % of them bad, s": result.seconds,
        "recordings per second": LOOKED_AT / result.seconds,
        "memory after a tenth, MB": result.sizes[len(result.sizes) // 10] / 1e6,
        "memory at its peak, MB": max(result.sizes) / 1e6,
    }


def _dry_run(url: str, folder: Path) -> dict[str, float]:
    file = folder / "dry.csv"
    write_csv(file, DRY)
    with VoiceQueue(url, namespace="*") as queue, connect(url) as redis:
        before = queue.status(), redis.dbsize()
        result = _ingest(file, "dry", "--dry-run")
        _check((queue.status(), redis.dbsize()) == before and result.output["new"] == DRY, result.output)
    enqueued = _ingest(file, "dry")
    _check(enqueued.output["new"] == DRY, enqueued.output)
    second_dry_run = _ingest(file, "dry", "--dry-run")
    _check(second_dry_run.output["existing"] == DRY, second_dry_run.output)
    return {
        f"dry run of {DRY:,} new rows, s": result.seconds,
        f"dry run of {DRY:,} known rows, s": second_dry_run.seconds,
    }


def _resume_after_kill(url: str, folder: Path, rows: int) -> dict[str, float]:
    file = folder / "rows.csv"
    write_csv(file, rows)
    progress_file = file.with_name(f"{file.name}.progress.json")
    lines = sum(1 for _ in file.open("rb"))

    def is_halfway() -> bool:
        return progress_file.exists() and json.loads(progress_file.read_text(encoding="utf-8"))["lines"] > lines / 2

    first = _ingest(file, "million", kill=is_halfway)
    second = _ingest(file, "million", "--resume")
    _check(second.output["new"] + second.output["existing"] == rows, second.output)
    with VoiceQueue(url, namespace="*") as queue:
        _check(queue.batch("million").total == rows, queue.batch("million"))
    return {
        f"first half of {rows:,} rows, until it was killed, s": first.seconds,
        "the rest, resumed, s": second.seconds,
        "rows that were sent twice": second.output["existing"],
        "memory of the resumed run after a tenth, MB": second.sizes[len(second.sizes) // 10] / 1e6,
        "its memory at its peak, MB": max(second.sizes) / 1e6,
    }
