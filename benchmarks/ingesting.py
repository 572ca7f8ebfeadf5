"""A million rows of CSV, and 100,000 of an Excel file, through `voicequeue ingest`: rate, and memory of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.load import write_csv, write_workbook

ROWS, EXCEL_ROWS = 1_000_000, 100_000


def measure(url: str, folder: Path, rows: int = ROWS) -> dict[str, float]:
    """Return rows per second, and the memory (MB) after a tenth of the time and at its peak."""
    csv_file, excel_file = folder / "rows.csv", folder / "rows.xlsx"
    write_csv(csv_file, rows)
    write_workbook(excel_file, min(rows, EXCEL_ROWS))
    excel = _ingest(url, excel_file, min(rows, EXCEL_ROWS))
    return _ingest(url, csv_file, rows) | {f"Excel: {name}": value for name, value in excel.items()}


def _ingest(url: str, file: Path, rows: int) -> dict[str, float]:
    batch = f"of{file.suffix}"
    command = [sys.executable, "-m", "voicequeue.cli", "ingest", str(file), "--batch", batch, "--json"]
    started = time.perf_counter()
    with subprocess.Popen(command, env={**os.environ, "REDIS_URL": url}, stdout=subprocess.PIPE) as producer:
        sizes = _watch(psutil.Process(producer.pid))
        output = producer.stdout.read() if producer.stdout else b""
    summary = json.loads(output)
    if summary["new"] != rows:
        raise RuntimeError(f"ingest accepted {summary}, not {rows} rows")
    after_a_tenth = sizes[len(sizes) // 10]
    return {
        "rows ingested per second": rows / (time.perf_counter() - started),
        "producer's memory after a tenth, MB": after_a_tenth / 1e6,
        "producer's memory at its peak, MB": max(sizes) / 1e6,
    }


def _watch(process: psutil.Process) -> list[int]:
    sizes = []
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        sizes.append(process.memory_info().rss)
        time.sleep(0.2)
    return sizes
