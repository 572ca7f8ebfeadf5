"""The alerts of config/prometheus for the Prometheus operator: `python -m config.prometheus_rule` writes the file."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "config" / "prometheus" / "alerts.yml"
RULE = ROOT / "deploy" / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml"

_HEAD = """\
# Generated from config/prometheus/alerts.yml: change that file, then run `make docs`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: voicequeue
spec:
"""


def prometheus_rule() -> str:
    """Return the manifest: the groups of the rules file as its `spec`."""
    groups = ALERTS.read_text(encoding="utf-8").partition("groups:\n")
    return _HEAD + indent("".join(groups[1:]), "  ")


if __name__ == "__main__":
    RULE.write_text(prometheus_rule(), encoding="utf-8")
