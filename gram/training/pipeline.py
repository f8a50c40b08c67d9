"""Training from beginning to end: a list of stages over one run; each can be left out, resumed and replaced."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from gram.coder.base import LEXICON
from gram.coder.folder import check_model, load_coder
from gram.coder.precision import keeping
from gram.errors import SettingError
from gram.folders import check_replaceable, new_folder, write_json
from gram.locks import lock_folder, resolve
from gram.ranking.scorer import file_of
from gram.records import Interaction, Product
from gram.training import stages as steps
from gram.training.causal import stages as causal
from gram.training.run import Settings, TrainingRun, work_folder


class Stage(NamedTuple):
    """A step of training: it changes the run it is given."""

    name: str
    run: Callable[[Any], None]


STAGES = (
    Stage("lexicon", steps.mine_lexicon),
    Stage("joint", steps.train_jointly),
    Stage("co-training", steps.co_train),
    Stage("co-alignment", steps.co_align),
    Stage("scorer", steps.fit_scorer),
    Stage("health", steps.report_health),
)
"""All stages in order. The first two are needed; any other can be left out."""

CAUSAL_STAGES = (
    Stage("lexicon", causal.mine_lexicon),
    Stage("joint", causal.train_jointly),
    Stage("co-training", causal.co_train),
    Stage("co-alignment", causal.co_align),
    Stage("scorer", causal.fit_scorer),
    Stage("health", steps.report_health),
)
"""The same where a language model writes the codes."""


def train(
    products: Sequence[Product],
    interactions: Sequence[Interaction],
    output: str | Path,
    settings: Settings | None = None,
    resume: bool = False,
    joint: Path | None = None,
    stages: Sequence[Stage] | None = None,
) -> Path:
    """Trains a model and writes its folder, in place of a model that is there; the log may be empty.

    A part of the log's queries (a tenth, at most 1,000) is held out: to stop early, to fit the scorer, to report
    health. While it runs, checkpoints lie in `<output>.work`; `resume` goes on from there. `joint` names a file of
    joint training's weights: taken over where it is there, of the same data and seed, else written, to compare what
    comes after.

    Raises:
        DataError: another process trains this model, or `output` must not or cannot be written.
        SettingError: no products, an id twice, a teacher that would be replaced, or `resume` with other data or
            settings than the checkpoint's.
        ModelError: a backbone, language model, teacher or checkpoint that cannot be loaded.
    """
    settings, output = settings or Settings(), resolve(output)
    check_replaceable(output, marker=LEXICON)
    if settings.teacher:
        _check_teacher(Path(settings.teacher), output)
    work = work_folder(output)
    with lock_folder(work):
        kind = TrainingRun if settings.causal is None else causal.CausalRun
        run = kind.begin(products, interactions, settings, work, resume)
        run.joint = joint
        with keeping(run.dtype):
            for stage in stages or (STAGES if settings.causal is None else CAUSAL_STAGES):
                stage.run(run)
        _write_model(run, output)
        shutil.rmtree(work)
    return output


def _check_teacher(teacher: Path, output: Path) -> None:
    """Opens the teacher, and lets go of it: what is wrong with it is to be known before hours of work."""
    if resolve(teacher) == output:
        raise SettingError(f"the model would take the place of its teacher {teacher}. Fix: name another folder for it")
    check_model(teacher)
    load_coder(teacher)


def _write_model(run: TrainingRun | causal.CausalRun, output: Path) -> None:
    config: dict[str, Any] = {
        "settings": asdict(run.settings),
        "scorer": run.scorer.by_name(),
        "health": run.report,
    }
    with new_folder(output, marker=LEXICON) as folder:
        run.coder.save(folder, config)
        run.scorer.save(folder)
        for groups, scorer in run.alone.items():
            scorer.save(folder, file_of(groups))
        write_json(folder / "health.json", run.report)
        if run.record.is_file():
            shutil.copy(run.record, folder / "training.jsonl")
