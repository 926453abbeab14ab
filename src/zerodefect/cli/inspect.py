"""``zerodefect inspect``: a verdict with evidence for every picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from zerodefect.cli.explain_options import ExplainOptions, Told
from zerodefect.cli.opening import load_inspector, teach
from zerodefect.cli.options import (
    AsJson,
    BatchOptions,
    DetectorOptions,
    KindOptions,
    Options,
    Overwrite,
    Paths,
    ProductOptions,
    RuleOptions,
    option,
    output_option,
)
from zerodefect.cli.picture_options import PictureOptions
from zerodefect.cli.rule_options import ComponentRuleOptions
from zerodefect.cli.telling import progress, tell
from zerodefect.cli.terminal_rows import part_row, picture_row
from zerodefect.cli.verdict_options import VerdictOptions
from zerodefect.cli.word_options import WordOptions
from zerodefect.types import printable

if TYPE_CHECKING:
    from zerodefect.engines.local import Summary
    from zerodefect.inspection.inspector import Inspector
    from zerodefect.inspection.picture_sets import PictureSets
    from zerodefect.inspection.policy import Policy

_SHOWN = 20  # rows of the terminal table; the files hold them all
_NOTES_SHOWN = 5
_COLOURS = {"failed": "red", "defect": "red", "unsure": "yellow", "good": "green"}


@dataclass(frozen=True)
class SetOptions(Options, panel="Detector"):
    """How pictures are compared with each other."""

    batch: bool = option(
        False, "Compare the pictures with each other: musc, or the set method named.", "--batch"
    )
    batch_by: Literal["all", "folder", "look"] = option(
        "all",
        "What is of one product: all, each folder, or what looks alike.",
        metavar="all|folder|look",
    )
    batch_sample: int | None = option(
        None, "Pictures compared at once; default: what 2 GB hold.", min=2
    )


@dataclass(frozen=True)
class MaskOptions(Options, panel="Detector"):
    """How regions are drawn."""

    refine: str | None = option(
        None,
        "Sharp masks for regions: sam, a segmenter of 'zerodefect backbones', or its folder.",
        metavar="sam|NAME",
    )


@dataclass(frozen=True)
class RunOptions(Options, panel="Output"):
    """What a run leaves, and where."""

    output: Path | None = output_option(None, "Run folder; default: one in runs.")
    maps: bool = option(False, "Write float TIFF anomaly maps.", "--maps")
    report: bool = option(True, "Write the HTML report.")
    coco: Literal["rle", "polygons"] = option(
        "rle", "Regions in coco.json; those with holes stay RLE.", metavar="rle|polygons"
    )
    parquet: bool = option(False, "Write results.parquet, too.", "--parquet")
    overwrite: Overwrite = False


def inspect(
    paths: Paths,
    *,
    product: ProductOptions,
    verdict: VerdictOptions,
    rules: RuleOptions,
    kinds: KindOptions,
    asked: ComponentRuleOptions,
    detector: DetectorOptions,
    compared: SetOptions,
    masks: MaskOptions,
    pictures: PictureOptions,
    words: WordOptions,
    explained: ExplainOptions,
    run: RunOptions,
    batch: BatchOptions,
    as_json: AsJson = False,
) -> None:
    """Inspect pictures: verdict, regions, kinds, scores.

    Killed and started again, it goes on.

    Exit code 0: all inspected. 1: nothing could be done. 3: some files could not be inspected.
    """
    from zerodefect.images.part_files import find_parts

    files = find_parts(paths)
    asked.check(product.product)
    given, product, pictures = verdict.opened(product, pictures)
    good: list[Path] = []
    if compared.batch or _compares(detector.method):
        detector = _set_method(detector, product, verdict)
        good = find_parts(product.references or [])
        product = dataclasses.replace(product, references=None)
    explainer = explained.explainer(detector.device)
    inspector = load_inspector(product, detector, pictures, files, rules.vocabulary, masks.refine)
    given = inspector.policy if product.product else given
    given = inspector.policy = None if inspector.transductive else given  # of other pictures
    sets = _sets(inspector, files, compared, good, verdict.threshold, quiet=as_json)
    shown_none = sets is not None or not (product.product or product.references)
    several = sets is not None and sets.products > 1
    if several or good or (given is None and verdict.threshold is None and shown_none):
        sets = _compare_with_itself(inspector, files, batch.batch_size, sets, quiet=as_json)
    teach(inspector, kinds)
    asked.teach(inspector)
    inspector.check_rules()
    sets = _decided(inspector, sets, verdict, rules)
    compared_as = sets and [sets.by, sets.most, sorted(map(str, good))]
    choices = [*_choices(inspector, given, verdict, rules), compared_as, run.maps, run.report]
    choices += _further_choices(masks, explained, words)
    folder = run.output or default_folder(inspector, paths, choices)
    options = {**run.keywords(), **batch.keywords(), "part_by": rules.part_by, "sets": sets}
    options |= {"folder": folder, "words": words.checked(inspector)}
    options |= {"explainer": explainer, "explain_good": explained.explain_good}
    options.pop("output")
    told = explained.told(explainer, inspector)
    summary = _inspect(inspector, files, options, told, as_json)
    _print_summary(summary, inspector, told.lines(), quiet=as_json)
    if summary.failed:
        raise typer.Exit(3)


def _further_choices(
    masks: MaskOptions, explained: ExplainOptions, words: WordOptions
) -> list[Any]:
    """Of options that came later: none changes the folder of a run without it."""
    choices: list[Any] = [masks.refine] if masks.refine else []
    choices += [explained.explain, explained.explain_good] if explained.explain else []
    return [*choices, *(words.show_words or ())]


def _choices(
    inspector: Inspector, given: Policy | None, verdict: VerdictOptions, rules: RuleOptions
) -> list[Any]:
    """What was chosen besides detector and pictures; of policies only one that was given.

    One made on the spot follows from the rest; its last digits vary with the machine's load.
    """
    taught = inspector.taught_kinds.facts() if inspector.taught_kinds else None
    policy = given and given.model_dump(mode="json", exclude={"created"})
    told = [policy, verdict.threshold, inspector.bit_depth, rules.rules, rules.part_by, taught]
    return [*told, *([inspector.rule_set.facts()] if inspector.rule_set else [])]


def _compares(method: str | None) -> bool:
    """Whether a method of that name judges pictures by each other."""
    from zerodefect import methods

    return method in methods.names() and "set" in methods.get(str(method)).info.needs


def _set_method(
    detector: DetectorOptions, product: ProductOptions, verdict: VerdictOptions
) -> DetectorOptions:
    """The method of ``--batch``.

    Raises:
        ValueError: it judges each picture alone, or limits of other pictures are given.
    """
    from zerodefect import methods

    given = {"--product": product.product, "--checkpoint": detector.checkpoint}
    given["--policy"] = verdict.policy
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name}: what was learned from other pictures says nothing where those of a batch "
                "are compared with each other; leave it out, or --batch"
            )
    detector = dataclasses.replace(detector, method=detector.method or "musc")
    if not _compares(detector.method):
        these = ", ".join(filter(_compares, methods.names()))
        raise ValueError(f"--batch: {detector.method} judges each picture alone; choose {these}")
    return detector


def _sets(
    inspector: Inspector,
    files: list[Path],
    compared: SetOptions,
    good: list[Path],
    threshold: str | None,
    *,
    quiet: bool,
) -> PictureSets | None:
    """Which pictures are compared with each other; None where each is judged alone.

    Raises:
        ValueError: one raw score as the limit of several products.
    """
    from zerodefect.inspection.limit_changes import is_score
    from zerodefect.inspection.picture_sets import PictureSets

    if not inspector.transductive:
        if compared.batch_sample is not None or compared.batch_by != "all":
            raise ValueError("--batch-by and --batch-sample are for --batch")
        return None
    made = PictureSets.of(inspector, files, compared.batch_by, compared.batch_sample, good)
    tell(made.sentence(), err=quiet)
    if threshold and made.products > 1 and is_score(threshold):
        raise ValueError(
            f"--threshold {threshold}: one score says nothing of {made.products} products, each "
            "with a usual of its own. Inspect each by itself, or change the limits of each, such "
            "as x1.05"
        )
    return made


def _compare_with_itself(
    inspector: Inspector,
    files: list[Path],
    batch_size: int,
    sets: PictureSets | None,
    *,
    quiet: bool,
) -> PictureSets | None:
    """Provisional limits, where no good part was shown; others from good parts in the same set.

    Returns:
        The sets with limits of their own, where they are of several products.
    """
    from zerodefect.inspection.self_comparison import compare_with_itself, limits_of_sets

    with progress("comparing with each other", len(files), quiet=quiet) as bar:
        how: dict[str, Any] = {"batch_size": batch_size, "on_seen": lambda: bar(advance=1)}
        if sets:
            return limits_of_sets(inspector, sets, **how)
        compare_with_itself(inspector, files, **how)
        return None


def _decided(
    inspector: Inspector, sets: PictureSets | None, verdict: VerdictOptions, rules: RuleOptions
) -> PictureSets | None:
    """Rules and a limit of the user's own; of several products each by its own limits."""
    if sets is None or not sets.policies:
        if rules.rules or verdict.threshold is not None:
            inspector.policy = verdict.decided(inspector.active_policy(), rules)
        return sets
    return sets.judged_by(verdict.decided(policy, rules) for policy in sets.policies)


