"""The subcommands about annotation services: export and import."""

from argparse import Namespace

from pytest_defuse.cli.common import Output, store_root
from pytest_defuse.report.words import counted
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.json_text import read_text
from pytest_defuse.scenarios.exchange import ground_truth, label_studio
from pytest_defuse.scenarios.exchange.ballots import export_items, import_ballots
from pytest_defuse.scenarios.lookup import all_scenarios, find
from pytest_defuse.scenarios.schema import SPLITS

WRITERS = {"label-studio": label_studio.write_tasks, "ground-truth": ground_truth.write_manifest}
READERS = {"label-studio": label_studio.read_export, "ground-truth": ground_truth.read_manifest}
PREFIXES = {"label-studio": label_studio.PREFIX}


def export_tiles(arguments: Namespace) -> Output:
    """Write images, tasks or manifest, and the classes in the service's form."""
    present = all_scenarios(store_root(arguments))
    chosen = [find(present, name) for name in arguments.only]
    chosen = chosen or [scenario for scenario in present if scenario.record.status == "candidate"]
    if not chosen:
        raise DefuseError("There is no candidate: name scenarios to export with --only.")
    if arguments.tiles < 1:
        raise DefuseError(f"--tiles is {arguments.tiles}: export at least one tile of a sheet.")
    prefix = PREFIXES.get(arguments.service) if arguments.prefix is None else arguments.prefix
    if prefix is None:
        raise DefuseError("Ground Truth reads images from S3: name the place with --prefix s3://bucket/folder/.")
    splits = SPLITS if arguments.held_out else SPLITS[:1]
    count = export_items(chosen, arguments.folder, splits, arguments.tiles, prefix, WRITERS[arguments.service])
    line = f"{counted(count, 'image')} of {counted(len(chosen), 'scenario')} in {arguments.folder}"
    return Output([line], {"folder": str(arguments.folder), "images": count, "scenarios": len(chosen)})


def import_votes(arguments: Namespace) -> Output:
    """Import all votes or none; ``pytest-defuse votes --decide`` decides by them."""
    file = arguments.file
    try:
        text = read_text(file, "name the file that the service exported")
    except ValueError as error:
        raise DefuseError(f"{file} cannot be read ({error}).") from error
    try:
        responses = READERS[arguments.service](text)
    except DefuseError as error:
        raise DefuseError(f"{file}: {error}") from error
    imported = import_ballots(all_scenarios(store_root(arguments)), str(file), responses)
    lines = [f"{counted(count, 'vote')} of {annotator}" for annotator, count in imported.votes.items()]
    scenarios, skipped = counted(len(imported.scenarios), "scenario"), counted(imported.skipped, "item")
    return Output([*lines, f"on {scenarios}; {skipped} without an answer"], vars(imported))
