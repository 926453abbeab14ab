"""Results of evaluations as tables, JSON, Markdown and curves."""

from __future__ import annotations

import json
import math
import statistics
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

from zerodefect.detector.facts import Figure
from zerodefect.evaluation.metrics import ImageMetrics, Metric, average
from zerodefect.evaluation.protocol import ALL, Evaluation, Row
from zerodefect.evaluation.worst_cases import WorstCase
from zerodefect.files import atomic_write
from zerodefect.methods import facts_of
from zerodefect.types import printable

FORMAT = "zerodefect-evaluation"
MEAN = "mean over products"

WORST = "worst"
"""Folder, beside the results, of the drawings of the worst cases."""


@dataclass(frozen=True)
class Cell:
    """One metric of one group over the seeds.

    Attributes:
        product: a product, or ``MEAN`` (equal weight, as the field averages).
        group: a defect kind, or ``ALL``.
        shots: references.
        metric: label, with the variant.
        mean: over the seeds; NaN if undefined.
        deviation: sample standard deviation over the seeds; None for a single one.
        reason: why it is undefined, or None.
        error_bound: of an approximate value, the exact mean lies within it of ``mean``; else 0.
    """

    product: str
    group: str
    shots: int
    metric: str
    mean: float
    deviation: float | None
    reason: str | None = None
    error_bound: float = 0.0

    def __str__(self) -> str:
        """Percent with one decimal, as the field prints; a dash where undefined."""
        if math.isnan(self.mean):
            return "-"
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


def summarise(rows: Sequence[Row]) -> list[Cell]:
    """Mean and deviation over the seeds, per product and group, then over the products."""
    by_cell: defaultdict[tuple[str, str, int, str], list[Metric]] = defaultdict(list)
    by_seed: defaultdict[tuple[int, str, int], list[Metric]] = defaultdict(list)
    for row in rows:
        label = row.metric.label
        by_cell[row.product, row.group, row.shots, label].append(row.metric)
        if row.group == ALL:
            by_seed[row.shots, label, row.seed].append(row.metric)
    if len({row.product for row in rows}) > 1:
        for (shots, label, _), metrics in by_seed.items():
            by_cell[MEAN, ALL, shots, label].append(replace(average(metrics), reason=None))
    return [_cell(*key, metrics) for key, metrics in by_cell.items()]


def _cell(product: str, group: str, shots: int, label: str, metrics: list[Metric]) -> Cell:
    mean = average(metrics)
    defined = [m.value for m in metrics if not math.isnan(m.value)]
    deviation = statistics.stdev(defined) if len(defined) > 1 else None
    reason = None if defined else next((m.reason for m in metrics if m.reason), None)
    return Cell(product, group, shots, label, mean.value, deviation, reason, mean.error_bound)


def published(method: str, data: str) -> tuple[Figure, ...]:
    """Published figures of a method on a data set whose name begins like ``data``."""

    def plain(text: str) -> str:
        return "".join(filter(str.isalnum, text.lower()))

    wanted = plain(data)
    return tuple(f for f in facts_of(method).figures if wanted and plain(f.data).startswith(wanted))


