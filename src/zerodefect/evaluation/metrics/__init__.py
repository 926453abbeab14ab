"""Metrics of anomaly detection: exact by default, streaming, and named down to the variant.

``PixelMetrics`` and ``ImageMetrics`` take images one by one and merge; ``HistogramPixelMetrics``
trades exactness for constant memory and states the error bound;
``SPROMetrics`` is MVTec LOCO's metric. :class:`Query` describes every metric and variant.
"""

from zerodefect.evaluation.metrics.metric_query import (
    IMAGE_PANEL,
    PIXEL_PANEL,
    Metric,
    MetricError,
    Query,
    SpillError,
    average,
)
from zerodefect.evaluation.metrics.pixel_histogram import HistogramPixelMetrics
from zerodefect.evaluation.metrics.spro import Saturation, SPROMetrics
from zerodefect.evaluation.metrics.streaming_metrics import (
    ImageMetrics,
    PixelMetrics,
    PixelState,
    image_metrics,
    pixel_metrics,
)

__all__ = [
    "IMAGE_PANEL",
    "PIXEL_PANEL",
    "HistogramPixelMetrics",
    "ImageMetrics",
    "Metric",
    "MetricError",
    "PixelMetrics",
    "PixelState",
    "Query",
    "SPROMetrics",
    "Saturation",
    "SpillError",
    "average",
    "image_metrics",
    "pixel_metrics",
]
