"""The end of a session: decide on a corrected model, write what was asked for."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.gate.baseline import Baseline, SubjectBaseline, save_baseline
from pytest_defuse.gate.predictions import Predictions
from pytest_defuse.gate.results import ScenarioResult, TestSetResult
from pytest_defuse.plugin.options import Options
from pytest_defuse.plugin.run import SubjectRun
from pytest_defuse.report.findings import findings, render_gitlab, repository_root
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results import Results
from pytest_defuse.report.saved import dump_results
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import append_text, replace_text

if TYPE_CHECKING:
    from pytest_defuse.plugin.correcting import Correcting


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
    correcting: Correcting | DefuseError | None = vars(run).get("started_correction")
    if correcting is None or isinstance(correcting, DefuseError):
        return None
    return correcting.settle(_problems(run, Results.of(collected), failed))


def write_reports(options: Options, results: Results) -> list[str]:
    """Write the baseline and the reports that the options ask for.

    Returns:
        A sentence for each file that could not be written.
    """
    step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
    files: list[tuple[Path | None, Callable[[Path], None]]] = [
        # A run that judged nothing leaves an earlier run's baseline as it is.
        (
            options.save_baseline if results.scenarios or results.test_sets else None,
            lambda path: save_baseline(path, _baseline(results)),
        ),
        (options.results, lambda path: replace_text(path, dump_results(results, Path()))),
        (options.report, lambda path: _write_html(path, results)),
        (options.summary, lambda path: replace_text(path, render_markdown(results))),
        (options.code_quality, lambda path: replace_text(path, render_gitlab(findings(results, repository_root())))),
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


def _write_html(path: Path, results: Results) -> None:
    from pytest_defuse.report.html import render_html  # most runs write no page

    replace_text(path, render_html(results))


def _baseline(results: Results) -> Baseline:
    def said(result: ScenarioResult | TestSetResult) -> Predictions:
        return Predictions(result.images, tuple(result.predicted), tuple(result.confidences))

    tests = {test_set.subject: test_set for test_set in results.test_sets}
    models = {s.subject: s.model for s in results.scenarios} | {t.subject: t.model for t in results.test_sets}
    return Baseline(
        {
            subject: SubjectBaseline(
                model=model,
                scenarios={s.id: said(s) for s in results.scenarios if s.subject == subject},
                test=said(tests[subject]) if subject in tests else None,
            )
            for subject, model in models.items()
        }
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
