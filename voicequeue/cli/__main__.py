"""Run the command line with `python -m voicequeue.cli`."""

from voicequeue.cli import main

main()
