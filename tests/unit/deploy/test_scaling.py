"""The number of workers in Kubernetes follows the queue's own metrics."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import Settings
from tests.support.composed import ROOT
from tests.support.kustomized import Manifest, containers, named
from tests.support.promtool import MISSING, executable

#: 60 of 100 jobs in flight, 500 queued, and three hours of work; two gateways report the same.
BUSY = {
    "voicequeue_in_flight_jobs": 60,
    "voicequeue_in_flight_limit": 100,
    'voicequeue_backlog_jobs{priority="normal"}': 480,
    'voicequeue_backlog_jobs{priority="bulk"}': 20,
    "voicequeue_time_left_seconds": 10_800,
    'voicequeue_gate_closed{reason="paused"}': 0,
    'voicequeue_gate_closed{reason="paused.voice"}': 0,
    'voicequeue_gate_closed{reason="cooldown"}': 0,
    'voicequeue_gate_closed{reason="out_of_credits"}': 0,
}
IDLE = {**dict.fromkeys(BUSY, 0), "voicequeue_in_flight_limit": 100}


@pytest.fixture(scope="module")
def scaling(example: list[Manifest]) -> dict[str, Any]:
    """Return the specification of the ScaledObject."""
    spec: dict[str, Any] = named(example, "ScaledObject")["worker"]["spec"]
    return spec


@pytest.mark.parametrize(
    ("metrics", "jobs", "time_left"),
    [
        (BUSY, 100, 10_800),
        (IDLE, 0, 0),
        # More workers cannot raise the limit: with all slots in use, they would wait as well.
        ({**BUSY, "voicequeue_in_flight_jobs": 100}, 100, 0),
        # The limit fell below what is in flight.
        ({**BUSY, "voicequeue_in_flight_jobs": 130}, 130, 0),
        ({**BUSY, "voicequeue_in_flight_limit": 1000}, 560, 10_800),
        # Nothing is submitted, so only what is in flight needs workers.
        ({**BUSY, 'voicequeue_gate_closed{reason="out_of_credits"}': 1}, 60, 0),
        ({**BUSY, 'voicequeue_gate_closed{reason="paused"}': 1}, 60, 0),
        ({**BUSY, 'voicequeue_gate_closed{reason="cooldown"}': 1}, 100, 10_800),
        ({**BUSY, 'voicequeue_gate_closed{reason="paused.voice"}': 1}, 100, 10_800),
        # The pace is unknown until a job succeeds.
        ({name: value for name, value in BUSY.items() if "time_left" not in name}, 100, 0),
    ],
)
def test_workers_are_added_only_where_they_help(
    scaling: dict[str, Any], tmp_path: Path, metrics: Mapping[str, float], jobs: float, time_left: float
) -> None:
    """The queries give one number each, for one queue, however many gateways report it."""
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in scaling["triggers"]}
    expected = {"jobs": jobs, "time-left": time_left}
    other_queue = _series(BUSY, "instance='a',namespace='other'")
    series = [*_series(metrics, "instance='a',namespace='voicequeue'"), *other_queue]
    series += _series(metrics, "instance='b',namespace='voicequeue'")
    tests = [
        {"expr": query, "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": expected[name]}]}
        for name, query in queries.items()
    ]
    file = tmp_path / "cases.yml"
    file.write_text(yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}))

    promtool = executable()
    assert promtool, MISSING
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _series(metrics: Mapping[str, float], labels: str) -> list[dict[str, str]]:
    return [
        {"series": f"{name.removesuffix('}')}{',' if '{' in name else '{'}{labels}}}", "values": f"{value}x10"}
        for name, value in metrics.items()
    ]


def test_a_query_without_metrics_changes_nothing(scaling: dict[str, Any]) -> None:
    """Without Prometheus the number of workers stays: KEDA would otherwise read 0 and stop them."""
    assert [trigger["metadata"]["ignoreNullValues"] for trigger in scaling["triggers"]] == ["false", "false"]


def test_the_scaling_reads_documented_metrics(scaling: dict[str, Any]) -> None:
    """A renamed metric would leave the query without data."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    used = {
        name for trigger in scaling["triggers"] for name in re.findall(r"voicequeue_\w+", trigger["metadata"]["query"])
    }

    assert len(used) == 5
    assert {name for name in used if f"`{name}`" not in page} == set()


def test_workers_are_never_scaled_to_zero(scaling: dict[str, Any], example: list[Manifest]) -> None:
    """They also poll paid orders and settle interrupted ones. KEDA alone sets the number."""
    worker = named(example, "Deployment")["worker"]

    assert scaling["minReplicaCount"] >= 2
    assert "idleReplicaCount" not in scaling
    assert "replicas" not in worker["spec"]
    assert scaling["scaleTargetRef"]["name"] == "worker"


def test_a_worker_can_request_something_for_each_of_its_jobs_at_once(
    scaling: dict[str, Any], example: list[Manifest]
) -> None:
    """With all slots in use, no order waits for a free request, while one child is kept for polls. The most workers are
    enough for the limit of the example."""
    [jobs] = [trigger for trigger in scaling["triggers"] if trigger["name"] == "jobs"]
    [container] = containers(named(example, "Deployment")["worker"])
    children = int(container["command"][container["command"].index("--concurrency") + 1])
    per_worker = float(jobs["metadata"]["threshold"])
    limit = int(named(example, "ConfigMap")["settings"]["data"]["VOICEQUEUE_MAX_IN_FLIGHT"])

    assert per_worker <= (children - 1) * Settings(_env_file=None).upstream_concurrency
    assert ceil(limit / per_worker) <= scaling["maxReplicaCount"]


def test_prometheus_scrapes_the_service_and_not_each_gateway(example: list[Manifest]) -> None:
    """Each gateway reports the whole queue: two targets would double every alert."""
    [endpoint] = named(example, "ServiceMonitor")["voicequeue"]["spec"]["endpoints"]
    labels = {
        "__address__": "10.1.2.3:8000",
        "__meta_kubernetes_service_name": "web",
        "__meta_kubernetes_namespace": "voicequeue",
        "namespace": "voicequeue",
        "pod": "web-7d4b9",
        "container": "web",
        "endpoint": "http",
        "service": "web",
        "job": "web",
    }
    for rule in endpoint["relabelings"]:
        if rule.get("action") == "labeldrop":
            labels = {name: value for name, value in labels.items() if not re.fullmatch(rule["regex"], name)}
        else:
            source = rule.get("separator", ";").join(labels[name] for name in rule.get("sourceLabels", []))
            matched = re.fullmatch(rule.get("regex", "(.*)"), source)
            assert matched
            labels[rule["targetLabel"]] = matched.expand(rule.get("replacement", "$1").replace("$", "\\"))

    [port] = named(example, "Service")["web"]["spec"]["ports"]
    assert {name: value for name, value in labels.items() if not name.startswith("__meta")} == {
        "__address__": f"web.voicequeue.svc:{port['port']}",
        "namespace": "voicequeue",
        "job": "voicequeue",  # of the alerts
    }
