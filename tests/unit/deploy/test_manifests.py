"""Every manifest is valid, and everything that it refers to exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.prometheus_rule import RULE, prometheus_rule
from tests.support.composed import ROOT
from tests.support.kustomized import KUBERNETES, Manifest, build, containers, kustomizations, named

#: The kinds of the Prometheus operator and of KEDA.
CUSTOM: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "custom_resources.yaml").read_text(encoding="utf-8"))
CUSTOM_KINDS = set(CUSTOM) - {"$defs"}

#: Secrets that an operator creates; docs/guides/kubernetes.md.
SECRETS = {"secrets", "metrics-key", "voices-example-com-tls"}

folders = pytest.mark.parametrize("folder", kustomizations(), ids=lambda folder: folder.name)


class Schemas:
    """The schemas of Kubernetes and of custom resources. Their packages take two seconds to import, so only on use."""

    def __init__(self) -> None:
        import jsonschema  # noqa: PLC0415
        import kubernetes_validate  # noqa: PLC0415

        self._custom, self._kubernetes = jsonschema, kubernetes_validate
        self.error: type[Exception] = jsonschema.ValidationError
        self.versions: list[str] = kubernetes_validate.utils.all_versions()
        # The package reads all definitions again for each manifest.
        kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)

    def validate(self, manifest: Manifest, version: str) -> None:
        """Raise an error if a manifest has not the fields of its kind, or has others."""
        if manifest["kind"] in CUSTOM_KINDS:
            self._custom.validate(manifest, {**CUSTOM[manifest["kind"]], "$defs": CUSTOM["$defs"]})
        else:
            self._kubernetes.validate(manifest, version, strict=True)


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    """Return the schemas."""
    return Schemas()


@pytest.mark.parametrize("place", [0, -1], ids=["oldest", "newest"])
@folders
def test_every_manifest_is_valid(folder: Path, place: int, schemas: Schemas) -> None:
    """It has the fields of its kind and no others, for an old and a new Kubernetes."""
    for manifest in build(folder):
        schemas.validate(manifest, schemas.versions[place])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed here")
@folders
def test_kubectl_builds_the_same_manifests(folder: Path) -> None:
    """The tests resolve kustomizations themselves. kubectl adds a hash to the names of ConfigMaps."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = re.sub(r"(name: (?:settings|valkey|webhooks))-[a-z0-9]{10}$", r"\1", done.stdout, flags=re.MULTILINE)

    assert _by_name(list(yaml.safe_load_all(text))) == _by_name(build(folder))


def _by_name(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    assert len(manifests) == len({(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests})
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}


@folders
def test_every_manifest_is_in_the_namespace(folder: Path) -> None:
    """Nothing is created elsewhere."""
    for manifest in build(folder):
        namespace = manifest["metadata"].get("namespace")
        assert namespace == (None if manifest["kind"] == "Namespace" else "voicequeue")


# ── references ────────────────────────────────────────────────────────────────────────────────────


def _values(manifest: Any, field: str) -> Iterator[Any]:
    """Yield the values of a field, wherever it is in the manifest."""
    match manifest:
        case dict():
            for name, value in manifest.items():
                if name == field:
                    yield value
                yield from _values(value, field)
        case list():
            for item in manifest:
                yield from _values(item, field)


def _pods(manifests: list[Manifest]) -> list[Mapping[str, Any]]:
    """Return the pod templates."""
    return [manifest["spec"]["template"] for manifest in manifests if containers(manifest)]


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a selector, with `matchLabels` or plain, selects these labels."""
    plain = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules)
    return all(labels.get(name) == value for name, value in plain.items()) and all(
        labels.get(rule["key"]) in rule["values"] for rule in rules
    )


@folders
def test_everything_that_a_manifest_names_exists(folder: Path) -> None:
    """ConfigMaps and their keys, claims, volumes, Services, targets of scaling; and known Secrets."""
    manifests = build(folder)
    maps = named(manifests, "ConfigMap")
    for manifest in manifests:
        for reference in (*_values(manifest, "secretKeyRef"), *_values(manifest, "credentials")):
            assert reference["name"] in SECRETS
        assert set(_values(manifest, "secretName")) <= SECRETS
        for reference in (*_values(manifest, "configMapRef"), *_values(manifest, "configMapKeyRef")):
            assert reference["name"] in maps
            assert "key" not in reference or reference["key"] in maps[reference["name"]]["data"]
        assert {reference["name"] for reference in _values(manifest, "configMap")} <= set(maps)
        assert set(_values(manifest, "claimName")) <= set(named(manifests, "PersistentVolumeClaim"))
        assert {reference["name"] for reference in _values(manifest, "scaleTargetRef")} <= set(
            named(manifests, "Deployment")
        )
        assert list(_values(manifest, "serviceAccountName")) == []
        for reference in _values(manifest, "service"):
            ports = named(manifests, "Service")[reference["name"]]["spec"]["ports"]
            assert reference["port"]["name"] in {port["name"] for port in ports}


@folders
def test_every_mount_has_its_volume_and_every_volume_is_mounted(folder: Path) -> None:
    """A volume that no container mounts is a mistake."""
    for manifest in build(folder):
        for container in containers(manifest):
            claims = manifest["spec"].get("volumeClaimTemplates", [])
            volumes = manifest["spec"]["template"]["spec"]["volumes"]
            existing = {volume["name"] for volume in volumes} | {claim["metadata"]["name"] for claim in claims}
            assert {mount["name"] for mount in container["volumeMounts"]} == existing


@folders
def test_every_selector_selects_pods_and_every_port_is_one_of_theirs(folder: Path) -> None:
    """A Service, policy or budget that selects nothing would be silent."""
    manifests = build(folder)
    for manifest in manifests:
        selectors = [
            *_values(manifest, "podSelector"),
            *_values(manifest, "selector"),
            *_values(manifest, "labelSelector"),
        ]
        if manifest["kind"] == "ServiceMonitor":
            services = named(manifests, "Service").values()
            assert [s for s in services if _selects(selectors[0], s["metadata"]["labels"])] != []
            selectors = []
        for selector in selectors:
            selected = [pod for pod in _pods(manifests) if _selects(selector, pod["metadata"]["labels"])]
            assert selected != [], selector
            if manifest["kind"] == "Service":
                ports = {port["name"] for pod in selected for port in pod["spec"]["containers"][0]["ports"]}
                assert {port["targetPort"] for port in manifest["spec"]["ports"]} <= ports
        if "selector" in manifest.get("spec", {}) and containers(manifest):
            assert _selects(manifest["spec"]["selector"], manifest["spec"]["template"]["metadata"]["labels"])
        for container in containers(manifest):
            ports = {port["name"] for port in container.get("ports", [])}
            assert {request["port"] for request in _values(container, "httpGet")} <= ports


def test_the_alerts_of_kubernetes_are_those_of_the_rules_file() -> None:
    """After changing an alert, run `make docs`."""
    rules = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))

    assert RULE.read_text(encoding="utf-8") == prometheus_rule(), "run `make docs`"
    assert yaml.safe_load(prometheus_rule())["spec"] == rules


def test_a_typing_error_in_a_manifest_is_found(schemas: Schemas) -> None:
    """The schemas are strict: Kubernetes itself would ignore an unknown field of a custom resource."""
    [monitor] = named(build(KUBERNETES / "overlays" / "example"), "ServiceMonitor").values()
    wrong = json.loads(json.dumps(monitor).replace('"interval"', '"intervall"'))

    with pytest.raises(schemas.error, match="intervall"):
        schemas.validate(wrong, schemas.versions[-1])
