"""Archives songs: downloads the files behind upstream's links before they expire, and stores copies.

- `file_types`: the type of a file, by its content
- `downloader`: one complete file from a link
- `storage`: where files are stored: a folder, or any storage that fsspec supports
- `task`: the step behind the task `song.archive`
"""
