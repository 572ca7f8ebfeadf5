"""A plain script: enqueue two voices, wait, and print their songs.

    python docs/examples/script.py

Needs the package (`pip install .`) and REDIS_URL.
"""

from voicequeue import Song, VoiceJob, VoiceQueue

RECORDINGS = {"Ana": "https://example.com/ana.wav", "Bo": "https://example.com/bo.wav"}

with VoiceQueue() as queue:
    jobs = [
        queue.enqueue(
            VoiceJob(
                audio_url=url,
                name=name,
                song=Song(title=f"{name}'s song", prompt="[Verse]\nThe harbour lights are counting ships"),
                key=f"script-{name}",  # a second run returns these jobs and pays for nothing
            )
        )
        for name, url in RECORDINGS.items()
    ]
    for job in jobs:
        done = queue.wait(job.id, timeout=900)
        print(done.spec.name, done.state, *(clip.audio_url for clip in done.clips))
