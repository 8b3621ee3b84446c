"""The end of a session: decide on a corrected model, write what was asked for."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_defuse.correcting import Correcting
from pytest_defuse.files import append_text, replace_text
from pytest_defuse.gate.baseline import Baseline, Predictions, save_baseline
from pytest_defuse.options import Options
from pytest_defuse.report.html import render_html
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results import CorrectionResult, Results
from pytest_defuse.run import SubjectRun


def finish_correction(
    run: SubjectRun, collected: Sequence[dict[str, Any]], failed: Sequence[str]
) -> CorrectionResult | None:
    """Write the corrected checkpoint if every bound holds, else keep the attempt under another name.

    Args:
        collected: the results of all tests.
        failed: ids of the tests of a subject that failed.

    Returns:
        None where nothing was corrected.
    """
    # Only a run whose model was judged has corrected anything; asking for the correction would start it.
    correcting = vars(run).get("started_correction")
    if not isinstance(correcting, Correcting):
        return None
    return correcting.settle(_problems(run, Results.of(collected), failed))


def write_reports(options: Options, collected: Sequence[dict[str, Any]], failed: Sequence[str] = ()) -> list[str]:
    """Write the baseline and the reports that the options ask for.

    Args:
        failed: ids of the tests of a subject that failed.

    Returns:
        A sentence for each file that could not be written.
    """
    results = Results.of(collected, failed)
    step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
    files: list[tuple[Path | None, Callable[[Path], None]]] = [
        # A run that judged nothing leaves an earlier run's baseline as it is.
        (
            options.save_baseline if results.scenarios or results.test_sets else None,
            lambda path: save_baseline(path, _baseline(results)),
        ),
        (options.report, lambda path: replace_text(path, render_html(results))),
        (options.summary, lambda path: replace_text(path, render_markdown(results))),
        # Other steps of the job may have written there already.
        (
            Path(step_summary) if step_summary and results else None,
            lambda path: append_text(path, render_markdown(results)),
        ),
    ]
    problems = []
    for path, write in files:
        if path is not None:
            try:
                write(path)
            except OSError as error:
                problems.append(f"{path} cannot be written ({error.strerror}): name another file.")
    return problems


def _baseline(results: Results) -> Baseline:
    models = {s.model for s in results.scenarios} | {t.model for t in results.test_sets}
    return Baseline(
        model=" ".join(sorted(models)),
        scenarios={s.id: Predictions(s.images, s.predicted) for s in results.scenarios},
        test={t.subject: Predictions(t.images, t.predicted) for t in results.test_sets},
    )


def _problems(run: SubjectRun, results: Results, failed: Sequence[str]) -> list[str]:
    """What the tests say against the corrected model."""
    problems = []
    if failed:
        problems.append(f"{len(failed)} failed: {', '.join(name.rpartition('::')[2] for name in failed)}")
    misses = [s for s in results.scenarios if s.outcome == "fails"]
    if misses:
        nearest = max(misses, key=lambda s: s.correct / s.total - s.bound)
        problems.append(f"nearest miss: {nearest.id}, {nearest.accuracy} against {nearest.bound:.1%}")
    judged = {s.id for s in results.scenarios}
    if unjudged := [s.id for s in run.store.scenarios("accepted") if s.id not in judged]:
        problems.append(f"no test judged {', '.join(unjudged)}: run the whole gate")
    return problems
