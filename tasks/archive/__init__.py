"""Keeps songs: fetches what upstream's links lead to while they live, and puts it where it stays.

- `kinds`: what a file is, by what is in it
- `fetcher`: one file behind a link, whole, or the reason why not
- `shelf`: where files are put, a folder or whatever else fsspec knows
- `keep`: the step behind the task `song.archive`
"""
