"""Metrics of anomaly detection: exact by default, streaming, and named down to the variant.

``PixelMetrics`` and ``ImageMetrics`` take images one by one, merge, and are saved without pickle;
``HistogramPixelMetrics`` trades exactness for constant memory and states the error bound;
``SPROMetrics`` is MVTec LOCO's metric. :class:`Query` describes every metric and variant.
"""

from zerodefect.evaluation.metrics.curves import Totals
from zerodefect.evaluation.metrics.histogram import HistogramPixelMetrics
from zerodefect.evaluation.metrics.image import ImageMetrics, image_metrics
from zerodefect.evaluation.metrics.results import (
    IMAGE_PANEL,
    PIXEL_PANEL,
    VARIANTS,
    Metric,
    MetricError,
    Query,
    SpillError,
    average,
)
from zerodefect.evaluation.metrics.spro import Saturation, SPROMetrics, saturated_overlap
from zerodefect.evaluation.metrics.state import PixelMetrics, pixel_metrics
from zerodefect.evaluation.metrics.vertices import CurvePoints

__all__ = [
    "IMAGE_PANEL",
    "PIXEL_PANEL",
    "VARIANTS",
    "CurvePoints",
    "HistogramPixelMetrics",
    "ImageMetrics",
    "Metric",
    "MetricError",
    "PixelMetrics",
    "Query",
    "SPROMetrics",
    "Saturation",
    "SpillError",
    "Totals",
    "average",
    "image_metrics",
    "pixel_metrics",
    "saturated_overlap",
]
