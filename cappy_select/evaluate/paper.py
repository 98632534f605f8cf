"""Zero-shot accuracy as the paper has it, and ours beside it on the tasks that both have.

Tan et al., Cappy: Outperforming and Boosting Large Multi-Task LMs with a Small Scorer (NeurIPS 2023), figure 1 and
the table of its section 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cappy_select.evaluate.report import Picture, Table

TASKS = (
    "ANLI R1", "ANLI R2", "ANLI R3", "CB", "RTE", "StoryCloze", "WSC", "WiC", "Winogrande", "WinoGender", "CrowS-Pairs"
)  # fmt: skip


class Published(NamedTuple):
    """A model of the paper: accuracies in per cent, in the order of TASKS, where they are published."""

    name: str
    parameters: int | None
    mean: float
    accuracies: tuple[float, ...] = ()


PUBLISHED = (
    Published("OPT-30B", 30_000_000_000, 47.6, (33.7, 34.1, 34.7, 24.6, 56.4, 55.5, 43.5, 50.8, 50.2, 54.9, 85.5)),
    Published("OPT-IML-30B", 30_000_000_000, 51.3, (37.1, 35.4, 36.6, 43.2, 67.8, 90.7, 58.2, 54.7, 53.4, 64.6, 22.3)),
    Published(
        "OPT-IML-175B", 175_000_000_000, 56.5, (42.2, 38.5, 39.6, 56.4, 73.4, 95.0, 59.2, 53.6, 56.6, 72.7, 34.4)
    ),
    Published("T0-11B", 11_000_000_000, 58.2, (42.1, 37.9, 39.7, 58.5, 80.2, 96.7, 58.6, 56.0, 62.5, 83.8, 24.0)),
    Published("Cappy large", 360_000_000, 56.6, (34.3, 33.9, 34.7, 59.4, 71.9, 93.7, 63.8, 51.9, 51.7, 68.9, 57.8)),
    Published("Cappy base", 120_000_000, 49.9),
    Published("OPT-175B", 175_000_000_000, 49.3),
    Published("BART0 base", None, 45.7),
    Published("BART0 large", None, 50.2),
    Published("reward model 185M", 185_000_000, 43.6),
    Published("reward model 435M", 435_000_000, 53.3),
)


class ModelRow(BaseModel):
    """A model's accuracies, fractions of 1; `tasks` is empty where only the mean is published."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    parameters: int | None
    tasks: dict[str, float]
    mean: float


class PaperComparison(BaseModel):
    """Our models and the paper's on the tasks they share."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    tasks: tuple[str, ...]
    chance: float
    ours: tuple[ModelRow, ...]
    published: tuple[ModelRow, ...] = Field(description="means are over `tasks`; mean-only ones if that is all eleven")


def paper_task(name: str) -> str | None:
    """The paper's name of a task as we, PromptSource or the hub call it; None when the paper hasn't it."""
    return _SPELLINGS.get(_letters(name))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("super").removeprefix("glue")


_SPELLINGS = {_letters(name): name for name in TASKS} | {
    "wscfixed": "WSC",
    "winograndexl": "Winogrande",
    "winograndewinograndexl": "Winogrande",
    "storycloze2016": "StoryCloze",
    "axg": "WinoGender",
}


def beside_paper(
    ours: Sequence[tuple[str, int | None, Mapping[str, float]]], chance: Mapping[str, float]
) -> PaperComparison | None:
    """Our models beside the paper's; None when no task is the paper's.

    Args:
        ours: Name, parameters, and accuracy by our tasks' names.
        chance: By our tasks' names.
    """
    spelled = {known: name for name in reversed(list(chance)) if (known := paper_task(name)) is not None}
    tasks = tuple(name for name in TASKS if name in spelled)
    if not tasks:
        return None

    def row(name: str, parameters: int | None, accuracies: Mapping[str, float]) -> ModelRow:
        found = {task: accuracies[task] for task in tasks}
        return ModelRow(name=name, parameters=parameters, tasks=found, mean=float(np.mean(list(found.values()))))

    published = []
    for model in PUBLISHED:
        if model.accuracies:
            fractions = [value / 100 for value in model.accuracies]
            published.append(row(model.name, model.parameters, dict(zip(TASKS, fractions, strict=True))))
        elif tasks == TASKS:
            published.append(ModelRow(name=model.name, parameters=model.parameters, tasks={}, mean=model.mean / 100))
    return PaperComparison(
        tasks=tasks,
        chance=float(np.mean([chance[spelled[task]] for task in tasks])),
        ours=tuple(
            row(name, parameters, {task: accuracies[spelled[task]] for task in tasks})
            for name, parameters, accuracies in ours
        ),
        published=tuple(published),
    )


def paper_table(found: PaperComparison) -> Table:
    """A model a row, a task a column."""
    rows = [
        (
            f"{model.name}{of}",
            "–" if model.parameters is None else short_count(model.parameters),
            *(model.tasks.get(task) for task in found.tasks),
            model.mean,
        )
        for models, of in ((found.ours, ""), (found.published, " (paper)"))
        for model in models
    ]
    left_out = ", ".join(f"{model.name} {model.mean}" for model in PUBLISHED if not model.accuracies)
    whole = "" if found.tasks == TASKS else f" Of others only the mean over all eleven is published: {left_out}."
    return Table(
        "Beside the paper",
        ("model", "parameters", *found.tasks, "mean"),
        rows,
        f"The {len(found.tasks)} of the paper's {len(TASKS)} tasks that were measured here, and means over them alone. "
        f"The paper's instances and templates may be others than ours.{whole}",
    )


def named_parameters(name: str) -> int | None:
    """The parameter count that a model's name says (`opt-30b`, `reward-355M`); None when it says none."""
    found = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", name.lower())
    return None if found is None else round(float(found[1]) * (1e9 if found[2] == "b" else 1e6))


