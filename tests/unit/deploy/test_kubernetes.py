"""deploy/kubernetes: processes, secrets, permissions and the network."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from config import flower
from config.settings import Settings, load, setting_names
from tests.support import composed
from tests.support.composed import ROOT
from tests.support.kubelet import Network, secret_files, start
from tests.support.kustomized import Manifest, containers, named
from voicequeue.storage.celery_queues import consumed_by
from workers.dependencies import build_callbacks
from workers.gateway.serving import SHUTDOWN_TIMEOUT_S
from workers.local.stack import procfile

#: The secrets in the environment of each process. None has one that it does not need.
SECRETS = {
    "worker": {"REDIS_URL", "MUSICAPI_KEY", "VOICEQUEUE_SECRET", "VOICEQUEUE_ARCHIVE_URL"},
    "callbacks": {"REDIS_URL", "VOICEQUEUE_CALLBACK_SECRET"},
    "archive": {"REDIS_URL", "VOICEQUEUE_ARCHIVE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "web": {"REDIS_URL", "VOICEQUEUE_CALLBACK_SECRET", "VOICEQUEUE_SECRET", "VOICEQUEUE_API_KEYS"},
    "flower": {"REDIS_URL", "FLOWER_BASIC_AUTH"},
}

#: The user of Valkey of each process.
USERS = {"worker": "worker", "callbacks": "worker", "archive": "worker", "web": "gateway", "flower": "flower"}


def _container(manifests: list[Manifest], name: str) -> dict[str, Any]:
    [container] = containers(named(manifests, "Deployment")[name])
    return container


def _pod(manifests: list[Manifest], name: str) -> dict[str, Any]:
    pod: dict[str, Any] = named(manifests, "Deployment")[name]["spec"]["template"]["spec"]
    return pod


# ── processes ─────────────────────────────────────────────────────────────────────────────────────


def test_kubernetes_runs_the_processes_of_the_procfile(base: list[Manifest]) -> None:
    """The commands are the same, except that a pod's name is unique, and that it says how many children it starts."""
    assert set(named(base, "Deployment")) == set(procfile())
    for name, line in procfile().items():
        expected = line.removeprefix("exec ").replace(f"{name}-$$@%h", f"{name}@%h")
        command = " ".join(_container(base, name)["command"])
        assert (re.sub(r" --concurrency \d+", "", command) if name == "worker" else command) == expected


@pytest.mark.parametrize("process", ["worker", "callbacks", "archive"])
def test_probes_watch_every_queue_of_the_process(base: list[Manifest], process: str) -> None:
    """A queue that no probe watches could stop unnoticed. Only exit code 1 restarts a running pod: after 2, a wrong
    setting, no pod could start."""
    command = ["voicequeue", "alive", *(word for name in consumed_by(process) for word in ("--queue", name))]
    container = _container(base, process)

    assert container["startupProbe"]["exec"]["command"] == command
    assert container["livenessProbe"]["exec"]["command"] == ["sh", "-c", f"{' '.join(command)}; [ $? -ne 1 ]"]


def test_a_worker_gets_more_time_to_stop_than_a_post_may_take(base: list[Manifest]) -> None:
    """SIGKILL must not interrupt a POST: not when a node is drained, workers are scaled down or a probe fails."""
    settings = Settings(_env_file=None)
    timeouts = build_callbacks(settings).timeouts
    grace = {name: _pod(base, name)["terminationGracePeriodSeconds"] for name in procfile()}
    pause = int(_container(base, "web")["lifecycle"]["preStop"]["exec"]["command"][1])

    assert grace["worker"] > settings.stop_timeout_s
    assert grace["callbacks"] > timeouts.start_window_s + settings.callback_timeout_s
    assert grace["web"] > pause + SHUTDOWN_TIMEOUT_S
    for name in ("worker", "callbacks", "archive"):
        compose = composed.services()[name]["stop_grace_period"]
        assert f"{grace[name]}s" == compose


def test_the_gateway_stays_reachable_while_no_worker_consumes(base: list[Manifest]) -> None:
    """A probe of `/readyz` would take away the API, webhooks, metrics and the job page when they are needed most."""
    probes = [_container(base, "web")[probe] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]

    assert {probe["httpGet"]["path"] for probe in probes} == {"/healthz"}


def test_flower_answers_its_probe_whatever_host_names_it_permits(base: list[Manifest]) -> None:
    """The kubelet would otherwise send the address of the pod, which FLOWER_ALLOWED_HOSTS may exclude."""
    for probe in ("startupProbe", "livenessProbe"):
        assert _container(base, "flower")[probe]["httpGet"]["httpHeaders"] == [{"name": "Host", "value": "localhost"}]


