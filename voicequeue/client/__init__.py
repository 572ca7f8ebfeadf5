"""The queue as producers and operators use it: `VoiceQueue` and `AsyncVoiceQueue`."""
