"""The protocol: what is trained, what it is compared with, and on which video.

One backbone, pretrained on clean object crops; one single-frame detector trained from it until
more steps hardly help; from its weights every row is fine-tuned on the same clips in the same
order. The rows differ in nothing but what their names say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stpn_data.deteriorated import RenderOptions
from stpn_tasks.comparison.options import Scale
from stpn_tasks.recipes import DetectionRecipe, PromptRecipe, SupportOptions, small, small_baseline

# All objects of a clip have one class; fast clips are deteriorated more often.
CLIPS = RenderOptions(same_class=1.0, deterioration_follows_speed=True)
# Clips of other seeds: as in training, and with two objects of different classes, which prompts
# would have to tell apart.
TEST_SETS = {
    "same_class": CLIPS,
    "mixed_class": replace(CLIPS, same_class=0.0, num_objects=(2, 2)),
}
SINGLE_FRAME = "detector"


@dataclass(frozen=True)
class Training:
    """One fine-tuning of the single-frame detector.

    Attributes:
        name: of its folder.
        recipe: what is trained; its seed is set per run.
        clips: what it is trained on, if not on `CLIPS`.
    """

    name: str
    recipe: DetectionRecipe
    clips: RenderOptions | None = None


@dataclass(frozen=True)
class Row:
    """One row of the comparison: weights, and how they are tested.

    Attributes:
        name: short, for files.
        label: for people.
        about: one sentence: what it is.
        training: where the weights come from; ``None`` for the single-frame detector as it is.
        support: other support frames in testing than the recipe's.
        in_figures: whether figures show it.
    """

    name: str
    label: str
    about: str
    training: Training | None
    support: SupportOptions = SupportOptions()
    in_figures: bool = True


def fine_tuning(recipe: DetectionRecipe, steps: int) -> DetectionRecipe:
    """Return a recipe that trains for a number of steps."""
    optim = replace(recipe.optim, epochs=1, epoch_size=steps * recipe.optim.batch_size)
    return replace(recipe, optim=optim)


def with_prompts(steps: int, **prompts: object) -> DetectionRecipe:
    """Return the small STPN recipe with other prompts than its own, for a number of steps."""
    recipe = small()
    changed: PromptRecipe = replace(recipe.prompts, **prompts)  # type: ignore[arg-type]
    return fine_tuning(replace(recipe, prompts=changed), steps)


def comparison_rows(scale: Scale) -> tuple[Row, ...]:
    """Return the rows that the comparison always has, the baseline first."""
    steps = scale.finetune_steps
    longer = round(steps * scale.equal_compute)
    baseline = Training("baseline", fine_tuning(small_baseline(), steps))
    same_compute = Training("baseline_equal_compute", fine_tuning(small_baseline(), longer))
    static = Training(
        "static", with_prompts(steps, predictor="static", ffn_dim=None, centre_clips=0)
    )
    stpn = Training("stpn", with_prompts(steps))
    other = Training("stpn_other", with_prompts(steps, support_video="other"))
    return (
        Row("baseline", "baseline", f"Single frame, fine-tuned for {steps} steps.", baseline),
        Row(
            "baseline_equal_compute",
            "baseline, equal compute",
            f"Single frame, fine-tuned for {longer} steps, about as long as STPN takes.",
            same_compute,
        ),
        Row("stpn", "STPN", f"Prompts from the clip's own frames, {steps} steps.", stpn),
        Row(
            "stpn_other",
            "STPN, another video",
            "Trained and tested with support frames of another video: the same network and "
            "compute, without the information.",
            other,
        ),
        Row(
            "static",
            "static prompts",
            "Learned prompts, the same for every frame: more tokens, no support frames.",
            static,
        ),
        Row(
            "stpn_off",
            "STPN, prompts off",
            "The weights of STPN, tested without prompts.",
            stpn,
            SupportOptions(off=True),
            in_figures=False,
        ),
        Row(
            "stpn_other_tested",
            "STPN, tested with another video",
            "The weights of STPN, tested with support frames of another video.",
            stpn,
            SupportOptions(support_video="other"),
            in_figures=False,
        ),
        Row(
            SINGLE_FRAME,
            "before fine-tuning",
            "The single-frame detector that all rows began from.",
            None,
            in_figures=False,
        ),
    )


def trainings(rows: Sequence[Row]) -> tuple[Training, ...]:
    """Return the fine-tunings that rows need, each once, the longest first.

    Raises:
        ValueError: if two of them have one name.
    """
    found: dict[str, Training] = {}
    for row in rows:
        training = row.training
        if training and found.setdefault(training.name, training) != training:
            raise ValueError(f"two different trainings are named {training.name!r}")
    return tuple(sorted(found.values(), key=lambda training: -_cost(training.recipe)))


def _cost(recipe: DetectionRecipe) -> float:
    """Guess the relative cost of a training: a support frame costs about a sixth of a step."""
    support = recipe.reads_support * recipe.prompts.num_support
    return (recipe.optim.epoch_size or 0) * (1 + support / 6)
