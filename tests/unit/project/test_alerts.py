"""The alert rules and the dashboard: promtool accepts them, alerts fire as documented, and the metrics exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from tests.store.life import enqueue_jobs
from tests.support import composed
from tests.support.jobs import voice_with_song
from tests.support.promtool import MISSING, executable
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.metrics import BOUNDS
from workers.gateway.api.metrics import QueueCollector

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "config"
RULES = CONFIG / "prometheus" / "alerts.yml"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]

#: The metrics of a healthy queue, minute by minute for an hour and a half.
HEALTHY = {
    'up{job="voicequeue"}': "1x90",
    'voicequeue_heartbeat_age_seconds{kind="worker",worker="a"}': "1x90",
    'voicequeue_stalled_consumers{queue="poll"}': "0x90",
    'voicequeue_gate_closed{reason="unauthorized"}': "0x90",
    'voicequeue_gate_closed{reason="out_of_credits"}': "0x90",
    'voicequeue_gate_closed{reason="upstream_down"}': "0x90",
    'voicequeue_gate_closed{reason="paused"}': "0x90",
    'voicequeue_gate_closed{reason="paused.music"}': "0x90",
    "voicequeue_stopped_batches": "0x90",
    'voicequeue_budgets_used{owner="account",period="day",percent="100"}': "0x90",
    'voicequeue_budgets_used{owner="namespace",period="month",percent="80"}': "0x90",
    'voicequeue_backlog_jobs{priority="normal"}': "100x90",
    'voicequeue_oldest_queued_age_seconds{priority="normal"}': "600x90",
    'voicequeue_oldest_queued_age_seconds{priority="bulk"}': "90000x90",
    'voicequeue_jobs{state="unsure",stage="voice"}': "0x90",
    "voicequeue_credits_balance": "10000x90",
    "voicequeue_credits_min_balance": "0x90",
    "voicequeue_credits_reserved": "100x90",
    "voicequeue_credits_unexplained": "4x90",
    'voicequeue_upstream_requests_total{operation="poll",outcome="ok"}': "0+600x90",
    'voicequeue_upstream_requests_total{operation="poll",outcome="no_response"}': "0+6x90",
    'voicequeue_callbacks{state="pending"}': "3x90",
    'voicequeue_callbacks{state="undelivered"}': "0x90",
    'voicequeue_callback_attempts_total{outcome="delivered"}': "0+60x90",
    'voicequeue_callback_attempts_total{outcome="retry"}': "0+6x90",
    'voicequeue_heartbeat_age_seconds{kind="callbacks",worker="c"}': "1x90",
    'voicequeue_archive_jobs{state="failed"}': "0x90",
    'voicequeue_archive_jobs{state="pending"}': "3x90",
    'voicequeue_heartbeat_age_seconds{kind="archive",worker="r"}': "1x90",
    'voicequeue_archive_storage_failing_seconds{worker="r"}': "0x90",
    'voicequeue_settled_jobs{state="succeeded"}': "0+10x90",
    'voicequeue_settled_jobs{state="failed"}': "0+1x90",
    'voicequeue_settled_jobs{state="cancelled"}': "0+1x90",
    'voicequeue_oldest_in_flight_age_seconds{state="admitted"}': "20x90",
    'voicequeue_oldest_in_flight_age_seconds{state="pending"}': "900x90",
    'voicequeue_result_detection_delay_seconds_bucket{stage="voice",le="30"}': "0+60x90",
    'voicequeue_result_detection_delay_seconds_bucket{stage="voice",le="120"}': "0+60x90",
    'voicequeue_result_detection_delay_seconds_bucket{stage="voice",le="+Inf"}': "0+60x90",
    "voicequeue_rejected_messages": "0x90",
    "voicequeue_late_erasures": "0x90",
    'voicequeue_clock_ahead_seconds{kind="worker",worker="a"}': "-0.1x90",
    "voicequeue_redis_accepts_writes": "1x90",
    "voicequeue_redis_info_permitted": "1x90",
    "voicequeue_redis_persistent": "1x90",
    "voicequeue_redis_evicts_keys": "0x90",
    "voicequeue_redis_memory_used_bytes": "70x90",
    "voicequeue_redis_memory_max_bytes": "100x90",
}

#: The metrics that differ when each alert must fire.
FAULTS = {
    "VoicequeueGatewayDown": {'up{job="voicequeue"}': "0x90"},
    "VoicequeueNoWorkers": {'voicequeue_heartbeat_age_seconds{kind="worker",worker="a"}': "1+60x90"},
    "VoicequeueConsumerStalled": {'voicequeue_stalled_consumers{queue="poll"}': "1x90"},
    "VoicequeueKeyRejected": {'voicequeue_gate_closed{reason="unauthorized"}': "1x90"},
    "VoicequeueOutOfCredits": {'voicequeue_gate_closed{reason="out_of_credits"}': "1x90"},
    "VoicequeueUpstreamDown": {'voicequeue_gate_closed{reason="upstream_down"}': "1x90"},
    "VoicequeuePaused": {'voicequeue_gate_closed{reason="paused.music"}': "1x90"},
    "VoicequeueBatchStopped": {"voicequeue_stopped_batches": "1x90"},
    "VoicequeueBudgetReached": {'voicequeue_budgets_used{owner="account",period="day",percent="100"}': "1x90"},
    "VoicequeueBudgetNearlyReached": {'voicequeue_budgets_used{owner="namespace",period="month",percent="80"}': "2x90"},
    "VoicequeueBacklogDelayed": {'voicequeue_oldest_queued_age_seconds{priority="normal"}': "4000+60x90"},
    "VoicequeueUnsureJobs": {'voicequeue_jobs{state="unsure",stage="voice"}': "2x90"},
    "VoicequeueBalanceLow": {"voicequeue_credits_balance": "450x90"},
    "VoicequeueUnexplainedSpending": {"voicequeue_credits_unexplained": "0+1x90"},
    "VoicequeueUpstreamErrors": {
        'voicequeue_upstream_requests_total{operation="poll",outcome="no_response"}': "0+60x90"
    },
    "VoicequeueCallbacksUndelivered": {'voicequeue_callbacks{state="undelivered"}': "1x90"},
    "VoicequeueCallbacksUnsigned": {'voicequeue_callback_attempts_total{outcome="unsigned"}': "0+1x90"},
    "VoicequeueCallbacksFailing": {'voicequeue_callback_attempts_total{outcome="retry"}': "0+90x90"},
    "VoicequeueNoCallbackWorkers": {'voicequeue_heartbeat_age_seconds{kind="callbacks",worker="c"}': "1+60x90"},
    "VoicequeueArchiveFailed": {'voicequeue_archive_jobs{state="failed"}': "1x90"},
    "VoicequeueNoArchiveWorkers": {'voicequeue_heartbeat_age_seconds{kind="archive",worker="r"}': "1+60x90"},
    "VoicequeueArchiveFailing": {'voicequeue_archive_storage_failing_seconds{worker="r"}': "0+60x90"},
    "VoicequeueJobsFailing": {'voicequeue_settled_jobs{state="failed"}': "0+5x90"},
    "VoicequeueJobsStuck": {'voicequeue_oldest_in_flight_age_seconds{state="admitted"}': "0+60x90"},
    "VoicequeueResultsLate": {'voicequeue_result_detection_delay_seconds_bucket{stage="voice",le="30"}': "0+1x90"},
    "VoicequeueMessagesRejected": {"voicequeue_rejected_messages": "2x90"},
    "VoicequeueErasuresLate": {"voicequeue_late_erasures": "1x90"},
    "VoicequeueClockWrong": {'voicequeue_clock_ahead_seconds{kind="worker",worker="a"}': "-90x90"},
    "VoicequeueRedisRefusesWrites": {"voicequeue_redis_accepts_writes": "0x90"},
    "VoicequeueRedisNotPersistent": {"voicequeue_redis_persistent": "0x90"},
    "VoicequeueRedisEvictsKeys": {"voicequeue_redis_evicts_keys": "1x90"},
    "VoicequeueRedisMemoryHigh": {"voicequeue_redis_memory_used_bytes": "85x90"},
    "VoicequeueRedisUnobserved": {"voicequeue_redis_info_permitted": "0x90"},
}

#: Metrics that differ from a healthy queue, and fire nothing.
HARMLESS = {
    "a few failures": {
        'voicequeue_settled_jobs{state="failed"}': "0x40 1x50",
        'voicequeue_settled_jobs{state="succeeded"}': "0x90",
    },
    "admitted jobs while paused": {
        'voicequeue_oldest_in_flight_age_seconds{state="admitted"}': "0+60x90",
        'voicequeue_gate_closed{reason="cooldown"}': "1x90",
    },
    "memory without a known limit": {"voicequeue_redis_memory_max_bytes": "0x90"},
    "a queue without an archive": {
        'voicequeue_archive_jobs{state="pending"}': "0x90",
        'voicequeue_heartbeat_age_seconds{kind="archive",worker="r"}': "1+60x90",
    },
}


def promtool(*arguments: object) -> str:
    """Run promtool, which must succeed, and return its output."""
    path = executable()
    assert path, MISSING
    done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules_and_the_configuration(tmp_path: Path) -> None:
    """They are checked as the compose file mounts them."""
    key = tmp_path / "metrics_key"
    key.touch()
    text = (CONFIG / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/metrics_key", str(key)), encoding="utf-8")
    (tmp_path / "alerts.yml").write_text(RULES.read_text(encoding="utf-8"), encoding="utf-8")

    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yml")


@pytest.mark.endurance
def test_every_alert_fires_when_it_should_and_no_other_does(tmp_path: Path) -> None:
    """One Prometheus scrapes the gateways of several queues; each alert concerns one of them.

    A fault fires its alert for its own queue and no other, healthy queues do not mask it, and harmless deviations fire
    nothing.
    """
    assert set(FAULTS) == {rule["alert"] for rule in ALERTS}
    deviations: dict[str, dict[str, str]] = {"healthy": {}, **FAULTS, **HARMLESS}
    case = {
        "interval": "1m",
        "input_series": [
            series for queue, deviation in deviations.items() for series in _series(queue, {**HEALTHY, **deviation})
        ],
        "promql_expr_test": [_firing(queue, {queue} & set(FAULTS)) for queue in ("", *deviations)],
    }
    cases_file = tmp_path / "cases.yml"
    cases_file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [case]}), encoding="utf-8")

    promtool("test", "rules", cases_file)


def _firing(queue: str, alerts: set[str]) -> dict[str, Any]:
    """Return the check that exactly these alerts fire for a queue, by Prometheus's own series ALERTS."""
    return {
        "expr": f'count by (alertname) (ALERTS{{alertstate="firing", instance="{queue}"}})',
        "eval_time": "85m",
        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts],
    }


