"""The command ``stpn``: its subcommands and how errors are told."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tyro.conf import AvoidSubcommands
from tyro.extras import SubcommandApp

from stpn_tasks.commands.analyze import cam, tsne
from stpn_tasks.commands.bench import bench_detection, bench_tracking
from stpn_tasks.commands.bench_segmentation import bench_segmentation
from stpn_tasks.commands.comparison import demo, report, sweep
from stpn_tasks.commands.data import check_data, convert_data
from stpn_tasks.commands.detection import eval_detection, predict_detection, train_detection_app
from stpn_tasks.commands.export import export_tracking
from stpn_tasks.commands.recipes import info, recipes
from stpn_tasks.commands.segmentation import (
    eval_segmentation,
    predict_segmentation,
    train_segmentation_app,
)
from stpn_tasks.commands.tracking import eval_tracking, predict_tracking, train_tracking_app
from stpn_tasks.commands.weights import convert_weights_app
from stpn_tasks.termination import EXIT_CODE, Terminated


def _app() -> SubcommandApp:
    train_app, eval_app, predict_app, data_app, weights_app = (SubcommandApp() for _ in range(5))
    train_app.command(
        train_detection_app(), name="detection", help="Train a video object detector."
    )
    train_app.command(train_tracking_app(), name="tracking", help="Train a visual object tracker.")
    train_app.command(
        train_segmentation_app(), name="segmentation", help="Train a video instance segmenter."
    )
    eval_app.command(name="detection")(eval_detection)
    eval_app.command(name="segmentation")(eval_segmentation)
    eval_app.command(name="tracking")(eval_tracking)
    predict_app.command(name="detection")(predict_detection)
    predict_app.command(name="segmentation")(predict_segmentation)
    predict_app.command(name="tracking")(predict_tracking)
    analyze_app = SubcommandApp()
    analyze_app.command(cam)
    analyze_app.command(tsne)
    data_app.command(name="check")(check_data)
    data_app.command(name="convert")(convert_data)
    weights_app.command(convert_weights_app(), name="convert", help="Convert a checkpoint.")
    export_app = SubcommandApp()
    export_app.command(name="tracking")(export_tracking)
    bench_app = SubcommandApp()
    bench_app.command(name="detection")(bench_detection)
    bench_app.command(name="segmentation")(bench_segmentation)
    bench_app.command(name="tracking")(bench_tracking)
    app = SubcommandApp()
    app.command(demo)
    app.command(sweep)
    app.command(report)
    app.command(train_app, name="train", help="Train a recipe; every value can be overridden.")
    app.command(eval_app, name="eval", help="Evaluate weights on annotated video.")
    app.command(predict_app, name="predict", help="Run weights over a video of your own.")
    app.command(analyze_app, name="analyze", help="Look at why a detector works.")
    app.command(data_app, name="data", help="Check a data set before training on it; convert it.")
    app.command(weights_app, name="weights", help="Convert weights of other projects.")
    app.command(export_app, name="export", help="Write weights as ONNX or torch.export graphs.")
    app.command(bench_app, name="bench", help="Time a model and its baseline in one run.")
    app.command(recipes)
    app.command(info)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors of the user's input are one line, not a traceback."""
    try:
        _app().cli(
            prog="stpn",
            description="Robust video features by dynamic video prompts.",
            args=arguments,
            config=(AvoidSubcommands,),
        )
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"stpn: error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except Terminated as error:
        print(f"stpn: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CODE) from error


if __name__ == "__main__":
    main()
