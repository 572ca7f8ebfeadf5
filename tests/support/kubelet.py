"""The kubelet and the network plugin, for manifests: the environments of containers, and who may connect to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from tests.support.kustomized import Manifest, containers, named


def environment(container: Mapping[str, Any], manifests: list[Manifest], secret: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container; `secret` is the content of the Secret. Raises KeyError for a missing
    key."""
    maps = {name: manifest["data"] for name, manifest in named(manifests, "ConfigMap").items()}
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        variables |= maps[source["configMapRef"]["name"]]
    own: dict[str, str] = {}
    for variable in container.get("env", []):
        match variable.get("valueFrom"):
            case None:
                # Only variables that are listed before it are known.
                own[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: own[name[1]], variable["value"])
            case {"secretKeyRef": {"key": key, "optional": True}} if key not in secret:
                pass
            case {"secretKeyRef": {"key": key}}:
                own[variable["name"]] = secret[key]
            case {"configMapKeyRef": {"name": name, "key": key}}:
                own[variable["name"]] = maps[name][key]
    return variables | own


def secret_files(pod: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of the Secret that a pod mounts at /run/secrets: their keys in the Secret, by name."""
    items = [item for volume in pod["volumes"] if "secret" in volume for item in volume["secret"]["items"]]
    return {item["path"]: item["key"] for item in items}


def start(manifest: Manifest, manifests: list[Manifest], secret: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Write the files of a pod's Secret into the folder, instead of /run/secrets. Return the environment of its
    container."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, key in secret_files(manifest["spec"]["template"]["spec"]).items():
        (folder / name).write_text(secret[key], encoding="utf-8")
    [container] = containers(manifest)
    variables = environment(container, manifests, secret)
    return {name: value.replace("/run/secrets", str(folder)) for name, value in variables.items()}


class Network:
    """The connections that the NetworkPolicies of some manifests permit between their pods and addresses."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self._policies = [policy["spec"] for policy in named(manifests, "NetworkPolicy").values()]
        self._pods = {
            manifest["metadata"]["name"]: manifest["spec"]["template"] for manifest in manifests if containers(manifest)
        }

    def connections(self) -> set[tuple[str, str]]:
        """Return the pairs of pods of which the first reaches a port of the second."""
        return {
            (source, target)
            for source in self._pods
            for target, pod in self._pods.items()
            for port in pod["spec"]["containers"][0].get("ports", [])
            if self._permits("egress", source, target, port) and self._permits("ingress", target, source, port)
        }

    def reaches(self, source: str, address: str, port: int) -> bool:
        """Return whether a pod reaches an address outside the cluster."""
        return any(
            _port_matches(rule, {"containerPort": port})
            and (not rule.get("to") or any(_has_address(peer, address) for peer in rule["to"]))
            for rule in self._rules("egress", source)
        )

    def namespaces(self, target: str) -> list[dict[str, str]]:
        """Return the labels of the other namespaces from which a pod is reached."""
        peers = [peer for rule in self._rules("ingress", target) for peer in rule["from"]]
        return [peer["namespaceSelector"]["matchLabels"] for peer in peers if "namespaceSelector" in peer]

    def _rules(self, direction: str, pod: str) -> Iterator[Mapping[str, Any]]:
        policies = [
            policy
            for policy in self._policies
            if direction.capitalize() in policy["policyTypes"] and self._is_selected(policy["podSelector"], pod)
        ]
        assert policies != [], f"everything may connect to or from {pod}"
        for policy in policies:
            yield from policy.get(direction, [])

    def _permits(self, direction: str, pod: str, other: str, port: Mapping[str, Any]) -> bool:
        side = "to" if direction == "egress" else "from"
        return any(
            _port_matches(rule, port)
            and any(
                not {"namespaceSelector", "ipBlock"} & set(peer) and self._is_selected(peer["podSelector"], other)
                for peer in rule.get(side, [{"podSelector": {}}])
            )
            for rule in self._rules(direction, pod)
        )

    def _is_selected(self, selector: Mapping[str, Any], pod: str) -> bool:
        labels = self._pods[pod]["metadata"]["labels"]
        return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()) and all(
            labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", [])
        )


def _port_matches(rule: Mapping[str, Any], port: Mapping[str, Any]) -> bool:
    numbers = {port["containerPort"], port.get("name")}
    return "ports" not in rule or any(entry["port"] in numbers for entry in rule["ports"])


def _has_address(peer: Mapping[str, Any], address: str) -> bool:
    block = peer.get("ipBlock")
    return (
        bool(block)
        and _is_in(block["cidr"], address)
        and not any(_is_in(at, address) for at in block.get("except", []))
    )


def _is_in(network: str, address: str) -> bool:
    return ip_address(address) in ip_network(network)