def test_processes_with_replicas_survive_the_drain_of_a_node(base: list[Manifest]) -> None:
    """One of them stops at a time. A budget for a single one would block the drain."""
    deployments = named(base, "Deployment")
    replicated = {name for name, deployment in deployments.items() if deployment["spec"]["replicas"] > 1}

    assert replicated == {"worker", "callbacks", "web"} == set(named(base, "PodDisruptionBudget"))
    for name in replicated:
        assert deployments[name]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert named(base, "PodDisruptionBudget")[name]["spec"]["maxUnavailable"] == 1


def test_a_process_with_a_volume_releases_it_before_the_next_one_starts(example: list[Manifest]) -> None:
    """A volume that one node mounts would keep the new pod from starting on another."""
    with_claim = {
        name
        for name, deployment in named(example, "Deployment").items()
        if any("persistentVolumeClaim" in volume for volume in deployment["spec"]["template"]["spec"]["volumes"])
    }

    assert with_claim == {"flower", "archive"}
    for name in with_claim:
        spec = named(example, "Deployment")[name]["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_spool_holds_the_largest_downloads_of_all_threads(base: list[Manifest]) -> None:
    """The kubelet evicts a pod that fills its volume beyond the limit."""
    command = _container(base, "archive")["command"]
    threads = int(command[command.index("--concurrency") + 1])
    [spool] = [volume for volume in _pod(base, "archive")["volumes"] if volume["name"] == "spool"]

    assert int(spool["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30 > (
        threads * Settings(_env_file=None).archive_max_file_bytes
    )


# ── settings and secrets ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the content of the Secret, as docs/guides/kubernetes.md has it made from `make secrets`."""
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run(["sh", str(ROOT / "config" / "secrets.sh")], cwd=folder, check=True, capture_output=True)
    files = {file.name: file.read_text(encoding="utf-8") for file in (folder / ".secrets").iterdir()}
    return {**files, "MUSICAPI_KEY": "k" * 40}


@pytest.mark.parametrize("process", sorted(SECRETS))
def test_every_process_starts_with_the_secrets_of_make_secrets(
    example: list[Manifest], secret: dict[str, str], process: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its settings are valid, and it logs in to Valkey as its own user."""
    for name in os.environ:
        if name.startswith(("VOICEQUEUE_", "FLOWER_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    variables = start(named(example, "Deployment")[process], example, secret, tmp_path / "secrets")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    settings = load()

    password = secret[f"VALKEY_{USERS[process].upper()}_PASSWORD"]
    assert settings.redis_url == f"redis://{USERS[process]}:{password}@valkey:6379/0"
    assert settings.max_in_flight == 200
    assert bool(settings.public_url) is (process in ("worker", "web"))
    if process == "flower":
        assert flower.load().logins() == [secret["FLOWER_BASIC_AUTH"]]


@pytest.mark.parametrize("process", sorted(SECRETS))
def test_each_process_gets_the_secrets_that_it_needs_and_no_others(base: list[Manifest], process: str) -> None:
    """A compromised gateway exposes neither the MusicAPI key nor the keys of the storage."""
    variables, files = _container(base, process)["env"], secret_files(_pod(base, process))
    optional = {v["name"] for v in variables if v.get("valueFrom", {}).get("secretKeyRef", {}).get("optional")}

    assert set(files) | optional == SECRETS[process]
    assert set(files) & optional == set()
    assert {v["name"]: v.get("value") for v in variables if v["name"].endswith("_FILE")} == {
        f"{name}_FILE": f"/run/secrets/{name}" for name in files
    }
    assert all(key in (name, f"REDIS_URL_{USERS[process].upper()}") for name, key in files.items())


def test_no_secret_is_in_a_manifest(base: list[Manifest], example: list[Manifest]) -> None:
    """Manifests are committed: they name Secrets, and contain none."""
    secret = (setting_names() - setting_names(include_secret=False)) | {"REDIS_URL", "FLOWER_BASIC_AUTH"}
    for manifests in (base, example):
        assert named(manifests, "Secret") == {}
        assert not {name for settings in named(manifests, "ConfigMap").values() for name in settings["data"]} & secret
        for name in procfile():
            assert not {v["name"] for v in _container(manifests, name)["env"] if "value" in v} & secret


def test_every_setting_of_the_manifests_exists_and_reaches_every_process(example: list[Manifest]) -> None:
    """A typing error would leave the default in effect."""
    existing = setting_names() | {f"FLOWER_{name.upper()}" for name in flower.FlowerSettings.model_fields}
    maps = named(example, "ConfigMap")
    for name in procfile():
        container = _container(example, name)
        assert container["envFrom"] == [{"configMapRef": {"name": "settings"}}]
        names = {v["name"].removesuffix("_FILE") for v in container["env"]}
        assert names - existing <= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TMPDIR"}
    assert set(maps["settings"]["data"]) | set(maps["webhooks"]["data"]) <= existing


def test_the_documentation_names_every_key_of_the_secrets(base: list[Manifest], example: list[Manifest]) -> None:
    """A missing key keeps a pod from starting."""
    page = (ROOT / "docs" / "guides" / "kubernetes.md").read_text(encoding="utf-8")
    pods = [manifest["spec"]["template"]["spec"] for manifest in (*base, *example) if containers(manifest)]
    keys = {key for pod in pods for key in secret_files(pod).values()}

    assert len(keys) == 11
    assert {key for key in keys if f"`{key}`" not in page} == set()


# ── permissions ───────────────────────────────────────────────────────────────────────────────────


def test_a_pod_has_no_privileges_that_its_process_does_not_need(example: list[Manifest]) -> None:
    """It has no capabilities and cannot gain any, writes to volumes only, does not run as root, and has no token."""
    pods = [manifest["spec"]["template"]["spec"] for manifest in example if containers(manifest)]
    assert len(pods) == len(procfile()) + 1
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False  # FLOWER_PORT=tcp://… would be one of them
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert not any("hostPath" in volume for volume in pod["volumes"])


def test_pods_run_as_the_user_of_the_image(base: list[Manifest]) -> None:
    """The folders of the image belong to it."""
    [user] = re.findall(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)

    assert {_pod(base, name)["securityContext"]["runAsUser"] for name in procfile()} == {int(user)}


def test_the_namespace_admits_restricted_pods_only(base: list[Manifest]) -> None:
    """Kubernetes itself refuses a pod with more rights."""
    labels = named(base, "Namespace")["voicequeue"]["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


# ── the network ───────────────────────────────────────────────────────────────────────────────────


def test_only_our_processes_reach_valkey_and_nothing_else_is_reached(example: list[Manifest]) -> None:
    """No process reaches another, and Valkey reaches nothing."""
    network = Network(example)

    assert network.connections() == {(name, "valkey") for name in procfile()}
    assert network.namespaces("web") == [{"voicequeue-gateway": "allowed"}]
    assert network.namespaces("valkey") == network.namespaces("flower") == []


@pytest.mark.parametrize("process", ["worker", "callbacks", "archive"])
@pytest.mark.parametrize(
    ("address", "is_reached"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("10.0.0.1", False),
        ("172.31.255.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.100.100.200", False),
        ("fd00:ec2::254", False),
        ("fe80::1", False),
    ],
)
def test_processes_that_request_urls_of_callers_reach_the_internet_only(
    example: list[Manifest], process: str, address: str, is_reached: bool
) -> None:
    """The metadata of the cloud and the services of the cluster are out of reach for any URL of a caller."""
    assert Network(example).reaches(process, address, 443) is is_reached


@pytest.mark.parametrize("process", ["web", "flower", "valkey"])
def test_processes_that_request_nothing_reach_no_address(example: list[Manifest], process: str) -> None:
    """A compromised gateway cannot send what it knows elsewhere."""
    for address in ("93.184.215.14", "10.0.0.1", "169.254.169.254"):
        assert not Network(example).reaches(process, address, 443)


@pytest.mark.parametrize("port", [6379, 26379])
def test_without_the_component_each_process_reaches_a_redis_elsewhere(base: list[Manifest], port: int) -> None:
    """And its sentinels, also in a private network."""
    assert all(Network(base).reaches(name, "10.1.2.3", port) for name in procfile())


def test_the_proxy_of_the_example_publishes_no_metrics(example: list[Manifest]) -> None:
    """Metrics and Flower are for operators."""
    paths = [
        path
        for ingress in named(example, "Ingress").values()
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]

    assert {path["path"] for path in paths} == {"/hooks/", "/v1"}
    assert {path["backend"]["service"]["name"] for path in paths} == {"web"}


# ── Valkey ────────────────────────────────────────────────────────────────────────────────────────


def test_valkey_has_the_files_and_the_users_of_the_compose_file(example: list[Manifest]) -> None:
    """The same image, start script, configuration and rights, on a volume that survives the pod."""
    stateful_set = named(example, "StatefulSet")["valkey"]
    [container] = containers(stateful_set)
    service = composed.services()["valkey"]
    files = named(example, "ConfigMap")["valkey"]["data"]

    assert container["image"] == service["image"]
    assert container["command"][:3] == service["command"][:3]
    assert container["startupProbe"]["exec"]["command"] == service["healthcheck"]["test"][1:]
    assert {v["name"].removesuffix("_FILE") for v in container["env"]} == {
        name.removesuffix("_FILE") for name in service["environment"]
    }
    for name, text in files.items():
        assert text in {path.read_text(encoding="utf-8") for path in (ROOT / "config").rglob(name)}
    assert {"valkey.conf", "start.sh", "users.acl", "admin.sh"} == set(files)
    [claim] = stateful_set["spec"]["volumeClaimTemplates"]
    assert {"name": claim["metadata"]["name"], "mountPath": "/data"} in container["volumeMounts"]
    assert container["command"][3:5] == ["--dir", "/data"]
