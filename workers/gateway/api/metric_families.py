"""Metric families of Prometheus from samples."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "voicequeue_"

Samples = Iterable[tuple[dict[str, str], float]]


def gauge(name: str, description: str, samples: Samples) -> Metric:
    """Return a gauge."""
    return _filled(GaugeMetricFamily(PREFIX + name, description), samples)


def counter(name: str, description: str, samples: Samples) -> Metric:
    """Return a counter."""
    return _filled(CounterMetricFamily(PREFIX + name, description), samples, suffix="_total")


def _filled(family: Metric, samples: Samples, suffix: str = "") -> Metric:
    for labels, value in samples:
        family.add_sample(
            family.name + suffix, {label: str(label_value) for label, label_value in labels.items()}, value
        )
    return family
