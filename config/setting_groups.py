"""The settings by group: names, defaults, limits and descriptions. config/settings.py puts them together.

The descriptions are the tables of docs/reference/configuration.md (`make docs`).
"""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.secret_source import SecretFileSource
from config.setting_checks import (
    check_buckets,
    check_callback_secrets,
    check_hosts_and_networks,
    check_secret,
    check_storage,
)
from voicequeue.auth.signatures import parse_secrets
from voicequeue.domain.gate import SUBMIT_RATE_MIN
from voicequeue.storage.connection.redis_url import validate_redis_url

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class EnvironmentSettings(BaseSettings):
    """Settings of the environment, `.env`, and files of secrets. Read once, never changed."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, the most important source first."""
        return init_settings, SecretFileSource(settings_cls, dotenv_settings), env_settings, dotenv_settings


class SettingGroup(EnvironmentSettings):
    """One group of settings; `title` is its heading in the documentation."""

    model_config = SettingsConfigDict(env_prefix="VOICEQUEUE_")
    title: ClassVar[str]


class ConnectionSettings(SettingGroup):
    """Redis, and MusicAPI with its timeouts."""

    title = "Redis and MusicAPI"

    redis_url: Annotated[str, AfterValidator(validate_redis_url)] = Field(
        "redis://localhost:6379/0",
        validation_alias="REDIS_URL",
        description="The Redis or Valkey that stores jobs and messages: `redis://[user:password@]host:port/database`, "
        "`rediss://` for TLS, or `sentinel://[user:password@]host:port,host:port/primary/database` where sentinels "
        "[replace a primary](../guides/redis-failover.md) that fails. Give the queue a database of its own.",
    )
    replicas_ack: int = Field(
        0,
        ge=0,
        le=10,
        description="Number of replicas of Redis that must have recorded that an order is about to be sent, before it "
        "is sent, and a change before its caller gets the reply. Where sentinels replace a primary that fails: the "
        "number of its replicas, so that a failover cannot forget a charge. 0: none "
        "([more](../guides/redis-failover.md)).",
    )
    prefix: str = Field(
        "voicequeue",
        pattern=r"^[A-Za-z0-9_.-]{1,40}$",
        description="Prefix of every key in Redis, of jobs and messages. Queues that share a Redis database need "
        "different prefixes.",
    )
    musicapi_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="MUSICAPI_KEY",
        description="API key of the MusicAPI account that pays. Required by workers.",
    )
    musicapi_base_url: str = Field(
        "https://api.musicapi.ai",
        validation_alias="MUSICAPI_BASE_URL",
        pattern=r"^https?://[^\s/]+",
        description="Base URL of MusicAPI. Change it to use the simulator.",
    )
    upstream_connect_timeout_s: Seconds = Field(5.0, description="Timeout for connecting to MusicAPI, in seconds.")
    upstream_response_timeout_s: Seconds = Field(
        30.0,
        description="Timeout for MusicAPI's complete response, in seconds. A worker may take this and the connect "
        "timeout to stop: raise the grace period of your process manager with it.",
    )


