"""The demo: what prompts from neighbouring frames do for deteriorated ones, in a few minutes.

Generated video, three stages of training, one comparison::

    backbone on crops -> single-frame detector -> fine-tuned as it is   (baseline)
                                               -> fine-tuned with STPN

Both are fine-tuned from the same weights, for the same number of steps, on the same clips in the
same order, side by side.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import cv2
import torch
from tqdm import tqdm

from stpn_backbones import PromptedSwin
from stpn_data.deteriorated import DeterioratedVideo, ObjectCrops
from stpn_tasks.detection.build import build_detector, build_preparation, build_test_sampler
from stpn_tasks.detection.checkpoint import initialise, load_detector, save_detector
from stpn_tasks.detection.data import build_clips, build_collate
from stpn_tasks.detection.detector import VideoDetector
from stpn_tasks.detection.evaluation import evaluate_detector
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.detection.pretraining import CropClassifier, VariedCrops, collate_crops
from stpn_tasks.draw import draw_boxes, enlarge, side_by_side
from stpn_tasks.engine import make_accelerator, train
from stpn_tasks.files import atomic_path
from stpn_tasks.metrics.coco import AveragePrecision
from stpn_tasks.recipes import (
    DemoOptions,
    DetectionRecipe,
    OptimRecipe,
    small,
    small_baseline,
)
from stpn_tasks.report import environment, precision_json, precision_table, print_table, write_json

SPLITS = ("all", "deteriorated", "clean")
CROP_BATCH = 48


def run_demo(options: DemoOptions) -> Path:
    """Run the whole demo and return the path of ``results.json``."""
    start = time.perf_counter()
    scale = options.scale
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options = replace(options, device=device)
    _say("1/5  render video", f"{scale.train_videos} + {scale.test_videos} clips, kept in a cache")
    train_set, test_set = _videos(options, "train"), _videos(options, "test")
    _say("2/5  teach the backbone textures", "classification of object crops")
    detector = _pretrain(options, train_set)
    _say("3/5  train a single-frame detector", f"{scale.detector_steps} steps")
    _train_detector(options, detector, train_set)
    _say("4/5  fine-tune it as it is, and with STPN", f"{scale.finetune_steps} steps each")
    results = _finetune_both(options)
    _say("5/5  draw", f"{scale.num_pictures} frames with ground truth and both detectors' boxes")
    pictures = _draw(options, test_set)
    minutes = (time.perf_counter() - start) / 60
    path = options.output / "results.json"
    write_json(
        path,
        {
            "command": f"stpn demo --size {options.size} --seed {options.seed}",
            "minutes": round(minutes, 2),
            "environment": environment(device),
            "scale": asdict(scale),
            "models": {name: precision_json(values) for name, values in results.items()},
        },
    )
    print_table(precision_table(results, SPLITS, "Average precision on unseen video (percent)"))
    _say(f"{minutes:.1f} minutes", f"results: {path}  pictures: {pictures}")
    return path


def _say(what: str, detail: str) -> None:
    tqdm.write(f"── {what}: {detail}")


def _videos(options: DemoOptions, split: Literal["train", "test"]) -> DeterioratedVideo:
    scale = options.scale
    number = scale.train_videos if split == "train" else scale.test_videos
    return DeterioratedVideo(options.cache, split=split, num_videos=number, seed=options.seed)


def _recipe(options: DemoOptions, *, prompts: bool, steps: int) -> DetectionRecipe:
    recipe = small() if prompts else small_baseline()
    optim = replace(recipe.optim, epoch_size=steps * recipe.optim.batch_size)
    return replace(recipe, optim=optim, seed=options.seed)


def _pretrain(options: DemoOptions, videos: DeterioratedVideo) -> VideoDetector:
    recipe = _recipe(options, prompts=False, steps=options.scale.detector_steps)
    detector = build_detector(recipe, len(videos.classes))
    backbone = detector.encoder.backbone
    assert isinstance(backbone, PromptedSwin)
    classifier = CropClassifier(backbone, len(videos.classes))
    optim = OptimRecipe(
        lr=1e-3,
        batch_size=CROP_BATCH,
        epochs=1,
        epoch_size=CROP_BATCH * options.scale.crop_steps,
        warmup_steps=20,
        schedule="cosine",
    )
    train(
        classifier,
        VariedCrops(ObjectCrops(videos), options.seed),
        collate_crops,
        optim,
        accelerator=make_accelerator(options.device),
        seed=options.seed,
        title="crops",
    )
    return detector


def _train_detector(
    options: DemoOptions, detector: VideoDetector, videos: DeterioratedVideo
) -> None:
    recipe = _recipe(options, prompts=False, steps=options.scale.detector_steps)
    _fit(options, detector, recipe, videos, "detector")
    save_detector(_weights(options, "single-frame"), detector.cpu(), recipe, videos.classes)


def _fit(
    options: DemoOptions,
    detector: VideoDetector,
    recipe: DetectionRecipe,
    videos: DeterioratedVideo,
    title: str,
    line: int = 0,
) -> None:
    train(
        detector,
        build_clips(recipe, videos),
        build_collate(recipe),
        recipe.optim,
        accelerator=make_accelerator(options.device),
        seed=recipe.seed,
        title=title,
        line=line,
    )


def _weights(options: DemoOptions, name: str) -> Path:
    return options.output / name / "model.safetensors"


def _finetune_both(options: DemoOptions) -> dict[str, dict[str, AveragePrecision]]:
    """Fine-tune baseline and STPN in two processes, each with half of the threads."""
    threads = max(1, torch.get_num_threads() // 2)
    jobs = [(options, name, threads, line) for line, name in enumerate(("baseline", "stpn"))]
    context = multiprocessing.get_context("spawn")
    lock = context.RLock()  # two progress bars, one terminal
    with context.Pool(2, initializer=tqdm.set_lock, initargs=(lock,)) as pool:
        results = pool.starmap(_finetune, jobs, chunksize=1)
    return {"baseline": results[0], "STPN": results[1]}


def _finetune(
    options: DemoOptions, name: str, threads: int, line: int
) -> dict[str, AveragePrecision]:
    torch.set_num_threads(threads)
    prompts = name == "stpn"
    recipe = _recipe(options, prompts=prompts, steps=options.scale.finetune_steps)
    train_set, test_set = _videos(options, "train"), _videos(options, "test")
    detector = build_detector(recipe, len(train_set.classes))
    initialise(detector, _weights(options, "single-frame"))
    _fit(options, detector, recipe, train_set, name, line)
    evaluation = evaluate_detector(
        _inference(options, detector.eval(), recipe),
        test_set,
        accelerator=make_accelerator(options.device),
        batch_size=16,
        title=f"test {name}",
        line=line,
    )
    save_detector(_weights(options, name), detector.cpu(), recipe, train_set.classes)
    return evaluation.precision


def _inference(
    options: DemoOptions, detector: VideoDetector, recipe: DetectionRecipe
) -> VideoInference:
    assert options.device is not None
    prepare = build_preparation(recipe, torch.device(options.device))
    return VideoInference(detector, build_test_sampler(recipe.prompts), prepare)


def _draw(options: DemoOptions, videos: DeterioratedVideo) -> Path:
    """Draw the middle deteriorated frame of the first test videos, three columns each."""
    folder = options.output / "pictures"
    detected = {}
    numbers = list(range(min(options.scale.num_pictures, len(videos.videos))))
    for name in ("baseline", "stpn"):
        saved = load_detector(_weights(options, name))
        inference = _inference(options, saved.detector.to(options.device), saved.recipe)
        detected[name] = inference.videos(videos, numbers)
    for number in tqdm(numbers, desc="pictures", unit="frame"):
        index = _deteriorated_frame(videos, number)
        frame, objects = videos.frame(number, index), videos.objects(number, index)
        factor = 3
        large = enlarge(frame, factor)
        columns = [draw_boxes(large, objects.boxes_xyxy * factor, objects.labels, videos.classes)]
        for name in ("baseline", "stpn"):
            found = detected[name][number][index]
            kept = found.scores >= 0.3
            columns.append(
                draw_boxes(
                    large,
                    found.boxes_xyxy[kept].numpy() * factor,
                    found.labels[kept].numpy(),
                    videos.classes,
                    found.scores[kept].numpy(),
                )
            )
        kind = ", ".join(sorted(videos.conditions(number, index) & set(videos.options.kinds)))
        picture = side_by_side(columns, (f"truth ({kind or 'clean'})", "baseline", "STPN"))
        with atomic_path(folder / f"video-{number:03d}-frame-{index:02d}.png") as path:
            cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return folder


def _deteriorated_frame(videos: DeterioratedVideo, number: int) -> int:
    """Return the middle one of a video's deteriorated frames, or its middle frame."""
    length = videos.videos[number].num_frames
    worse = [t for t in range(length) if "deteriorated" in videos.conditions(number, t)]
    return worse[len(worse) // 2] if worse else length // 2