def _inspect(
    inspector: Inspector, files: list[Path], options: dict[str, Any], told: Told, as_json: bool
) -> Summary:
    """Inspect, and print what was found: records as they come, or a table at the end.

    ``options`` are those of ``inspect_files``. Where parts have several pictures, the table is one
    of parts.
    """
    from zerodefect.engines.local import inspect_files

    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    with progress("inspecting", len(files), quiet=as_json) as bar:

        def on_record(record: dict[str, Any]) -> None:
            bar(advance=1)
            told.add(record)
            if as_json:
                tell(json.dumps(record))
            else:
                rows.append(picture_row(record))

        def on_part(record: dict[str, Any]) -> None:
            if as_json:
                tell(json.dumps(record))
            else:
                parts.append(part_row(record))

        summary = inspect_files(inspector, files, on_record=on_record, on_part=on_part, **options)
    if not as_json:
        shown = (rows,) if summary.parts is None else (parts, "pictures", "part")
        _print_table(*shown, calibrated=summary.calibrated)
    return summary


def default_folder(inspector: Inspector, paths: list[Path], choices: list[Any]) -> Path:
    """``runs/<product>-<hash>``: the same command names the same folder, so that it resumes.

    ``choices`` are the options beside detector and pictures that make it another run, as JSON
    values.
    """
    import hashlib
    import re

    facts = [
        inspector.fingerprint(),
        choices,
        inspector.vocabulary.kinds,
        [str(path.absolute()) for path in paths],
    ]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
    slug = re.sub(r"[^a-z0-9]+", "-", (inspector.object or "batch").lower()).strip("-") or "run"
    return Path("runs") / f"{slug[:40]}-{digest}"


