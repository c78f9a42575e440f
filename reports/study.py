"""What the experiments under reports/ share: points that are computed once, tables, figures, gates, digits.

A point is one training or evaluation. It is a small JSON file, written when it is done; a run that was
interrupted goes on where it ended, and a point is computed again when its settings have changed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

REPORTS = Path(__file__).resolve().parent
N_SEEDS = 5
Point = dict[str, float]


@dataclass(frozen=True)
class Study:
    """One experiment: where its points and its report are, and how much of it runs."""

    name: str
    folder: Path
    small: bool
    """Whether only a part runs, to see that everything works; its numbers mean nothing."""
    failed: list[str] = field(default_factory=list)

    @property
    def seeds(self) -> range:
        """Seeds that are averaged over, where nothing else is said."""
        return self.some_seeds(N_SEEDS)

    def some_seeds(self, full: int) -> range:
        """The first seeds, `full` of them but for the small version."""
        return range(2 if self.small else full)

    def epochs(self, full: int) -> int:
        """Epochs of a training."""
        return max(1, full // 8) if self.small else full

    def point(self, name: str, settings: Mapping[str, object], compute: Callable[[], Point]) -> Point:
        """The point called `name`, read where it was computed before with the same settings."""
        path = self.folder / "points" / f"{name}.json"
        wanted = json.loads(json.dumps(dict(settings)))
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["settings"] == wanted:
                return found["values"]
        started = time.monotonic()
        values = {key: float(value) for key, value in sorted(compute().items())}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"settings": wanted, "values": values}, indent=1, sort_keys=True)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
        print(f"{self.name}: {name} ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)
        return values

    def over_seeds(
        self, name: str, settings: Mapping[str, object], compute: Callable[[int], Point], n_seeds: int = N_SEEDS
    ) -> Figures:
        """A point for every seed."""
        points = [
            self.point(f"{name}_seed{seed}", {**settings, "seed": seed}, lambda seed=seed: compute(seed))
            for seed in self.some_seeds(n_seeds)
        ]
        return Figures({key: np.array([point[key] for point in points]) for key in points[0]})

    def gate(self, text: str, found: str, holds: bool) -> str:
        """A row of the table of pass criteria."""
        if not holds:
            self.failed.append(text)
        return f"| {text} | {found} | {'yes' if holds else 'no'} |"

    def write(self, lines: Sequence[str]) -> int:
        """Write the report; returns the exit code: 1 when a criterion of the full experiment does not hold."""
        self.folder.mkdir(parents=True, exist_ok=True)
        note = ["", "This is the small version: too little training and too few seeds to mean anything."]
        text = "\n".join([*lines, *(note if self.small else [])]) + "\n"
        (self.folder / "README.md").write_text(text, encoding="utf-8")
        print(text)
        return 1 if self.failed and not self.small else 0


@dataclass(frozen=True)
class Figures:
    """Values of one setting over the seeds."""

    values: Mapping[str, np.ndarray]

    def mean(self, key: str) -> float:
        """Mean over the seeds."""
        return float(self.values[key].mean())

    def text(self, key: str) -> str:
        """Mean and standard deviation over the seeds."""
        return f"{self.values[key].mean():.1f} ± {self.values[key].std():.1f}"

    def brief(self, key: str) -> str:
        """Mean to four digits, with the standard deviation where it shows in them."""
        mean, spread = self.mean(key), float(self.values[key].std())
        text = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.4g}"
        if spread < 5e-4 * abs(mean):
            return text
        return f"{text} ± {spread:,.0f}" if spread >= 10 else f"{text} ± {spread:.2g}"


GATES = ["| criterion | found | holds |", "|---|---|---|"]


def study(name: str, description: str | None) -> Study:
    """The study that the command line asks for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--small", action="store_true", help="run a small part, into reports/runs/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = REPORTS / "runs" / f"{name}-small" if arguments.small else REPORTS / name
    return Study(name, folder, arguments.small)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]


@dataclass(frozen=True)
class Digits:
    """Scikit-learn's handwritten digits (UCI, Alpaydin and Kaynak 1998), pixels 0..1, shape (sample, 1, edge, edge)."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def flat(self) -> Digits:
        """Images as vectors."""
        return Digits(self.images.flatten(1), self.labels, self.test_images.flatten(1), self.test_labels)

    def enlarged(self, edge: int) -> Digits:
        """Images of edge x edge pixels, interpolated."""

        def larger(images: Tensor) -> Tensor:
            return functional.interpolate(images, size=(edge, edge), mode="bilinear").clamp(0, 1)

        return Digits(larger(self.images), self.labels, larger(self.test_images), self.test_labels)


def digits() -> Digits:
    """70 % to train, 30 % to test, every class alike."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.3, random_state=0, stratify=labels)
    train, test = (torch.as_tensor(part, dtype=torch.float32).view(-1, 1, 8, 8) for part in parts[:2])
    return Digits(train, torch.as_tensor(parts[2]), test, torch.as_tensor(parts[3]))
