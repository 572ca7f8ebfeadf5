"""deploy/kubernetes without kubectl: the manifests of a kustomization, with the features that ours use.

It refuses any other feature. Where kubectl is installed, a test compares the results.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.composed import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"

Manifest = dict[str, Any]

_FIELDS = {"apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "patches", "images"}


@cache
def build(folder: Path) -> list[Manifest]:
    """Return the manifests of the kustomization in the folder; callers do not change them. ConfigMaps keep their names,
    without a hash."""
    manifests: list[Manifest] = []
    _add(manifests, folder)
    return manifests


def kustomizations() -> list[Path]:
    """Return the folders that can be built by themselves: those that are no components."""
    files = sorted(KUBERNETES.rglob("kustomization.yaml"))
    return [file.parent for file in files if _read(file)["kind"] == "Kustomization"]


def containers(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the containers of a Deployment or StatefulSet; none of another kind."""
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", []), *pod.get("containers", [])]


def named(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Return the manifests of a kind by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}


def _read(file: Path) -> dict[str, Any]:
    kustomization: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    if unknown := set(kustomization) - _FIELDS:
        raise NotImplementedError(f"{file}: this resolver does not know {unknown}")
    return kustomization


def _add(manifests: list[Manifest], folder: Path) -> None:
    """Add the manifests of a kustomization, or apply a component to those that are there."""
    kustomization = _read(folder / "kustomization.yaml")
    for name in kustomization.get("resources", []):
        manifests += _resource(folder / name)
    for name in kustomization.get("components", []):
        _add(manifests, folder / name)
    for generator in kustomization.get("configMapGenerator", []):
        _generate(manifests, folder, generator)
    for patch in kustomization.get("patches", []):
        text = patch.get("patch") or (folder / patch["path"]).read_text(encoding="utf-8")
        for manifest in _targets(manifests, patch["target"]):
            for operation in yaml.safe_load(text):
                _apply(manifest, operation)
    for image in kustomization.get("images", []):
        _rename_image(manifests, image)
    if namespace := kustomization.get("namespace"):
        _set_namespace(manifests, namespace)


def _resource(path: Path) -> list[Manifest]:
    """Return the manifests of a file, or of another kustomization."""
    manifests: list[Manifest] = []
    if path.is_dir():
        _add(manifests, path)
    else:
        # Copied, because anchors share values, and patches change them in place.
        documents = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        manifests += [json.loads(json.dumps(document)) for document in documents]
    return manifests


def _set_namespace(manifests: list[Manifest], namespace: str) -> None:
    for manifest in manifests:
        field = "name" if manifest["kind"] == "Namespace" else "namespace"
        manifest["metadata"][field] = namespace


def _generate(manifests: list[Manifest], folder: Path, generator: Mapping[str, Any]) -> None:
    texts = {Path(name).name: (folder / name).read_text(encoding="utf-8") for name in generator.get("files", [])}
    for name in generator.get("envs", []):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        texts |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    if generator.get("behavior") == "merge":
        named(manifests, "ConfigMap")[generator["name"]]["data"].update(texts)
    else:
        metadata = {"name": generator["name"]}
        manifests.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": texts})


def _targets(manifests: list[Manifest], target: Mapping[str, str]) -> Iterator[Manifest]:
    for name, manifest in named(manifests, target["kind"]).items():
        if re.fullmatch(target.get("name", ".*"), name):
            yield manifest


def _apply(manifest: Manifest, operation: Mapping[str, Any]) -> None:
    """Apply an operation of a JSON patch (RFC 6902)."""
    *parents, last = operation["path"].split("/")[1:]
    place: Any = manifest
    for step in parents:
        place = place[int(step) if isinstance(place, list) else step]
    value = copy.deepcopy(operation.get("value"))
    at = last if isinstance(place, dict) else len(place) if last == "-" else int(last)
    match operation["op"]:
        case "add" if isinstance(place, list):
            place.insert(at, value)
        case "add":
            place[at] = value
        case "replace":
            assert place[at] is not None
            place[at] = value
        case "remove":
            del place[at]
        case other:
            raise NotImplementedError(f"this resolver does not know the operation {other}")


def _rename_image(manifests: list[Manifest], image: Mapping[str, str]) -> None:
    for container in (container for manifest in manifests for container in containers(manifest)):
        if container["image"].partition(":")[0] == image["name"]:
            container["image"] = f"{image['newName']}:{image['newTag']}"