def _series(instance: str, metrics: dict[str, str]) -> list[dict[str, str]]:
    """Return the series of a queue, scraped from its gateway, which is an instance."""
    return [
        {
            "series": f'{metric.removesuffix("}")}{"," if "{" in metric else "{"}instance="{instance}"}}',
            "values": values,
        }
        for metric, values in metrics.items()
    ]


def test_every_alert_says_what_to_do() -> None:
    """Its runbook link leads to a complete section."""
    page = (ROOT / "docs" / "guides" / "runbook.md").read_text(encoding="utf-8")
    table = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")

    for rule in ALERTS:
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
        assert rule["annotations"]["runbook_url"].endswith(f"}}}}#{rule['alert'].lower()}")
        section = page.partition(f"### {rule['alert']}\n")[2].partition("\n#")[0]
        assert [part for part in ("**Meaning**", "**Check**", "**Action**") if part not in section] == []
        row = f"| [{rule['alert']}](../guides/runbook.md#{rule['alert'].lower()}) | {rule['labels']['severity']} |"
        assert row in table
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


@pytest.mark.parametrize(
    ("published", "link"),
    [
        (
            "https://docs.example.com/guides/runbook.html",
            "https://docs.example.com/guides/runbook.html#voicequeuekeyrejected",
        ),
        (None, "docs/guides/runbook.md#voicequeuekeyrejected"),
    ],
)
def test_a_notification_links_to_the_runbook_where_it_is_published(
    tmp_path: Path, published: str | None, link: str
) -> None:
    """A click in an e-mail works as soon as the external label is set; without it, the file is named."""
    [rule] = [rule for rule in ALERTS if rule["alert"] == "VoicequeueKeyRejected"]
    expected = {
        "exp_labels": {"reason": "unauthorized", **rule["labels"]},
        "exp_annotations": {**rule["annotations"], "runbook_url": link},
    }
    case = {
        "interval": "1m",
        "external_labels": {"runbook": published} if published else {},
        "input_series": [{"series": 'voicequeue_gate_closed{reason="unauthorized"}', "values": "1x9"}],
        "alert_rule_test": [{"alertname": rule["alert"], "eval_time": "5m", "exp_alerts": [expected]}],
    }
    cases_file = tmp_path / "cases.yml"
    cases_file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [case]}), encoding="utf-8")

    promtool("test", "rules", cases_file)


