from voicequeue.cli import main

main()
