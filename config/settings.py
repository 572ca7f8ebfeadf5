"""The settings, from the environment and `.env`. A bad value names itself and says what is allowed."""

from __future__ import annotations

from base64 import b64decode
from functools import cache
from ipaddress import ip_network
from math import inf
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from voicequeue.auth.signatures import validate_secret
from voicequeue.storage.connection.redis_url import masked, validate_redis_url

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _secrets(given: SecretStr) -> SecretStr:
    for each in given.get_secret_value().split():
        begins, _, encoded = each.partition("whsec_")
        try:
            size = len(b64decode(encoded, validate=True))
        except ValueError:
            size = 0
        if begins or not 24 <= size <= 64:
            raise ValueError("must be whsec_ and 24 to 64 bytes in base64; several are separated by spaces")
    return given


def _secret(given: SecretStr) -> SecretStr:
    validate_secret(given.get_secret_value())
    return given


def _hosts_and_networks(given: str) -> str:
    for each in given.replace(",", " ").split():
        try:
            ip_network(each.strip("[]"), strict=False)
        except ValueError:
            if set(each) & set("/:@%*[]"):
                raise ValueError("must be names of hosts, addresses or networks such as 10.1.0.0/16") from None
    return given


def _storage(given: SecretStr) -> SecretStr:
    text = given.get_secret_value()
    if any(letter.isspace() for letter in text) or "::" in text or ".." in text.split("/"):
        raise ValueError("must be a folder, or a URL that fsspec knows such as s3://bucket/songs")
    return given


class BadSettings(SystemExit):
    """A setting has a value that is not allowed; the text names it."""


#: Seconds beyond its last answer in which a stopping worker writes it and ends.
STOP_MARGIN_S = 10.0


