"""A made-up folder as MMAD's is: pictures, questions, knowledge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

OPTIONS = {"A": "Yes.", "B": "No."}


def picture(path: Path, seed: int, size: tuple[int, int] = (24, 32)) -> None:
    """Noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def question(kind: str, answer: str = "A", options: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "Question": f"What of {kind}?",
        "Answer": answer,
        "Options": options or dict(OPTIONS),
        "type": kind,
    }


def question_tree(root: Path) -> Path:
    """Two data sets, one good and one defective picture in each, two questions about each."""
    content = {}
    four = {"A": "a hole", "B": "a dent", "C": "a stain", "D": "a scratch"}
    for number, name in enumerate(
        (
            "DS-MVTec/bottle/test/good/0.png",
            "DS-MVTec/bottle/test/crack/1.png",
            "VisA/pcb/test/good/2.png",
            "VisA/pcb/test/bad/3.png",
        )
    ):
        picture(root / name, number)
        dataset, product = name.split("/")[:2]
        template = f"{dataset}/{product}/train/good/{number}.png"
        picture(root / template, 10 + number)
        further = f"train/good/{number}s.png"  # relative to data set and class
        picture(root / dataset / product / further, 20 + number)
        good = "good" in name
        content[name] = {
            "image_path": "/".join(name.split("/")[2:]),
            "mask_path": "",
            "random_templates": [template],
            "similar_templates": [further],
            "conversation": [
                question("Anomaly Detection", "B" if good else "A"),
                question("Object Details" if good else "Defect Classification", "D", four),
            ],
            "conversation_old": [question("Object Structure")],
        }
    (root / "mmad.json").write_text(json.dumps(content), "utf-8")
    known = {"MVTec": {"bottle": {"normal": "A round rim.", "crack": "A sharp line."}}}
    (root / "domain_knowledge.json").write_text(json.dumps(known), "utf-8")
    return root
