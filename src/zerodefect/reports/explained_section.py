"""What the HTML report says of the chat model that explained its pictures."""

from __future__ import annotations

from html import escape

from zerodefect.inspection.records import Record
from zerodefect.types import printable


class ExplainedCounts:
    """Counts what chat models said of the pictures of a run."""

    def __init__(self) -> None:
        self.pictures = self.against = self.missed = 0
        self.hosts: set[str] = set()

    def add(self, record: Record) -> int:
        """Count a picture's; returns how many of its entries contradict the evidence."""
        entries = record.get("conversation") or ()
        against = sum(bool(one.get("contradictions")) for one in entries)
        self.pictures += bool(entries)
        self.against += bool(against)
        self.missed += any("fault" in one for one in entries)
        self.hosts |= {one["sent_to"] for one in entries if one.get("sent_to")}
        return against


def explained_section(manifest: Record, counts: ExplainedCounts) -> str:
    """HTML: which model explained how many pictures, and whether pictures left the process."""
    told = manifest.get("explained_by")
    if not told and not counts.pictures:
        return ""
    hosts = counts.hosts | ({told["sent_to"]} if told and told.get("sent_to") else set())
    lines = []
    if hosts:
        where = escape(printable(" and ".join(sorted(hosts))))
        lines.append(f"<strong>Pictures left this process: they were sent to {where}.</strong>")
    who = f" by {escape(printable(told['name']))}" if told else ""
    noun = "picture" if counts.pictures == 1 else "pictures"
    line = f"Explained{who}: {counts.pictures:,} {noun}"
    line += f"; {counts.against:,} against the evidence" if counts.against else ""
    line += f"; {counts.missed:,} without an answer" if counts.missed else ""
    lines.append(f"{line}. Verdicts are the policy's, whatever the model says.")
    kind = "explained sent" if hosts else "explained"
    return f'<div class="{kind}">{"".join(f"<p>{one}</p>" for one in lines)}</div>'