class Settings(BaseSettings):
    """Read once, never changed. Times are in seconds and may be fractions.

    What each one means stands in docs/configuration.md, which config/reference.py makes of these fields.
    """

    model_config = SettingsConfigDict(
        env_prefix="VOICEQUEUE_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    # Redis and MusicAPI
    redis_url: Annotated[str, AfterValidator(validate_redis_url)] = Field(
        "redis://localhost:6379/0",
        validation_alias="REDIS_URL",
        description="the one Redis or Valkey, for jobs and messages; give it a database of its own. "
        "`redis://[user:password@]host:port/database`, or `rediss://` for TLS",
    )
    prefix: str = Field(
        "voicequeue",
        pattern=r"^[A-Za-z0-9_.-]{1,40}$",
        description="begins every key in Redis, of jobs and of messages; two queues in one Redis database need two",
    )
    musicapi_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="MUSICAPI_KEY",
        description="the key of the account that pays; workers need it",
    )
    musicapi_base_url: str = Field(
        "https://api.musicapi.ai",
        validation_alias="MUSICAPI_BASE_URL",
        pattern=r"^https?://[^\s/]+",
        description="where MusicAPI is",
    )
    connect_timeout_s: Seconds = Field(5.0, description="how long one call to MusicAPI may take to connect")
    answer_timeout_s: Seconds = Field(30.0, description="how long it may take until it is answered in full")

    @property
    def stop_s(self) -> float:
        """Seconds that a worker may take to stop: one POST that just began, its answer written, and a margin."""
        return self.connect_timeout_s + self.answer_timeout_s + STOP_MARGIN_S

    # Gateway
    web_address: str = Field("127.0.0.1", validation_alias="WEB_ADDRESS", description="where the gateway listens")
    port: int = Field(8000, ge=0, le=65_535, validation_alias="PORT", description="its port")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+[^\s?#]*$",
        description="where MusicAPI reaches the gateway (`web`); without it there are no webhooks",
    )
    secret: Annotated[SecretStr, AfterValidator(_secret)] = Field(
        SecretStr(""),
        description="random text of at least 32 characters (`openssl rand -hex 32`); signs the webhook URLs, and "
        "callbacks unless they have a secret of their own. Required with the public URL, and the same for `worker` and "
        "`web`",
    )
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="who may call `/v1` of the gateway: `name:scope+scope:hash`, separated by commas, as `voicequeue "
        "keys new` prints them ([HTTP](http.md#keys)); without any only this machine is answered, with the local token",
    )
    local_token_file: Path | None = Field(
        None,
        description="a file with the local token, the key of a gateway without API keys ([HTTP](http.md#keys)); only "
        "the gateway's user may read it. `make up` makes it; without it such a gateway refuses every request",
    )

    # Pace
    max_in_flight: Count = Field(
        100, description="jobs that may be with upstream at once, at most; how many it bears is found out"
    )
    first_in_flight: Count = Field(10, description="how many may be at first")
    submit_rate: float | None = Field(
        None,
        ge=0.01,
        description="POSTs a minute, of all workers together; without it as many as upstream takes",
    )
    credit_floor: int = Field(0, ge=0, description="credits that are left on the account")
    credits_every_s: Seconds = Field(
        60.0,
        description="how often the account's credits are asked for, by one worker for all: so soon it goes on when "
        'credits were added. After "forbidden" or "pay" one job is tried sooner and ever later, at most after so many '
        "seconds",
    )
    cooldown_s: Seconds = Field(
        5.0,
        description='how long nothing is charged after "slow down" (unless it says how long, and to two jobs), and at '
        "first after five calls in a row without an answer, or two jobs that were refused alike",
    )
    chunk: int = Field(100, ge=1, le=500, description="job ids in one Celery message, at most")
    http_threads: int = Field(16, ge=1, le=128, description="calls to upstream at once in one worker process")

    # Jobs
    reuse: bool = Field(
        False,
        description="whether jobs that do not say so themselves [share their voice](voices.md) with others on the "
        "same recording, also with those made before",
    )
    voice_deadline_s: Seconds = Field(
        900.0, description="how long upstream may take for a voice before the job fails with `deadline`"
    )
    music_deadline_s: Seconds = Field(1800.0, description="how long it may take for a song")
    late_s: Seconds = Field(
        86_400.0,
        description="how long after its order a result that nobody waits for any more (cancelled, past its deadline) "
        "is still looked for, and kept",
    )
    charge_lease_s: Seconds = Field(
        90.0, description="how long a POST may take, claim to answer, before the job is `unsure`"
    )
    unsure: Literal["review", "resubmit"] = Field(
        "review",
        description="what becomes of an unsure job of which nothing is heard: `review` waits for a person, `resubmit` "
        "orders it again and may pay twice",
    )
    unsure_grace_s: Seconds = Field(1800.0, description="how long `resubmit` waits for a webhook")
    keep_days: float = Field(
        inf,
        gt=0,
        description="how long [jobs are kept](operations.md#how-long-jobs-are-kept) that are over, and with them their "
        "keys: whoever enqueues the same again after that pays again",
    )

    # Polling. Above 25 s a poll could outlive the broker's patience with messages that wait.
    poll_min_s: Seconds = Field(
        15.0,
        description="two polls of one order are at least so far apart until enough is known to plan them, "
        "[later](operations.md#planned-polls) at least a third of it. As much as `VOICEQUEUE_POLL_MAX_S`: always so "
        "far apart, nothing is planned",
    )
    poll_max_s: float = Field(25.0, gt=0, le=60, description="two polls of one order are at most so far apart")
    pulse_s: Seconds = Field(1.0, description="how often each worker admits jobs from the backlog")
    reconcile_s: Seconds = Field(5.0, description="how often each worker looks for overdue jobs")
    stale_s: Seconds = Field(10.0, description="how long past its time a job is overdue")

    # Callbacks
    callback_secret: Annotated[SecretStr, AfterValidator(_secrets)] = Field(
        SecretStr(""),
        description="signs [callbacks](callbacks.md#the-secret): `whsec_` and 24 to 64 bytes in base64; several are "
        "separated by spaces, and each signs. Each receiver's own follows from it. Without it, what follows from "
        "`VOICEQUEUE_SECRET` takes its place",
    )
    callback_allow: Annotated[str, AfterValidator(_hosts_and_networks)] = Field(
        "",
        description="hosts, addresses and networks that callbacks may go to [although they are not "
        "public](callbacks.md#where-callbacks-may-go)",
    )
    callback_for_s: Seconds = Field(
        86_400.0, description="how long a callback that fails is tried before it is kept as undelivered"
    )
    callback_first_s: Seconds = Field(
        5.0, description="how long after the first failure it is tried again; then each time three times as long"
    )
    callback_max_s: Seconds = Field(3600.0, description="the longest time between two tries")
    callback_connect_s: Seconds = Field(3.0, description="how long one try may take to find the receiver and connect")
    callback_answer_s: Seconds = Field(10.0, description="how long one try may take in all")
    callback_rest_s: Seconds = Field(
        30.0, description="how long a receiver is left alone that did not answer three times in a row"
    )

    # Archive
    archive: Annotated[SecretStr, AfterValidator(_storage)] = Field(
        SecretStr(""),
        description="where finished songs and covers are [kept](archive.md): a folder, or any other "
        "[fsspec](https://filesystem-spec.readthedocs.io) URL such as `s3://bucket/songs` (which may hold "
        "credentials). The same for every process. Without it they are not",
    )
    audio_allow: Annotated[str, AfterValidator(_hosts_and_networks)] = Field(
        "",
        description="hosts, addresses and networks (`10.1.0.0/16`), separated by commas or spaces, from which songs "
        "are [archived](archive.md) and recordings are [looked at](bulk.md#what-preflight-looks-at) although they are "
        "not public",
    )
    archive_for_s: Seconds = Field(
        259_200.0, description="how long songs that cannot be fetched or put away are tried: three days"
    )
    archive_first_s: Seconds = Field(
        30.0, description="how long after the first failure, then three times as long each time"
    )
    archive_max_s: Seconds = Field(21_600.0, description="the longest time between two tries")
    archive_connect_s: Seconds = Field(5.0, description="how long one file may take to connect")
    archive_silent_s: Seconds = Field(20.0, description="the longest silence that is borne while a file comes")
    archive_file_s: Seconds = Field(600.0, description="how long one file may take in all")
    archive_slowest: float = Field(
        4096.0, ge=0, description="bytes a second under which a download is given up for now, after 20 s; 0: never"
    )
    archive_max_bytes: Count = Field(200_000_000, description="what has more bytes is not fetched")
    archive_lease_s: Seconds = Field(
        60.0, description="how soon another process goes on with a job when the one that was at it has died"
    )

    # Logs
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="how processes [log](logs.md); `auto` is JSON where standard error is no terminal"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="what is logged at least")