def write_results(evaluation: Evaluation, folder: Path, method: str) -> list[Path]:
    """Write ``results.json``, ``results.md`` and, with matplotlib, ``curves.png``.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = summarise(evaluation.rows)
    figures = published(method, evaluation.facts["data"]["name"])
    written = [folder / "results.json", folder / "results.md"]
    content = {
        "format": FORMAT,
        "version": 1,
        **evaluation.facts,
        "notes": list(evaluation.notes),
        "failures": [asdict(failure) for failure in evaluation.failures],
        "set_level_shots": list(evaluation.set_level_shots),
        "summary": [{**asdict(cell), "mean": _number(cell.mean)} for cell in cells],
        "rows": [
            {**asdict(row), "metric": {**asdict(row.metric), "value": _number(row.metric.value)}}
            for row in evaluation.rows
        ],
        "published": [asdict(figure) for figure in figures],
        "kinds": [one.as_dict() for one in evaluation.confusions],
        "counts": [one.as_dict() for one in evaluation.counts],
        "pictures": [asdict(picture) for picture in evaluation.pictures],
    }
    _write(written[0], json.dumps(content, indent=1, allow_nan=False) + "\n")
    _write(written[1], "\n".join(map(printable, markdown(evaluation, cells, figures))) + "\n")
    if draw_curves(evaluation, folder / "curves.png"):
        written.append(folder / "curves.png")
    return written


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def markdown(
    evaluation: Evaluation, cells: Sequence[Cell], figures: Sequence[Figure] = ()
) -> Iterator[str]:
    """Lines of the result as Markdown: a table per number of shots, then the protocol."""
    facts = evaluation.facts
    detector, protocol = facts["detector"], facts["protocol"]
    yield from (f"# {detector['method']} on {facts['data']['name']}", "")
    yield f"Backbone {detector['backbone']} ({detector['precision']}), values in percent."
    if facts["transductive"]:
        yield "Transductive: every score depends on the other pictures of the set."
    if facts.get("taught_kinds") or protocol.get("kind_examples"):
        yield "Kinds of defects were told by labelled examples."
    elif not facts_of(detector["method"]).trained:
        yield "Nothing was trained on any labelled data."
    for shots in protocol["shots"]:
        seeds = f", mean ± deviation over {protocol['seeds']} draws" if shots else ""
        yield from ("", f"## {shots}-shot{seeds}", "")
        yield from table([cell for cell in cells if cell.shots == shots])
    for confusion in evaluation.confusions:
        yield from ("", *confusion.lines())
    for counted in evaluation.counts:
        yield from ("", *counted.lines())
    bounds = {c.metric: c.error_bound for c in sorted(cells, key=lambda c: c.error_bound)}
    if any(bounds.values()):
        yield from ("", "Approximate values; the exact ones lie within, in percentage points:")
        yield from (f"- {name}: ± {100 * bound:.2g}" for name, bound in bounds.items() if bound)
    undefined = sorted({f"{c.metric}: {c.reason}" for c in cells if c.reason})
    if undefined:
        yield from ("", "A dash is an undefined value:", *(f"- {text}" for text in undefined))
    yield from ("", "## Protocol", "")
    yield "- Image values of a kind compare its pictures with the good ones; pixel values of a kind"
    yield "  look at its own pictures alone; `all` pools everything."
    if any("spro" in cell.metric for cell in cells):
        yield "- sPRO of a kind counts false positives on the good pictures, too; `all` is the mean"
        yield "  of the kinds, as MVTec's script has it."
    yield from (f"- {name}: {value}" for name, value in protocol.items())
    yield f"- viewing: {facts['viewing']}"
    yield f"- weights: {detector['weights']}"
    yield f"- data: {facts['data']['fingerprint']}"
    yield f"- versions: {facts['versions']}"
    yield f"- maps: {facts['maps']}"
    yield from (f"- note: {note}" for note in evaluation.notes)
    yield from (f"- data, {remark}" for remark in facts["data"].get("remarks", ()))
    if evaluation.failures:
        yield f"- files left out because they could not be read: {len(evaluation.failures)}"
    yield from _worst(evaluation.worst)
    if figures:
        yield from ("", "## Published figures (not ours)", "")
        yield from (f"- {f.data}, {f.setting}, {f.metric}: {f.value} ({f.source})" for f in figures)


def _worst(cases: Sequence[WorstCase]) -> Iterator[str]:
    """Lists of the pictures that were judged worst, each with a link to its drawing."""
    for (shots, anomalous), some in groupby(cases, key=lambda case: (case.shots, case.anomalous)):
        what = (
            "Defective pictures that score lowest" if anomalous else "Good ones that score highest"
        )
        yield from ("", f"## {what}, {shots}-shot (picture, map, mask)", "")
        for case in some:
            kind = f", {case.kind}" if anomalous else ""
            yield f"{case.rank}. {case.score:.4f} {case.product}{kind}: {case.image}"
            yield f"   ![{case.drawing}]({WORST}/{case.drawing})"


def table(cells: Sequence[Cell]) -> Iterator[str]:
    """Markdown table: a line per product and kind, a column per metric."""
    metrics = list(dict.fromkeys(cell.metric for cell in cells))
    found = {(cell.product, cell.group, cell.metric): cell for cell in cells}
    yield "| product | kind | " + " | ".join(metrics) + " |"
    yield "|---|---|" + "---|" * len(metrics)
    for product, group in dict.fromkeys((cell.product, cell.group) for cell in cells):
        values = (found.get((product, group, metric)) for metric in metrics)
        yield (
            f"| {product} | {group} | " + " | ".join(str(v) if v else "-" for v in values) + " |"
        )


def draw_curves(evaluation: Evaluation, path: Path) -> bool:
    """Draw ROC and precision-recall curves of the image scores, the first draw of each setting.

    Returns:
        False where matplotlib (extra ``plot``) is not installed, or there is nothing to draw.
    """
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        return False
    drawable = []
    for (product, shots, seed), (scores, labels) in evaluation.scores.items():
        if seed == 0 and 0 < labels.sum() < len(labels):
            images = ImageMetrics()
            images.update(scores, labels)
            label = printable(product).replace("$", r"\$")  # no formula
            drawable.append((f"{label}, {shots}-shot", images.curves()))
    if not drawable:
        return False
    canvas = Canvas(figsize=(11, 5), layout="constrained")
    roc, precision_recall = canvas.subplots(1, 2)
    for label, curve in drawable:
        roc.plot(curve.fpr, curve.tpr, label=label)
        precision_recall.plot(curve.tpr, curve.precision, drawstyle="steps-pre", label=label)
    roc.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    roc.set(xlabel="false-positive rate", ylabel="true-positive rate", title="Images: ROC")
    precision_recall.set(
        xlabel="recall", ylabel="precision", title="Images: precision and recall", ylim=(0, 1.02)
    )
    if len(drawable) <= 20:
        precision_recall.legend(fontsize="small")
    with atomic_write(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that its font lacks
        canvas.savefig(file, format="png", dpi=110)
    return True


def headline(method: str, evaluation: Evaluation) -> str:
    """The figures of a method in one line: of all products, first settings first."""
    cells = [cell for cell in summarise(evaluation.rows) if cell.group == ALL]
    products = {cell.product for cell in cells}
    told: dict[int, list[str]] = {}
    for cell in cells:
        if len(products) == 1 or cell.product == MEAN:
            told.setdefault(cell.shots, []).append(f"{cell.metric} {cell}")
    name = evaluation.facts["data"]["name"]
    figures = "; ".join(f"{shots}-shot {', '.join(each)}" for shots, each in told.items())
    together = evaluation.facts["transductive"] or evaluation.set_level_shots
    compared = " (transductive)" if together else ""
    return f"{method} on {name}{compared}: {figures or 'no figures'}"


def merged_table(results: Iterable[tuple[str, Evaluation]]) -> Iterator[str]:
    """Markdown table of several methods side by side: their pooled rows."""
    cells = []
    for method, evaluation in results:
        for cell in summarise(evaluation.rows):
            if cell.group == ALL:
                name = f"{method}, {cell.shots}-shot"
                cells.append(replace(cell, product=name, group=cell.product))
    lines = list(table(cells))
    yield lines[0].replace("| product | kind |", "| method | product |")
    yield from lines[1:]