def _print_table(
    rows: list[dict[str, Any]],
    found_in: str = "regions",
    name_of: str = "image",
    *,
    calibrated: bool,
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from zerodefect.types import told_score

    worst = list(_COLOURS)
    rows = sorted(rows, key=lambda r: (worst.index(r["verdict"]), -(r["score"] or 0.0)))
    table = Table(box=None, pad_edge=False)
    verdict = "verdict" if calibrated else "verdict (provisional)"
    for name, justify in ((verdict, "left"), ("score", "right"), ("p", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column(found_in)
    table.add_column(name_of, overflow="fold")
    for row in rows[:_SHOWN]:
        score = "" if row["score"] is None else told_score(row["score"])
        p_value = "" if row["p_value"] is None else f"{row['p_value']:.3g}"
        found = "; ".join(filter(None, [row["kinds"], row["reason"], row["notes"]]))
        # Text and not markup: a file may be called [red] or :bug:
        words = [Text(printable(each)) for each in (score, p_value, found, row["image"])]
        table.add_row(Text(row["verdict"], _COLOURS[row["verdict"]]), *words)
    console = Console()
    if not console.is_terminal:
        console.width = 1000  # a row is a line
    console.print(table)
    if len(rows) > _SHOWN:
        console.print(f"... and {len(rows) - _SHOWN} more in the files below")


def _print_summary(
    summary: Summary, inspector: Inspector, explained: Iterable[str], quiet: bool
) -> None:
    from zerodefect.reports.run_folder import TABLES

    policy = inspector.active_policy()
    resumed = summary.images - summary.inspected
    images = f"{summary.images} image{'s' * (summary.images != 1)}"
    again = f" ({resumed} done before)" if resumed else ""
    lines = [f"{images}: {_counted(summary.verdicts)}{again}"]
    if summary.parts is not None:
        count = sum(summary.parts.values())
        lines.insert(0, f"{count} part{'s' * (count != 1)}: {_counted(summary.parts)}")
    lines += summary.repeated[:_NOTES_SHOWN]
    lines += [*explained, *_notes_told(summary.notes)]
    if summary.calibrated:
        lines += policy.told()
    else:
        lines.append(f"UNCALIBRATED: {' '.join(policy.told())}")
    there = (name for name in TABLES if (summary.folder / name).exists())
    lines.append(f"results: {summary.folder} ({', '.join(there)})")
    if summary.report:
        lines.append(f"report:  {summary.report}")
    if summary.failed:
        files = f"{summary.failed} file{'s' * (summary.failed != 1)}"
        lines.append(f"{files} could not be inspected; results.csv says why")
    for line in lines:
        tell(line, err=quiet)


def _counted(verdicts: dict[str, int]) -> str:
    names = ("defect", "unsure", "good", "failed")
    return ", ".join(f"{verdicts[name]} {name}" for name in names if verdicts.get(name))


def _notes_told(notes: dict[str, int]) -> list[str]:
    """What is to know about the files, the commonest first."""
    common = sorted(notes.items(), key=lambda note: (-note[1], note[0]))
    lines = [f"note on {n} file{'s' * (n != 1)}: {note}" for note, n in common[:_NOTES_SHOWN]]
    more = len(common) - _NOTES_SHOWN
    return lines if more <= 0 else [*lines, f"{more} more notes; results.csv has them all"]