def short_count(count: float) -> str:
    """`22.7M`, `30B`."""
    value, unit = (count / 1e9, "B") if count >= 1e9 else (count / 1e6, "M")
    return f"{value:.3g}{unit}"


def paper_picture(found: PaperComparison) -> Picture:
    """The paper's figure 1, on the common tasks: accuracy against the number of parameters."""

    def draw(figure: Any) -> None:
        from matplotlib.ticker import LogLocator

        axes = figure.subplots()
        own, *others = found.ours
        points = []
        for models, marker, color, size, label in (
            ([own], "*", "tab:red", 18, "ours"),
            (others, "D", "tab:orange", 7, "measured beside it"),
            (found.published, "o", "tab:blue", 7, "the paper's"),
        ):
            known = [(model.name, model.parameters, 100 * model.mean) for model in models if model.parameters]
            if known:
                _, x, y = zip(*known, strict=True)
                axes.plot(x, y, marker, color=color, markersize=size, label=label)
                points += known
        axes.axhline(100 * found.chance, color="grey", linestyle=":", label="chance")
        axes.set_xscale("log", subs=())
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(lambda count, _: short_count(count))  # the default one writes formulas
        axes.margins(x=0.12, y=0.15)
        axes.set_xlabel("parameters")
        axes.set_ylabel(f"mean accuracy on {len(found.tasks)} tasks, %")
        axes.grid(alpha=0.3)
        figure.legend(frameon=False, loc="outside upper center", ncols=4)
        _name_points(axes, points)

    return Picture("parameters", "Accuracy against size, beside the paper's models on the same tasks.", draw)


def _name_points(axes: Any, points: Sequence[tuple[str, int, float]]) -> None:
    """A name at each point: above, below or beside it, where it hides no other name or point."""
    size, height = 9.0, 12.0  # points of type
    axes.autoscale_view()
    scale = 72 / axes.figure.dpi
    at = [axes.transData.transform((x, y)) * scale for _, x, y in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    for (name, *point), (x, y) in zip(points, at, strict=True):
        width = 0.58 * size * len(name)
        places = [(-width / 2, step) for step in (11, -9 - height)] + [(10, -height / 2), (-10 - width, -height / 2)]
        places += [(-width / 2, step) for step in (11 + height, -9 - 2 * height, 11 + 2 * height)]
        boxes = [(x + right, y + up, x + right + width, y + up + height) for right, up in places]
        free = [not any(_meet(box, other) for other in taken) for box in boxes]
        chosen = free.index(True) if True in free else 0
        taken.append(boxes[chosen])
        axes.annotate(name, point, xytext=places[chosen], textcoords="offset points", fontsize=size)


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