def test_prometheus_sends_alerts_to_the_alertmanager_with_the_address_of_the_runbook() -> None:
    """The names in its configuration are those of the compose file."""
    configuration = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    services = composed.services()

    [target] = configuration["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in services
    assert configuration["global"]["external_labels"] == {"runbook": "${RUNBOOK_URL}"}
    assert "RUNBOOK_URL" in services["prometheus"]["environment"]


@pytest.mark.skipif(executable("amtool") is None, reason="amtool is missing (Debian's package prometheus-alertmanager)")
def test_amtool_accepts_the_configuration_of_the_alertmanager() -> None:
    """Every alert has a receiver, and its secret comes from a file."""
    path = executable("amtool")
    assert path
    configuration = CONFIG / "alertmanager" / "alertmanager.yml"
    done = subprocess.run([path, "check-config", configuration], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "_url_file: /run/secrets/" in configuration.read_text(encoding="utf-8")


def exposed(store: JobStore) -> set[str]:
    """Return the names of all metrics, with the series of histograms and counters."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(QueueCollector(store))
    for name in BOUNDS:
        store.metrics.observe(name, "x", 1)
    store.metrics.flush()
    text = generate_latest(registry).decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    return names | {f"{name}_{part}" for name in names for part in ("bucket", "sum", "count")}


def test_every_metric_named_by_rules_dashboard_and_docs_exists(store: JobStore) -> None:
    """The documentation names every metric."""
    existing = exposed(store)
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    dashboard = (CONFIG / "grafana" / "dashboards" / "voicequeue.json").read_text(encoding="utf-8")

    for text in (RULES.read_text(encoding="utf-8"), dashboard, page):
        assert set(re.findall(r"voicequeue_[a-z_]+", text)) - existing == set()
    documented = set(re.findall(r"`(voicequeue_[a-z_]+)", page))
    assert {name for name in existing if not name.endswith(("_bucket", "_sum", "_count"))} <= documented


def test_the_dashboard_is_valid_for_grafana() -> None:
    """Panels query the provisioned source for one gateway, and do not overlap."""
    dashboard = json.loads((CONFIG / "grafana" / "dashboards" / "voicequeue.json").read_text(encoding="utf-8"))
    source = yaml.safe_load((CONFIG / "grafana" / "datasources.yml").read_text(encoding="utf-8"))["datasources"][0]

    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["gateway"]
    occupied: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["datasource"]["uid"] == source["uid"]
        for target in panel["targets"]:
            assert target["expr"].count("voicequeue_") == target["expr"].count('{instance="$gateway"')
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & occupied
        occupied |= cells


def test_a_scrape_names_no_batch_and_no_job(store: JobStore) -> None:
    """Label values come from fixed sets: a million jobs have as many series as one."""
    before = len(exposed(store))
    enqueue_jobs(
        store,
        *(voice_with_song(key=f"k{n}", batch=f"secret-{n}", audio_url=f"https://a.example/{n}.wav") for n in range(50)),
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(QueueCollector(store))
    text = generate_latest(registry).decode()

    assert len(exposed(store)) == before
    assert 'voicequeue_backlog_jobs{priority="normal"} 50.0' in text
    assert "secret-" not in text
    assert "a.example" not in text
