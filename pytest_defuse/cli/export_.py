"""``pytest-defuse export``: tiles for an annotation service."""

import argparse
from pathlib import Path

from pytest_defuse.cli.output import Output
from pytest_defuse.cli.settings import store_root
from pytest_defuse.report.words import counted
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.decisions import all_scenarios, find
from pytest_defuse.scenarios.exchange import ground_truth, label_studio
from pytest_defuse.scenarios.exchange.ballots import export_items
from pytest_defuse.scenarios.schema import SPLITS

HELP = "write tiles for Label Studio or SageMaker Ground Truth"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("service", choices=["label-studio", "ground-truth"])
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="new folder to write to")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="scenarios (default: every candidate)")
    parser.add_argument("--tiles", type=int, default=10, metavar="N", help="tiles of each sheet (default: 10)")
    parser.add_argument("--held-out", action="store_true", help="also tiles of the held-out sheet")
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        help="prefix of an image's path in the service, such as s3://bucket/folder/ "
        f"(default for label-studio: {label_studio.PREFIX})",
    )


def run(arguments: argparse.Namespace) -> Output:
    """Write images, tasks or manifest, and the classes in the service's form."""
    present = all_scenarios(store_root(arguments))
    chosen = [find(present, name) for name in arguments.only]
    chosen = chosen or [scenario for scenario in present if scenario.record.status == "candidate"]
    if not chosen:
        raise DefuseError("There is no candidate: name scenarios to export with --only.")
    if arguments.tiles < 1:
        raise DefuseError(f"--tiles is {arguments.tiles}: export at least one tile of a sheet.")
    prefix = arguments.prefix
    if prefix is None and arguments.service == "ground-truth":
        raise DefuseError("Ground Truth reads images from S3: name the place with --prefix s3://bucket/folder/.")
    write = label_studio.write_tasks if arguments.service == "label-studio" else ground_truth.write_manifest
    count = export_items(
        chosen,
        arguments.folder,
        SPLITS if arguments.held_out else SPLITS[:1],
        arguments.tiles,
        label_studio.PREFIX if prefix is None else prefix,
        write,
    )
    line = f"{counted(count, 'image')} of {counted(len(chosen), 'scenario')} in {arguments.folder}"
    return Output([line], {"folder": str(arguments.folder), "images": count, "scenarios": len(chosen)})
