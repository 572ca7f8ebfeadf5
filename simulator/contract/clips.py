"""The two clips of a song, and their fields at any moment of their task."""

from dataclasses import dataclass
from datetime import UTC, datetime

from simulator.contract.chance import Chance, derived_uuid
from simulator.contract.ledger import Task

#: The fractions of a task's time after which its clips leave `pending`, start streaming, and the first one is done.
RUNS_AT, STREAMS_AT, FIRST_DONE_AT = 0.3, 0.7, 0.9

#: A clip's duration depends on its task alone, not on the simulator's seed.
_DURATIONS = Chance(0)


def moment_of(share: float, task: Task) -> float:
    """Return the moment (Unix seconds) when this fraction of a task's time has passed."""
    return task.at + share * (task.ready_at - task.at)


def streams_from(task: Task) -> float:
    """Return the moment (Unix seconds) when a task's clips start streaming."""
    return moment_of(STREAMS_AT, task)


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip of a task. All its fields are derived from the task, so none is stored."""

    task: Task
    number: int

    def at(self, moment: float) -> dict[str, object]:
        """Return the clip as the API shows it at a moment (Unix seconds), with all fields of the contract."""
        state = self.state(moment)
        song, done = self.task.song, state == "succeeded" and moment >= self.task.links_at
        clip_id = derived_uuid(self.task.task_id, "clip", self.number)
        media = f"{self.task.base}/media/{clip_id}"
        return {
            "clip_id": clip_id,
            "title": song.title,
            "tags": song.tags,
            "lyrics": song.lyrics,
            "image_url": f"{media}.png" if done else "",
            "audio_url": f"{media}.mp3" if done or state == "streaming" else "",
            "video_url": f"{media}.mp4" if done else "",
            "created_at": datetime.fromtimestamp(self.task.at, UTC).isoformat(timespec="milliseconds"),
            "mv": song.mv,
            "duration": self._duration(clip_id) if done else None,
            "state": state,
        }

    def state(self, moment: float) -> str:
        """Return the state at a moment. The first clip of a song may succeed before the second."""
        task = self.task
        if moment >= task.ready_at:
            return self._last_state()
        # Moments are compared, not fractions, so that a clip streams exactly from streams_from on.
        if moment < moment_of(RUNS_AT, task):
            return "pending"
        # Failing tasks and voices never stream.
        if moment < streams_from(task) or task.fails or task.kind == "voice":
            return "running"
        return "succeeded" if moment >= moment_of(FIRST_DONE_AT, task) and self.number == 0 else "streaming"

    def _last_state(self) -> str:
        task = self.task
        if task.fails:
            return "failed"
        if self.number == 1 and (task.clip_fails or task.clip_stalls):
            return "running" if task.clip_stalls else task.clip_word
        return "succeeded"

    def _duration(self, clip_id: str) -> float:
        return round(120 + 80 * _DURATIONS.fraction(clip_id), 2)
