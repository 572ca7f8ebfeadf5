"""The jobs of the benchmarks: a typical song, about 600 bytes per job."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openpyxl

from voicequeue import Song, VoiceJob

LYRICS = "[Verse]\n" + "la la la a line of the song, as long as lines are\n" * 8

SONG = Song(prompt=LYRICS, title="A song", tags="warm folk, acoustic guitar")


def jobs(count: int, batch: str) -> Iterator[VoiceJob]:
    """Yield different jobs with a song and a key each, as bulk imports have them."""
    for number in range(count):
        url = f"https://recordings.example/{batch}/{number:07}.wav"
        yield VoiceJob(audio_url=url, song=SONG, batch=batch, key=f"{batch}-{number}")


def write_csv(path: Path, count: int) -> None:
    """Write a file with this many voices and songs."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(_rows(count))


def write_workbook(path: Path, count: int) -> None:
    """Write an Excel workbook with this many voices and songs."""
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("Voices")
    for row in _rows(count):
        sheet.append(row)
    workbook.save(path)


def _rows(count: int) -> Iterator[list[Any]]:
    yield ["audio_url", "title", "prompt", "tags", "mv", "metadata.row"]
    for number in range(count):
        url = f"https://recordings.example/voices/{number:07}.wav"
        yield [url, SONG.title, SONG.prompt, SONG.tags, SONG.mv, number]