@cache
def settings() -> Settings:
    """The process's settings, read once. Raises BadSettings."""
    return load()


def load() -> Settings:
    """The settings as they stand in the environment now. Raises BadSettings, which ends the process."""
    try:
        found = Settings()
    except ValidationError as error:
        raise BadSettings(explain(error)) from None
    if found.public_url and not found.secret.get_secret_value():
        raise BadSettings(
            "VOICEQUEUE_SECRET: is required with VOICEQUEUE_PUBLIC_URL; make one with: openssl rand -hex 32"
        )
    if found.poll_min_s > found.poll_max_s:
        raise BadSettings(
            f"VOICEQUEUE_POLL_MIN_S: {found.poll_min_s:g} is more than VOICEQUEUE_POLL_MAX_S, {found.poll_max_s:g}"
        )
    return found


def setting_names(*, secret: bool = True) -> frozenset[str]:
    """Return the names that settings have in the environment; without `secret`, only of those that are none."""
    return frozenset(
        _environment_name(str(field.validation_alias or name), "VOICEQUEUE_")
        for name, field in Settings.model_fields.items()
        if secret or field.annotation is not SecretStr
    )


def holds_secret(name: str, value: str) -> bool:
    """Return whether this value of a setting may be shown to nobody: a secret, or a URL with a login."""
    return name not in setting_names(secret=False) or masked(value) != value


def explain(error: ValidationError, *, prefix: str = "VOICEQUEUE_") -> str:
    """One line for each bad setting, by the name it has in the environment, without its value."""
    return "\n".join(
        f"{_environment_name(str(detail['loc'][0]), prefix)}: {detail['msg'].removeprefix('Value error, ')}"
        for detail in error.errors(include_url=False, include_input=False)
    )


def _environment_name(field: str, prefix: str) -> str:
    return field.upper() if field.upper() == field else prefix + field.upper()