class GatewaySettings(SettingGroup):
    """The HTTP gateway (`web`): its address and its keys."""

    title = "Gateway"

    web_address: str = Field(
        "127.0.0.1", validation_alias="WEB_ADDRESS", description="Address that the gateway listens on."
    )
    port: int = Field(8000, ge=0, le=65_535, validation_alias="PORT", description="Port that the gateway listens on.")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+[^\s?#]*$",
        description="URL at which MusicAPI reaches the gateway. Unset: no webhooks; results arrive by polling alone.",
    )
    flower_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+[^\s?#]*$",
        description="URL of [Flower](../guides/flower.md) for users of the job page. Unset: no links to it.",
    )
    secret: Annotated[SecretStr, AfterValidator(check_secret)] = Field(
        SecretStr(""),
        description="Random text of at least 32 characters (`openssl rand -hex 32`) that signs webhook URLs, and "
        "callbacks unless `VOICEQUEUE_CALLBACK_SECRET` is set, and proves logins to the page. Required with "
        "`VOICEQUEUE_PUBLIC_URL`; the same for `worker` and `web`. To "
        "[rotate](../guides/rotate-secrets.md#rotate-the-common-secret) it, "
        "set the new value, a comma, and the old one: the first signs, both are accepted.",
    )
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="API keys of the gateway's `/v1`: `name:scope+scope:hash`, separated by commas, as `voicequeue "
        "keys new --print-only` prints them ([HTTP](http-rules.md#keys)). Unset, and without keys in Redis: the "
        "gateway answers this machine only, and requires the local token.",
    )
    local_token_file: Path | None = Field(
        None,
        description="File with the local token, the key of a gateway without API keys "
        "([HTTP](http-rules.md#keys)). Only the gateway's user may have access. `make up` "
        "creates it; without it such a gateway refuses every request.",
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of `VOICEQUEUE_SECRET`: the one that signs, then the old one while it is rotated."""
        return parse_secrets(self.secret.get_secret_value())

    @property
    def signing_secret(self) -> str:
        """The value of `VOICEQUEUE_SECRET` that signs; '' if none is set."""
        return next(iter(self.secrets), "")


class PaceSettings(SettingGroup):
    """Limits of submission, and the minimum balance."""

    title = "Pace"

    max_in_flight: Count = Field(
        100,
        description="Maximum number of jobs in flight, over all workers. The limit in force starts lower and adapts to "
        "what MusicAPI accepts ([more](../explanation/flow-control.md#how-many-at-once)).",
    )
    initial_in_flight: Count = Field(10, description="Initial limit of jobs in flight, before it adapts.")
    submit_rate: float | None = Field(
        None,
        ge=SUBMIT_RATE_MIN,
        description="Maximum number of POSTs per minute, over all workers. Unset: as many as MusicAPI accepts.",
    )
    min_balance: int = Field(
        0, ge=0, description="Minimum balance to keep, in credits; submission stops below it. 0: spend all."
    )
    balance_interval_s: Seconds = Field(
        60.0,
        description="Seconds between two checks of the account's balance, by one worker for all. Submission resumes "
        "that soon after credits are added. Also the longest delay between trials after MusicAPI rejected the key or "
        "the account could not pay.",
    )
    cooldown_s: Seconds = Field(
        5.0,
        description="Seconds without submissions after a rate limit (429); up to a minute if two jobs received it and "
        "it names a delay. Also the first pause after five requests in a row without a response, or two jobs refused "
        "with the same error.",
    )
    task_chunk_size: int = Field(
        100,
        ge=1,
        le=500,
        description="Maximum number of job ids in one Celery message. Smaller values spread few jobs over more "
        "workers.",
    )
    upstream_concurrency: int = Field(
        32,
        ge=1,
        le=128,
        description="Concurrent requests to MusicAPI per worker process, for orders and for polls.",
    )


class JobSettings(SettingGroup):
    """Voice sharing, deadlines, uncertain charges and retention."""

    title = "Jobs"

    reuse_voices: bool = Field(
        False,
        description="Default of `reuse` for jobs that do not set it: [share the voice](../guides/shared-voices.md) "
        "with other jobs of the same recording, earlier ones included.",
    )
    signed_buckets: Annotated[str, AfterValidator(check_buckets)] = Field(
        "",
        description="Buckets, or folders in them (`recordings, archive/voices`), separated by commas or spaces, for "
        "whose objects workers may [sign links](../guides/recordings-on-s3.md) that MusicAPI fetches. Unset: jobs "
        "with an `s3://` recording fail.",
    )
    signed_link_ttl_s: float = Field(
        3600.0, ge=60, le=604_800, description="Seconds for which a signed link to a recording is valid."
    )
    check_recordings: bool = Field(
        False,
        description="Whether workers [check each recording](../guides/check-recordings.md) just before its order is "
        "sent: reachable, MP3 or WAV, longer than 10 s. A job whose recording fails costs nothing. The same for every "
        "worker. Workers need access to the hosts of the recordings.",
    )
    check_retry_window_s: Seconds = Field(
        1800.0,
        description="Seconds during which a check that failed temporarily (no answer, 429, 5xx) is repeated; after "
        "that the job fails with `recording_unreachable`.",
    )
    check_backoff_initial_s: Seconds = Field(
        10.0, description="Seconds until a check is first repeated. Each further delay is three times as long."
    )
    voice_deadline_s: Seconds = Field(
        900.0, description="Seconds that MusicAPI may take for a voice; after that the job fails with `deadline`."
    )
    music_deadline_s: Seconds = Field(
        1800.0, description="Seconds that MusicAPI may take for a song; after that the job fails with `deadline`."
    )
    late_result_ttl_s: Seconds = Field(
        86_400.0,
        description="Seconds after submission during which the result of a cancelled, failed or incomplete job is "
        "polled for, and stored on the job when it arrives. Default: one day.",
    )
    submit_lease_s: Seconds = Field(
        90.0,
        description="Seconds that one submission may take, from claim to response; after that the job becomes "
        "`unsure`. Keep it above the timeouts of MusicAPI.",
    )
    unsure_policy: Literal["review", "resubmit"] = Field(
        "review",
        description="How to treat `unsure` jobs that no webhook settles: `review` keeps them for an operator, "
        "`resubmit` submits them again and may pay twice.",
    )
    unsure_resubmit_delay_s: Seconds = Field(
        1800.0, description="Seconds that `resubmit` waits for a webhook before it submits a job again."
    )
    require_consent: bool = Field(
        False,
        description="Refuse new jobs without [`metadata.consent_ref`](../guides/erasure.md#consent), from every "
        "interface. Workers write it to Redis when they start.",
    )
    retention_days: float = Field(
        inf,
        gt=0,
        description="Days for which [settled jobs](../guides/retention.md) and their idempotency keys "
        "are kept. Afterwards the same job can be enqueued again, and is paid again. `inf`: keep everything.",
    )
    audit_log_retention_days: float = Field(
        400.0,
        gt=0,
        description="Days for which entries of the [audit log](audit-log.md) are kept. `inf`: no limit.",
    )
    audit_log_max_entries: Count = Field(
        200_000,
        description="The most entries of the audit log that are kept; the oldest are deleted. 100,000 entries take "
        "about 30 MB.",
    )


class PollingSettings(SettingGroup):
    """Intervals of polling, dispatching and maintenance."""

    title = "Polling"

    poll_min_interval_s: Seconds = Field(
        15.0,
        description="Minimum interval between two polls of one order, in seconds, until enough durations are known to "
        "[plan polls](../explanation/flow-control.md#planned-polls); planned polls may follow after a third of it. "
        "Equal to `VOICEQUEUE_POLL_MAX_INTERVAL_S`: a fixed interval, nothing is planned.",
    )
    # A longer countdown could exceed the broker's visibility timeout: a test compares them.
    poll_max_interval_s: float = Field(
        25.0, gt=0, le=60, description="Maximum interval between two polls of one order, in seconds."
    )
    dispatch_interval_s: Seconds = Field(
        1.0, description="Seconds between two admissions of jobs from the backlog, per worker."
    )
    maintenance_interval_s: Seconds = Field(
        5.0, description="Seconds between two searches for overdue jobs, per worker."
    )
    overdue_after_s: Seconds = Field(10.0, description="Seconds past its due time after which a job counts as overdue.")


class CallbackSettings(SettingGroup):
    """Signing, delivering and retrying callbacks."""

    title = "Callbacks"

    callback_secret: Annotated[SecretStr, AfterValidator(check_callback_secrets)] = Field(
        SecretStr(""),
        description="Root secret for signing [callbacks](../guides/callbacks.md#the-secret): `whsec_` followed "
        "by 24 to 64 bytes in base64. The secret of each receiver is derived from it. Separate several with spaces to "
        "rotate: each one signs. Unset: derived from `VOICEQUEUE_SECRET`.",
    )
    callback_allowed_hosts: Annotated[str, AfterValidator(check_hosts_and_networks)] = Field(
        "",
        description="Hosts, addresses and networks, separated by commas or spaces, that callbacks may be sent to "
        "[although they are not public](callbacks.md#where-callbacks-may-go).",
    )
    callback_retry_window_s: Seconds = Field(
        86_400.0,
        description="Seconds during which a failed callback is retried; after that it is kept as undelivered. Default: "
        "one day.",
    )
    callback_backoff_initial_s: Seconds = Field(
        5.0, description="Seconds until the first retry. Each further delay is three times as long."
    )
    callback_backoff_max_s: Seconds = Field(3600.0, description="Maximum delay between two attempts, in seconds.")
    callback_connect_timeout_s: Seconds = Field(
        3.0, description="Timeout for resolving a receiver's host and connecting, in seconds."
    )
    callback_timeout_s: Seconds = Field(10.0, description="Timeout for one whole attempt, in seconds.")
    callback_host_cooldown_s: Seconds = Field(
        30.0, description="Seconds without attempts to a receiver after three in a row without a response."
    )


class ArchiveSettings(SettingGroup):
    """Storage of finished songs, and limits of downloading them."""

    title = "Archive"

    archive_url: Annotated[SecretStr, AfterValidator(check_storage)] = Field(
        SecretStr(""),
        description="Where finished songs and covers are [stored](../guides/archive.md): a folder, or an "
        "[fsspec](https://filesystem-spec.readthedocs.io) URL such as `s3://bucket/songs` (which may hold "
        "credentials). The same for every process. Unset: nothing is archived.",
    )
    audio_allowed_hosts: Annotated[str, AfterValidator(check_hosts_and_networks)] = Field(
        "",
        description="Hosts, addresses and networks (`10.1.0.0/16`), separated by commas or spaces, from which songs "
        "are [archived](../guides/archive.md) and recordings are "
        "[checked](../guides/spreadsheets.md#preflight) and ingested although they are not public.",
    )
    archive_retry_window_s: Seconds = Field(
        259_200.0,
        description="Seconds during which a failed download or upload is retried. Default: three days.",
    )
    archive_backoff_initial_s: Seconds = Field(
        30.0, description="Seconds until the first retry. Each further delay is three times as long."
    )
    archive_backoff_max_s: Seconds = Field(21_600.0, description="Maximum delay between two attempts, in seconds.")
    archive_connect_timeout_s: Seconds = Field(5.0, description="Timeout for connecting, per file, in seconds.")
    archive_read_timeout_s: Seconds = Field(20.0, description="Maximum pause while a file is downloaded, in seconds.")
    archive_file_timeout_s: Seconds = Field(600.0, description="Timeout for one whole file, in seconds.")
    archive_min_bytes_per_s: float = Field(
        4096.0,
        ge=0,
        description="Minimum download speed in bytes per second, measured after 20 s; a slower download is given up "
        "and retried later. 0: no minimum.",
    )
    archive_max_file_bytes: Count = Field(200_000_000, description="Maximum size of a downloaded file, in bytes.")
    archive_lease_s: Seconds = Field(
        60.0,
        description="Seconds after which another process takes over the songs of a process that stopped responding.",
    )


class LogSettings(SettingGroup):
    """Format and level of the logs."""

    title = "Logs"

    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="Format of the [logs](logs.md). `auto`: text on a terminal, JSON otherwise.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")


#: In the order of the documentation.
GROUPS: tuple[type[SettingGroup], ...] = (
    ConnectionSettings,
    GatewaySettings,
    PaceSettings,
    JobSettings,
    PollingSettings,
    CallbackSettings,
    ArchiveSettings,
    LogSettings,
)
