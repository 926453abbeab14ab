"""A chat model that explains inspections and answers questions on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from zerodefect.backbones.chat_model import ChatModel, ChatModelError, load_chat_model
from zerodefect.images import Picture
from zerodefect.inspection.answer_checks import checked
from zerodefect.inspection.archive import ProductError
from zerodefect.inspection.chat_answers import AnswerError, read_answer, shortened
from zerodefect.inspection.chat_prompts import conversation
from zerodefect.inspection.explanation import Explanation
from zerodefect.inspection.inspected import Inspection
from zerodefect.scoring.stream import Seen
from zerodefect.types import printable

if TYPE_CHECKING:
    from zerodefect.inspection.inspector import Inspector

_IN_A_ROW = 3  # answers that a run may miss before the model is no longer asked
_AT_ONCE = 4  # pictures that a server is asked about at a time
_LONGEST = 1000  # characters of a question
_TOKENS = 512  # of an answer, which takes about a hundred where it keeps to the form


class Explainer:
    """Asks a chat model about inspections; what it says is checked and added to the record.

    The model is shown the picture, good parts, the anomaly map and the regions, and not the
    verdict. Nothing that it says, or fails to say, changes a verdict or raises an error.

    Args:
        model: that is asked.
        references: pictures of good parts that it is shown, the first ones of many.

    Attributes:
        model, references: see above.
    """

    def __init__(self, model: ChatModel, references: Sequence[Picture] = ()) -> None:
        self.model, self.references = model, tuple(references)

    @classmethod
    def load(
        cls,
        name: str,
        inspector: Inspector | None = None,
        *,
        timeout: float | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> Explainer:
        """Load a chat model by name, with the good parts of an inspector.

        Args:
            name: a local folder or repository in the hub's cache, or a server's address, as of
                ``load_chat_model``. To a server, pictures leave this process.
            inspector: whose references the model is shown.
            timeout: seconds that an answer may take.
            device, precision: of a model in this process, see ``load_detector``.

        Raises:
            WeightsError: a model that cannot be had.
            ValueError: no such device or precision; an address of no server and model.
        """
        how: dict[str, Any] = {"timeout": timeout}
        if "://" not in name:
            from zerodefect.detector.load_detector import pick_device, pick_dtype

            where = pick_device(device)
            how |= {"device": where, "dtype": pick_dtype(precision, where)}
        return cls(load_chat_model(name, **how), good_parts(inspector) if inspector else ())

    def facts(self) -> dict[str, Any]:
        """Which model it is, and where pictures go; plain data."""
        model = self.model
        return {
            "name": printable(model.name),
            "sha256": model.fingerprint or None,
            "licence": model.licence,
            "sent_to": self.sent_to,
        }

    @property
    def sent_to(self) -> str | None:
        """Host that pictures are sent to; None where none leaves this process."""
        return printable(self.model.where) if self.model.leaves_process else None

    def notice(self) -> str:
        """What a user is told before a picture is shown to the model."""
        name = printable(self.model.name)
        if self.sent_to is None:
            return f"explained by {name}, in this process"
        return f"pictures leave this process: they are sent to {name} at {self.sent_to}"

    def explain(self, inspection: Inspection, picture: Any = None) -> Inspection:
        """Let the model explain a picture.

        Args:
            inspection: of it.
            picture: that was inspected, as ``open_image`` takes it, where it was not kept.

        Returns:
            The same with one more entry in ``conversation``.

        Raises:
            ValueError: there is no picture, or one of another size.
        """
        return self._asked(inspection, None, picture)

    def ask(self, inspection: Inspection, question: str, picture: Any = None) -> Inspection:
        """Ask a question on a picture; earlier questions and answers are remembered.

        Args and errors as of ``explain``; an empty question is a ValueError, too.
        """
        question = shortened(question, _LONGEST)
        if not question:
            raise ValueError("the question is empty")
        return self._asked(inspection, question, picture)

    def _asked(self, inspection: Inspection, question: str | None, picture: Any) -> Inspection:
        shown = inspection.shown(picture)
        turns = conversation(inspection, shown, self.references, question)
        size, said = (inspection.height, inspection.width), None
        try:
            said = self.model.answer(turns, _TOKENS)
            answer = checked(read_answer(said, size, question), inspection)
        except ChatModelError as error:
            answer = Explanation(question=question, fault=printable(error))
        except AnswerError as error:
            answer = Explanation(
                question=question, fault=str(error), said=shortened(said) if said else None
            )
        return self._added(inspection, answer)

    def _added(self, inspection: Inspection, answer: Explanation) -> Inspection:
        own = {"source": printable(self.model.name), "sent_to": self.sent_to}
        entry = answer.model_copy(update=own)
        return replace(inspection, conversation=(*inspection.conversation, entry))

    def explaining(
        self, found: Iterable[Seen[Any, Inspection]], *, good: bool = False
    ) -> Iterator[Seen[Any, Inspection]]:
        """Explain the pictures of a run as they come, and give them back in their order.

        A server is asked about a few at a time, while the next ones are inspected. A model that
        gives no answer three times in a row is not asked any more, so that a server that is down
        costs a few times its patience and not the night.

        Args:
            found: of ``Inspector.stream``.
            good: explain pictures that are called good, too.
        """
        at_once = _AT_ONCE if self.model.leaves_process else 1
        waiting: deque[tuple[Seen[Any, Inspection], Future[Inspection] | None]] = deque()
        missed = 0
        workers = ThreadPoolExecutor(at_once)
        try:
            for seen in chain(found, [None] * at_once):  # the last ones are waited for
                if seen is not None:
                    given_up = missed >= _IN_A_ROW
                    waiting.append((seen, self._begun(workers, seen, good, given_up)))
                if not waiting or (seen is not None and len(waiting) < at_once):
                    continue
                done, answer = waiting.popleft()
                if answer is None:
                    yield done
                    continue
                result = answer.result()
                missed = missed + 1 if result.conversation[-1].fault else 0
                yield Seen(done.source, done.picture, result)
        finally:
            workers.shutdown(wait=False, cancel_futures=True)

    def _begun(
        self, workers: ThreadPoolExecutor, seen: Seen[Any, Inspection], good: bool, given_up: bool
    ) -> Future[Inspection] | None:
        """The explanation of a picture, under way; None for one that is not to be explained."""
        result = seen.result
        if not isinstance(result, Inspection) or (result.verdict == "good" and not good):
            return None
        if given_up:
            reason = f"not asked, after {_IN_A_ROW} pictures in a row without an answer"
            return workers.submit(self._added, result, Explanation(fault=reason))
        return workers.submit(self.explain, result, seen.picture)


def good_parts(inspector: Inspector) -> tuple[Picture, ...]:
    """Pictures of good parts that an inspector knows, references first; none where it has none."""
    try:
        known = inspector.pictures(inspector.words())
        return tuple(known or inspector.good_pictures() or ())
    except ProductError:
        return ()
