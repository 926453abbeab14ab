"""``zerodefect pretrain``: train the embedded model, or adapt it to one's own good pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerodefect.cli.options import Device, Precision, option, output_option
from zerodefect.cli.telling import progress, tell

FIRST = "first"  # folder of the first stage, in that of the run


def pretrain(
    output: Path = output_option(Path("pretrain-run"), "Run folder; the same folder resumes."),
    good: Path | None = option(
        None,
        "Adapt the model to these good pictures, in minutes, instead of training one.",
        metavar="FOLDER",
    ),
    onto: str | None = option(
        None,
        "Leave the first stage out: take its towers from these weights, a file or 'embedded'. "
        "With --good: adapt these.",
    ),
    first_steps: int | None = option(
        None, "Steps of the first stage; default: those of the packaged model.", min=1
    ),
    steps: list[int] = option(
        [],
        "Steps of the second stage; of several runs the mean is taken. Default: 200 and 600. "
        "With --good: of adapting; default: 80.",
    ),
    batch: int | None = option(None, "Pictures a step.", min=1),
    seed: int = option(0, "Decides weights, pictures, prompts."),
    surroundings: bool = option(
        False,
        "In the second stage half of the products lie on other materials, among other things, or "
        "under a lamp.",
        "--surroundings",
    ),
    threads: int | None = option(None, "Processor threads.", min=1),
    device: Device = "auto",
    precision: Precision = "auto",
    preview: bool = option(False, "Only write a contact sheet of training pictures.", "--preview"),
) -> None:
    """Train the embedded model from a seed and a network that knows ImageNet, or adapt it.

    First the text tower and a tower that sees pixels, then the tower on the frozen network. With
    --good only that tower goes on learning, from good pictures with drawn damage. Killed and
    started again, it goes on.
    """
    from zerodefect.backbones.precision import pick_precision
    from zerodefect.detector.load_detector import pick_device
    from zerodefect.pretraining import model_and_sheets, pretrain_clip

    if good:
        _check_adapting(preview, surroundings, first_steps, steps)
    if preview:
        output.mkdir(parents=True, exist_ok=True)
        tell(f"contact sheet: {model_and_sheets.preview(output / 'preview.png', seed=seed)}")
        return
    where = str(pick_device(device))
    given: dict[str, Any] = {"seed": seed, "device": where}
    given |= {"precision": pick_precision(precision, where)}
    given |= {n: v for n, v in (("batch", batch), ("threads", threads)) if v is not None}
    if good:
        _adapt(good, onto, output, steps, given)
        return
    if onto is None:
        first = pretrain_clip.PretrainConfig(**given)
        onto = str(_run(first, output / FIRST, first_steps or pretrain_clip.PACKAGED_STEPS))
    _second_stage(output, steps, {**given, "onto": onto, "surroundings": surroundings})


def _second_stage(output: Path, steps: Sequence[int], given: dict[str, Any]) -> None:
    from zerodefect.pretraining import model_and_sheets, pretrain_stem

    made = []
    for length in steps or pretrain_stem.LENGTHS:
        config = pretrain_stem.StemConfig(steps=length, **given)
        made.append(_run(config, output / f"steps-{length}", None))
    weights = model_and_sheets.mean_of(made, output)
    _told(weights, [path.parent for path in made])


def _check_adapting(
    preview: bool, surroundings: bool, first_steps: int | None, steps: Sequence[int]
) -> None:
    given = {
        "--preview": preview,
        "--surroundings": surroundings,
        "--first-steps": first_steps,
    }
    for other, there in given.items():
        if there:
            raise ValueError(f"--good has no first stage and no drawn products: leave {other} out")
    if len(steps) > 1:
        raise ValueError("--good is one run: give --steps once")


def _adapt(
    good: Path, onto: str | None, output: Path, steps: Sequence[int], given: dict[str, Any]
) -> None:
    from zerodefect.pretraining.adapt_to_pictures import STEPS, adapt_config

    config = adapt_config(good, onto or "embedded", **given, steps=(steps or [STEPS])[0])
    tell(f"from:    {good}: {len(config.good)} pictures")
    weights = _run(config, output, None)
    _told(weights, [output])
    tell(f"keep:    zerodefect calibrate GOOD --backbone {weights} --output PRODUCT.zd")


def _told(weights: Path, runs: Sequence[Path]) -> None:
    from zerodefect.pretraining import pretrain_clip
    from zerodefect.training import journal

    tell(f"weights: {weights}")
    logs = f"{journal.LOG}, {journal.CURVES}, {pretrain_clip.SAMPLES}"
    tell(f"logs:    {logs} in {', '.join(map(str, runs))}")
    tell(f"use:     zerodefect inspect PICTURES --backbone {weights}")


def _run(config: Any, folder: Path, until: int | None) -> Path:
    from zerodefect.pretraining import pretrain_clip

    with progress("pretraining", min(config.steps, until or config.steps)) as bar:

        def on_step(step: int, losses: dict[str, float]) -> None:
            bar(completed=step, description=f"loss {losses['total']:.3f}")

        return pretrain_clip.pretrain(config, folder, on_step, until)
