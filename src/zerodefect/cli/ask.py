"""``zerodefect ask``: questions on one picture, answered by a chat model."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zerodefect.cli.explain_options import MODEL, opened_explainer, told_entry
from zerodefect.cli.opening import load_inspector
from zerodefect.cli.options import (
    AsJson,
    DetectorOptions,
    Options,
    ProductOptions,
    RuleOptions,
    option,
)
from zerodefect.cli.picture_options import PictureOptions
from zerodefect.cli.telling import say, tell
from zerodefect.cli.verdict_options import VerdictOptions

if TYPE_CHECKING:
    from zerodefect.inspection.explainer import Explainer
    from zerodefect.inspection.inspected import Inspection
    from zerodefect.inspection.inspector import Inspector

_NO_MODEL = (
    "no chat model is named, so that the evidence is all there is: --model FOLDER, or --model "
    "http://HOST:8000/v1#MODEL, which the picture is then sent to"
)

OnePicture = Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture.")]
Questions = Annotated[
    list[str] | None,
    typer.Argument(metavar="QUESTION", help="One or more; without, it is explained."),
]


@dataclass(frozen=True)
class TalkOptions(Options, panel="Output"):
    """Whom to ask, and where the conversation is kept."""

    model: str | None = option(
        None,
        "Chat model: a folder, a name of 'zerodefect backbones', or a server, which pictures are "
        "then sent to: http://HOST:8000/v1#MODEL. Without, the evidence alone is told.",
        metavar=MODEL,
    )
    record: Path | None = option(None, "Keep the conversation here; if it is there, go on with it.")
    timeout: float | None = option(
        None, "Seconds that an answer may take; default 300, of a server 60.", min=0.1
    )


def ask(
    picture: OnePicture,
    questions: Questions = None,
    *,
    talk: TalkOptions,
    product: ProductOptions,
    verdict: VerdictOptions,
    rules: RuleOptions,
    detector: DetectorOptions,
    pictures: PictureOptions,
    as_json: AsJson = False,
) -> None:
    """Ask a chat model about one picture.

    The picture is inspected as by 'inspect'. The model sees it with good parts, anomaly map and
    regions; its answers are checked against them, and what contradicts them is said. The verdict is
    the policy's.

    Exit code 0: answered. 1: the picture could not be inspected. 3: a question got no answer.
    """
    if rules.part_by is not None:
        raise ValueError("--part-by: a question is about one picture")
    if not all(question.strip() for question in questions or ()):
        raise ValueError("a question is empty. Write one, or none to have the picture explained")
    explainer = opened_explainer(talk.model, talk.timeout, detector.device) if talk.model else None
    given, product, pictures = verdict.opened(product, pictures)
    inspector = load_inspector(product, detector, pictures, [picture], rules.vocabulary)
    inspector.policy = inspector.policy if product.product else given
    if given is None and verdict.threshold is None and not (product.product or product.references):
        _without_limits(inspector, picture)
    if rules.rules or verdict.threshold is not None:
        inspector.policy = verdict.decided(inspector.active_policy(), rules)
    outcome = _continued(inspector, inspector.inspect(picture), talk.record)
    if not as_json:
        _tell_evidence(outcome)
    if explainer is None:
        say(_NO_MODEL)
        _keep(inspector, outcome, talk.record)
    else:
        outcome = _asked(inspector, explainer, outcome, questions, talk.record, quiet=as_json)
    if as_json:
        tell(json.dumps(outcome.to_dict()))
    answers = outcome.conversation[-max(1, len(questions or ())) :] if explainer else ()
    if any(one.fault for one in answers) or (questions and not explainer):
        raise typer.Exit(3)


def _without_limits(inspector: Inspector, picture: Path) -> None:
    """Provisional limits, as 'inspect' has them for a picture alone."""
    from zerodefect.inspection.self_comparison import compare_with_itself

    compare_with_itself(inspector, [picture])


def _asked(
    inspector: Inspector,
    explainer: Explainer,
    outcome: Inspection,
    questions: list[str] | None,
    record: Path | None,
    *,
    quiet: bool,
) -> Inspection:
    """One question after the other, each kept and told when it is answered."""
    from zerodefect.inspection.explainer import good_parts

    explainer.references = good_parts(inspector)
    for question in questions or [""]:
        outcome = explainer.ask(outcome, question) if questions else explainer.explain(outcome)
        _keep(inspector, outcome, record)
        if not quiet:
            _tell_answer(outcome)
    return outcome


def _continued(inspector: Inspector, outcome: Inspection, record: Path | None) -> Inspection:
    """The inspection with what was said before, where a record has it."""
    from zerodefect.inspection.sources import digest
    from zerodefect.inspection.talk_record import TalkRecord

    if record is None or not record.exists():
        return outcome
    assert outcome.picture is not None
    which = digest(outcome.picture), inspector.fingerprint()
    said = TalkRecord.load(record).conversation(outcome, *which, record)
    return dataclasses.replace(outcome, conversation=said)


def _keep(inspector: Inspector, outcome: Inspection, record: Path | None) -> None:
    from zerodefect.inspection.sources import digest
    from zerodefect.inspection.talk_record import TalkRecord

    if record is not None:
        assert outcome.picture is not None
        which = digest(outcome.picture), inspector.fingerprint()
        TalkRecord.of(outcome, *which).save(record)


def _tell_evidence(outcome: Inspection) -> None:
    tell(outcome)
    tell(f"evidence: {outcome.explanation}")
    if outcome.answer:
        tell(f"answer of the method: {outcome.answer}")
    if outcome.conversation:
        count = len(outcome.conversation)
        tell(f"{count} question{'s' * (count != 1)} asked before; the last one:")
        _tell_answer(outcome)


def _tell_answer(outcome: Inspection) -> None:
    last = outcome.conversation[-1]
    if last.question:
        tell(f"question: {last.question}")
    for line in told_entry(last.to_dict()):
        tell(line)
