import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Without --multi_gpu accelerate would start one process only, on the CPU, and not say so.
LAUNCH = (
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    *("--main_process_port", "0"),
)
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run(*command):
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, env=ONE_THREAD, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_two_processes_learn_and_evaluate_as_one(tmp_path):
    for name, launcher in (("one", (sys.executable,)), ("two", LAUNCH)):
        (tmp_path / name).mkdir()
        run(*launcher, HERE / "in_two_processes.py", tmp_path / name)
    alone = json.loads((tmp_path / "one" / "0.json").read_text())
    both = [json.loads((tmp_path / "two" / f"{rank}.json").read_text()) for rank in range(2)]
    for process in both:
        assert process["evaluation"] == alone["evaluation"]
        assert process["who"] == {str(video): video % 2 for video in range(5)}
        for kind in ("losses", "accumulated"):
            for epoch, expected in zip(process[kind], alone["losses"], strict=True):
                assert epoch == pytest.approx(expected, rel=1e-5)
        assert process["ended"].startswith("ended by SIGTERM after step 3 of 12: the same command")
        assert "the loss is not finite at step" in process["no_loss"]
        assert "the gradient is not finite at step 0" in process["no_gradient"]
    assert both[0]["weights"] == both[1]["weights"]
    assert both[0]["no_loss"] == both[1]["no_loss"]
    assert {"random_states_0.pkl", "random_states_1.pkl"} <= set(both[0]["files"])
    for epoch in range(3):
        halves = [{i for e, i in process["items"] if e == epoch} for process in both]
        assert len(halves[0]) == len(halves[1]) == 8
        assert halves[0] | halves[1] == set(range(16))


FULL_DISK = """
import resource, sys, tiny
from pathlib import Path

def fill(number):
    if number == 20:  # the first item of the sixth step: files may no longer grow beyond 2 kB
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

try:
    points = tiny.PointSet(when_read=fill)
    tiny.fit(tiny.Line(), points, checkpoints=Path(sys.argv[1]), checkpoint_every=3)
except OSError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_named_and_earlier_checkpoints_stay(tiny, tmp_path):
    environment = {**ONE_THREAD, "PYTHONPATH": str(HERE)}
    command = (sys.executable, "-c", FULL_DISK, str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    message = (
        f"cannot write the checkpoint {tmp_path / 'step-6'}: File too large; "
        f"{tmp_path / 'step-4'} is whole"
    )
    assert done.stdout.splitlines()[-1] == message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-3", "step-4"]
    whole, resumed = tiny.Line(), tiny.Line()
    losses = tiny.fit(whole, tiny.PointSet())
    assert tiny.fit(resumed, tiny.PointSet(), checkpoints=tmp_path) == losses
    for weight, again in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert weight.equal(again)


SMALLER = (
    *("--backbone.embed-dim", "16", "--backbone.depths", "1", "1"),
    *("--backbone.num-heads", "1", "2", "--images.test-size", "32", "--images.max-size", "64"),
    *("--head.fpn-channels", "16", "--head.fc-dim", "16", "--head.num-proposals", "10"),
    *("--prompts.centre-clips", "0", "--optim.batch-size", "4", "--device", "cpu"),
)
GENERATED = ("--data", "generated", "--num-videos", "4")
STPN = (sys.executable, "-m", "stpn_tasks.cli")
STPN_IN_TWO = (*LAUNCH, "-m", "stpn_tasks.cli")


def checkpoints_of(output):
    return {path.name for path in output.glob("checkpoints/step-*[0-9]")}


@pytest.mark.slow
def test_a_command_killed_again_and_again_leaves_the_file_of_one_that_was_not(tmp_path):
    options = ("--optim.epochs", "3", "--optim.epoch-size", "600", "--checkpoint-every", "7")
    command = (*STPN, "train", "detection", "small", *GENERATED, *SMALLER, *options)
    run(*command, "--output", tmp_path / "whole")
    moments, broken, codes = random.Random(0), tmp_path / "broken", []
    for number in range(8):
        before = checkpoints_of(broken)
        started = subprocess.Popen(
            [*command, "--output", str(broken)],
            env=ONE_THREAD,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while started.poll() is None and checkpoints_of(broken) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        if started.poll() is None:  # with all processes that load clips, as a scheduler does it
            os.killpg(started.pid, signal.SIGTERM if number % 2 else signal.SIGKILL)
        error = started.communicate()[1]
        codes.append(started.returncode)
        if started.returncode == 143:
            assert "stpn: ended by SIGTERM after step" in error.splitlines()[-1]
    assert codes[:4] == [-signal.SIGKILL, 143, -signal.SIGKILL, 143]
    assert set(codes) <= {-signal.SIGKILL, 143, 0}
    run(*command, "--output", broken)
    for name in ("model.safetensors", "recipe.json"):
        assert (broken / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    losses = [
        json.loads((folder / "training.json").read_text())["losses"]
        for folder in (broken, tmp_path / "whole")
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["small", "small-selsa"])
def test_the_command_in_two_processes_learns_and_evaluates_as_in_one(tmp_path, recipe):
    nothing_drawn = ("--head.rpn-samples", "10000", "--head.roi-samples", "10000")
    options = ("--optim.epochs", "2", "--optim.epoch-size", "16", *nothing_drawn)
    command = ("train", "detection", recipe, *GENERATED, *SMALLER, *options)
    losses, models = [], []
    for name, launcher in (("one", STPN), ("two", STPN_IN_TWO)):
        run(*launcher, *command, "--output", tmp_path / name)
        losses.append(json.loads((tmp_path / name / "training.json").read_text())["losses"])
    for one, two in zip(*losses, strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    weights = tmp_path / "one" / "model.safetensors"
    evaluation = ("eval", "detection", "--weights", weights, *GENERATED, "--device", "cpu")
    for name, launcher in (("one", STPN), ("two", STPN_IN_TWO)):
        output = tmp_path / f"evaluation-{name}"
        done = run(*launcher, *evaluation, "--output", output)
        assert done.stdout.count("COCO box AP in percent") == 1
        assert done.stdout.count("ImageNet VID AP50 in percent") == 1
        assert done.stdout.count("report: ") == 1
        models.append(json.loads((output / "results.json").read_text())["models"])
    assert models[0] == models[1]
