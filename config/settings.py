"""The settings, from the environment and `.env`. A bad value names itself and says what is allowed."""

from __future__ import annotations

from base64 import b64decode
from functools import cache
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

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


class Settings(BaseSettings):
    """Read once, never changed. Times are in seconds and may be fractions."""

    model_config = SettingsConfigDict(
        env_prefix="VOICEQUEUE_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    #: The one Redis (or Valkey) for jobs and messages. Give it a database of its own.
    redis_url: str = Field("redis://localhost:6379/0", validation_alias="REDIS_URL")
    #: The key of the account that pays.
    musicapi_key: SecretStr = Field(SecretStr(""), validation_alias="MUSICAPI_KEY")
    musicapi_base_url: str = Field(
        "https://api.musicapi.ai", validation_alias="MUSICAPI_BASE_URL", pattern=r"^https?://[^\s/]+"
    )
    #: Every key in Redis begins with it; two queues in one Redis need two.
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")] = "voicequeue"

    #: Where upstream reaches the gateway; without it there are no webhooks.
    public_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+[^\s?#]*$")] | None = None
    #: Signs webhook URLs and everything else that only we may make.
    secret: SecretStr = SecretStr("")

    #: Who may call the gateway's /v1: name:scope+scope:hash, separated by commas, as `voicequeue keys new`
    #: prints them. Without any it answers this machine alone.
    api_keys: SecretStr = SecretStr("")

    #: How processes log: `auto` is JSON where standard error is no terminal.
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    #: What becomes of an unsure job of which nothing is heard: wait for a person, or order again (and
    #: perhaps pay twice).
    unsure: Literal["review", "resubmit"] = "review"
    #: How long after an answer was lost that is decided: webhooks may still come.
    unsure_grace_s: Seconds = 1800.0

    #: Jobs that may be with upstream at once, at most; how many it bears is found out, beginning with
    #: `first_in_flight`.
    max_in_flight: Count = 100
    first_in_flight: Count = 10
    #: POSTs a minute, of all workers together; without it as many as upstream takes.
    submit_rate: Annotated[float, Field(gt=0)] | None = None
    #: Credits that are left on the account.
    credit_floor: Annotated[int, Field(ge=0)] = 0
    #: Jobs that one Celery message carries at most.
    chunk: Annotated[int, Field(ge=1, le=500)] = 25
    #: Calls to upstream at once in one worker process.
    http_threads: Annotated[int, Field(ge=1, le=128)] = 8

    #: Two polls of one task are this far apart, at least and at most. Above 25 s a poll could
    #: outlive the broker's patience with messages that wait.
    poll_min_s: Seconds = 15.0
    poll_max_s: Annotated[float, Field(gt=0, le=60)] = 25.0

    #: How long upstream may take for a stage before the job fails with the code `deadline`.
    voice_deadline_s: Seconds = 900.0
    music_deadline_s: Seconds = 1800.0

    #: How long after its order a result that nobody waits for any more (cancelled, past its deadline) is
    #: still looked for, and kept.
    late_s: Seconds = 86_400.0

    #: How often each worker admits jobs from the backlog, and looks for work that nobody does.
    pulse_s: Seconds = 1.0
    reconcile_s: Seconds = 5.0
    #: How long after its due time a job is taken for forgotten.
    stale_s: Seconds = 10.0
    #: How long one POST may take, claim to answer, before it counts as lost.
    charge_lease_s: Seconds = 90.0
    #: One call to upstream: to connect, and to answer in full.
    connect_timeout_s: Seconds = 5.0
    answer_timeout_s: Seconds = 30.0
    #: How long nothing is charged after upstream said "slow down" or could not be reached.
    cooldown_s: Seconds = 5.0
    #: Whether jobs that do not say so themselves share their voice with others on the same recording, also with
    #: those made before.
    reuse: bool = False
    #: How often upstream is asked what is left on the account.
    credits_every_s: Seconds = 60.0

    #: What callbacks are signed with, by the Standard Webhooks spec; without it, what follows from `secret`.
    callback_secret: Annotated[SecretStr, AfterValidator(_secrets)] = SecretStr("")
    #: Hosts and networks that callbacks may go to although they are not public.
    callback_allow: Annotated[str, AfterValidator(_hosts_and_networks)] = ""
    #: How long callbacks that fail are tried, how long after the first failure, and at most how far apart.
    callback_for_s: Seconds = 86_400.0
    callback_first_s: Seconds = 5.0
    callback_max_s: Seconds = 3600.0
    #: One try: to connect, and the whole of it.
    callback_connect_s: Seconds = 3.0
    callback_answer_s: Seconds = 10.0
    #: How long a receiver that does not answer is left alone by all callbacks.
    callback_rest_s: Seconds = 30.0

    #: Where finished songs and covers are kept: a folder, or any other fsspec URL (which may hold credentials).
    archive: Annotated[SecretStr, AfterValidator(_storage)] = SecretStr("")
    #: Hosts and networks that songs may be fetched from although they are not public.
    audio_allow: Annotated[str, AfterValidator(_hosts_and_networks)] = ""
    #: How long songs that cannot be fetched are tried, how long after the first failure, and at most how far apart.
    archive_for_s: Seconds = 259_200.0
    archive_first_s: Seconds = 30.0
    archive_max_s: Seconds = 21_600.0
    #: One file: to connect, the silence that is borne, the whole of it, bytes a second, and its size in bytes.
    archive_connect_s: Seconds = 5.0
    archive_silent_s: Seconds = 20.0
    archive_file_s: Seconds = 600.0
    archive_slowest: Annotated[float, Field(ge=0)] = 4096.0
    archive_max_bytes: Count = 200_000_000
    #: How soon another process goes on with what one that died was at.
    archive_lease_s: Seconds = 60.0


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
        raise BadSettings("VOICEQUEUE_SECRET: is required with VOICEQUEUE_PUBLIC_URL; any long random text")
    if found.poll_min_s > found.poll_max_s:
        raise BadSettings(
            f"VOICEQUEUE_POLL_MIN_S: {found.poll_min_s:g} is more than VOICEQUEUE_POLL_MAX_S, {found.poll_max_s:g}"
        )
    return found


def explain(error: ValidationError, *, prefix: str = "VOICEQUEUE_") -> str:
    """One line for each bad setting, by the name it has in the environment, without its value."""
    return "\n".join(
        f"{_environment_name(str(detail['loc'][0]), prefix)}: {detail['msg'].removeprefix('Value error, ')}"
        for detail in error.errors(include_url=False, include_input=False)
    )


def _environment_name(field: str, prefix: str) -> str:
    return field.upper() if field.upper() == field else prefix + field.upper()
