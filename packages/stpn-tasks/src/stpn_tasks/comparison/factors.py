"""What a sweep varies, one factor at a time around the small recipe (the paper's Table 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from stpn_data.deteriorated import RenderOptions
from stpn_tasks.comparison.options import Scale
from stpn_tasks.comparison.protocol import (
    CLIPS,
    Row,
    Training,
    comparison_rows,
    fine_tuning,
    with_prompts,
)
from stpn_tasks.recipes import (
    SupportOptions,
    small,
    small_baseline,
    small_selsa,
    small_selsa_baseline,
)
from stpn_tasks.report.words import spoken


@dataclass(frozen=True)
class Factor:
    """One thing that is varied, everything else being as in the small recipe.

    Attributes:
        name: for options and files.
        label: for people.
        about: what changes, and whether it takes another training.
        rows: one per value, with the value as label.
        references: what tables show beside the baseline, such as one of other training clips.
    """

    name: str
    label: str
    about: str
    rows: tuple[Row, ...]
    references: tuple[Row, ...] = ()


def stride(scale: Scale) -> Factor:
    """Vary S, the distance between support frames in testing."""
    rows = [_tested(scale, f"stride_{s}", str(s), SupportOptions(stride=s)) for s in (1, 2, 4)]
    about = "Frames between support frames when testing (K = 4); the weights are the same."
    return Factor("stride", "stride S", about, tuple(rows))


def num_support(scale: Scale) -> Factor:
    """Vary K, the number of support frames in testing."""
    rows = [
        _tested(scale, f"num_support_{k}", str(k), SupportOptions(test_support=k))
        for k in (2, 4, 8)
    ]
    about = "Support frames when testing (S = 2); the weights are the same, trained with K = 4."
    return Factor("num-support", "support frames K", about, tuple(rows))


def num_prompts(scale: Scale) -> Factor:
    """Vary the number of prompts."""
    rows = [_trained(scale, f"num_prompts_{p}", str(p), num_prompts=p) for p in (1, 7, 14)]
    return Factor("num-prompts", "prompts N_P", "Each value is trained.", tuple(rows))


def predictor(scale: Scale) -> Factor:
    """Compare the paper's two predictors."""
    rows = [
        _trained(scale, "transformer", "transformer"),
        _trained(scale, "mixer", "mixer", predictor="mixer", ffn_dim=None, centre_clips=0),
    ]
    about = "Each is trained. The mixer has no reduction, so it is not centred."
    return Factor("predictor", "predictor", about, tuple(rows))


def depth(scale: Scale) -> Factor:
    """Compare shallow with deep prompts."""
    rows = [
        _trained(scale, "shallow", "shallow", deep=False),
        _trained(scale, "deep", "deep", deep=True),
    ]
    about = "Prompts for the first transformer layer or for every one; each is trained."
    return Factor("depth", "prompts enter", about, tuple(rows))


def clips(scale: Scale) -> Factor:
    """Train on clips of one class, or half of them on clips of different classes."""
    half = replace(CLIPS, same_class=0.5)
    rows = [
        _trained(scale, "same_class", "same class"),
        _trained(scale, "half_mixed", "half mixed", clips=half),
        _trained(scale, "half_mixed_14", "half mixed, N_P = 14", clips=half, num_prompts=14),
    ]
    single = Training(
        "baseline_half_mixed", fine_tuning(small_baseline(), scale.finetune_steps), half
    )
    about = "Single frame, fine-tuned on the same half mixed clips."
    reference = Row("baseline_half_mixed", "baseline, half mixed", about, single)
    about = "Training clips whose objects have one class, or in half of them different ones."
    return Factor("clips", "training clips", about, tuple(rows), (reference,))


def detector(scale: Scale) -> Factor:
    """Compare Faster R-CNN with SELSA, each without and with prompts (the paper's Table 2)."""
    steps = scale.finetune_steps
    both = Training("stpn_selsa", fine_tuning(small_selsa(), steps))
    rows = (
        _trained(scale, "stpn", "STPN"),
        Row(
            "selsa",
            "SELSA",
            "Regions of the support frames, no prompts.",
            Training("selsa", fine_tuning(small_selsa_baseline(), steps)),
        ),
        Row("stpn_selsa", "STPN + SELSA", "Prompts and regions of the support frames.", both),
    )
    other = Row(
        "stpn_selsa_other_tested",
        "STPN + SELSA, tested with another video",
        "The weights of STPN + SELSA, tested with support frames of another video.",
        both,
        SupportOptions(support_video="other"),
    )
    about = "Faster R-CNN alone is the baseline; all are trained from it, for as many steps."
    return Factor("detector", "detector", about, rows, (other,))


FACTORS: dict[str, Callable[[Scale], Factor]] = {
    "stride": stride,
    "num-support": num_support,
    "num-prompts": num_prompts,
    "predictor": predictor,
    "depth": depth,
    "clips": clips,
    "detector": detector,
}


def sweep_rows(scale: Scale, factors: tuple[Factor, ...]) -> tuple[Row, ...]:
    """Return the baseline, STPN, and the rows of some factors, each once."""
    references = [row for row in comparison_rows(scale) if row.name in ("baseline", "stpn")]
    rows = {row.name: row for row in references}
    for row in (row for factor in factors for row in (*factor.references, *factor.rows)):
        rows.setdefault(row.name, row)
    return tuple(rows.values())


def _tested(scale: Scale, name: str, label: str, support: SupportOptions) -> Row:
    stpn = Training("stpn", with_prompts(scale.finetune_steps))
    if support.change(small().prompts) == small().prompts:
        return Row("stpn", label, "The small recipe.", stpn)
    return Row(name, label, f"The small recipe, tested with {spoken(name)}.", stpn, support)


def _trained(
    scale: Scale, name: str, label: str, clips: RenderOptions | None = None, **prompts: object
) -> Row:
    recipe = with_prompts(scale.finetune_steps, **prompts)
    if recipe.prompts == small().prompts and clips is None:
        return Row("stpn", label, "The small recipe.", Training("stpn", recipe))
    about = f"The small recipe with {spoken(name)}."
    return Row(name, label, about, Training(name, recipe, clips))
