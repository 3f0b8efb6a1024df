"""What the report's words mean, in the report's own words."""

from __future__ import annotations

from collections.abc import Iterable

MAIN = ("all", "deteriorated", "clean")
KINDS = ("motion_blur", "defocus", "occlusion", "low_light", "low_resolution")
SPEEDS = ("slow", "medium", "fast")
# Named for every frame of generated video, and the same one in all of a test set.
TEST_SETS = ("same_class", "mixed_class")

ABOUT_CONDITIONS = {
    "all": "every frame that was evaluated.",
    "deteriorated": "frames in which one of the deteriorations below hides what tells the classes "
    "apart.",
    "clean": "frames without deterioration.",
    "motion_blur": "the camera shakes while the shutter is open.",
    "defocus": "the image of a point is a disc: out of focus.",
    "occlusion": "a mesh stands before the camera and leaves small holes.",
    "low_light": "a dark, noisy frame, smoothed as cameras do.",
    "low_resolution": "averaged over large pixels, then enlarged.",
    "slow": "the objects hardly move: over ten frames to each side, their boxes overlap with "
    "themselves by an IoU above 0.9 on average.",
    "medium": "the same average between 0.7 and 0.9.",
    "fast": "the same average below 0.7.",
}

ABOUT_TEST_SETS = {
    "same_class": "all objects of a clip are of one class, so that one word from a neighbouring "
    "frame says everything.",
    "mixed_class": "the objects of a clip differ in class, so that what a neighbouring frame says "
    "must also find its object.",
}

ABOUT_NUMBERS = {
    "IoU": "area that two boxes share, over the area that they cover together.",
    "AP50": "average precision at IoU 0.5, in percent. Boxes are sorted by score; one that covers "
    "an object of its class by an IoU of at least 0.5 is right. Precision (how many boxes are "
    "right) is averaged over all recalls (how many objects are found), then over the classes.",
    "AP": "the mean of the same at IoU 0.50, 0.55, …, 0.95: boxes must also be exact. Both as COCO "
    "defines them, at most 100 boxes a frame. 100 is perfect.",
    "±": "standard deviation over the seeds (n − 1): data order and weights differ from seed to "
    "seed. It tells how far another seed may lie, not how sure the mean is. A number without it "
    "is from one seed.",
    "gain": "the difference of two models of the same seed, in points; its ± is that of the "
    "differences.",
    "–": "not measured, or no such frame has an object.",
}

ABOUT_VID = {
    "ImageNet VID": "the rules of that data set’s evaluation, by which papers on it report AP50; "
    "they differ a little from COCO’s, and so do the numbers.",
    "motion": "of each object: the mean IoU of its box with its boxes in the ten frames on each "
    "side. Slow objects have 0.9 to 1, medium ones 0.7 to 0.9, fast ones 0 to 0.7. Conditions "
    "divide frames, motion divides objects.",
}

ABOUT_F1 = (
    "F1 of a frame: boxes with a score of 0.3 or more are matched with the objects of their class "
    "at IoU 0.5, best score first; F1 is twice the number of objects found over the number of "
    "objects plus the number of boxes, and 1 where there is neither."
)

ABOUT_MAPS = (
    "The query of each prompt attends to all tokens of the support frames. A map shows the weight "
    "of every token, mean over the heads: grey is none, the brightest is the strongest token of "
    "its row. Below each map stands the share of that frame as a whole. “All prompts” is the mean "
    "over the prompts; the other rows are the two prompts that differ most. The backbone’s last "
    "tokens have seen much of the frame around them: a bright token tells which frame is listened "
    "to, and only roughly what in it."
)


def spoken(name: str) -> str:
    """Return a name of files and options as people write it."""
    return name.replace("_", " ")


def in_order(conditions: Iterable[str]) -> list[str]:
    """Return the conditions that we know in their order, before the others by the alphabet."""
    found = set(conditions)
    known = [name for name in (*MAIN, *KINDS, *SPEEDS) if name in found]
    return known + sorted(found - set(known))
