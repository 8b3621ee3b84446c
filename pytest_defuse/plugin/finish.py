"""The end of a session: the corrected checkpoint, the baseline and the reports."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_defuse.correct.judgement import Judgement
from pytest_defuse.correct.results import CorrectionResult
from pytest_defuse.gate.baseline import Baseline, load_baseline, save_baseline
from pytest_defuse.gate.results import Verdict
from pytest_defuse.plugin.options import Options
from pytest_defuse.plugin.run import SubjectRun
from pytest_defuse.report.findings import findings, render_gitlab, repository_root
from pytest_defuse.report.markdown import render_markdown
from pytest_defuse.report.results import Results
from pytest_defuse.report.results_file import save_results
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import append_text, replace_text


def examine_correction(run: SubjectRun, *, promising: bool) -> None:
    """Evaluate a correction before its subject's data is removed; ``promising`` if no test has failed so far."""
    correcting = run.started
    if correcting is None or isinstance(correcting, DefuseError):
        return
    tested = {scenario.id for scenario, _ in run.requests}
    correcting.examine(promising=promising and all(scenario.id in tested for scenario in correcting.scenarios))


def finish_correction(
    run: SubjectRun, collected: Sequence[dict[str, Any]], failed: Sequence[str], not_judged: Sequence[str]
) -> CorrectionResult | None:
    """Write the corrected checkpoint if no test failed, all ran, and every bound passes; None without a correction."""
    correcting = run.started
    if correcting is None or isinstance(correcting, DefuseError):
        return None
    accepted, own = [s.id for s in correcting.scenarios], [r for r in collected if r["subject"] == run.subject.name]
    return correcting.finish(gate_judgements(accepted, Results.of(own), failed, not_judged))


def write_reports(options: Options, results: Results, passed: bool = True) -> list[str]:
    """Write the baseline and the reports that the options name; a sentence for each that cannot be written."""
    step_summary = os.environ.get("GITHUB_STEP_SUMMARY") if results else None
    files: list[tuple[Path | None, Callable[[Path], None]]] = [
        (options.save_baseline, lambda path: _save_baseline(path, results, passed)),
        (options.results, lambda path: save_results(path, results)),
        (options.report, lambda path: _write_html(path, results)),
        (options.summary, lambda path: replace_text(path, render_markdown(results))),
        (options.code_quality, lambda path: replace_text(path, render_gitlab(findings(results, repository_root())))),
        # Appended: other steps of the job may have written to this file.
        (Path(step_summary) if step_summary else None, lambda path: append_text(path, render_markdown(results))),
    ]
    problems = []
    for path, write in files:
        if path is not None:
            try:
                write(path)
            except OSError as error:
                problems.append(f"{path} cannot be written ({error.strerror}): name another file.")
            except DefuseError as error:
                problems.append(str(error))
    return problems


def _save_baseline(path: Path, results: Results, passed: bool) -> None:
    """Put this run's predictions in the place of its images' in the file; the file's others stay."""
    if not (passed and results.sets):
        reason = "the run did not pass" if not passed else "no test evaluated a model"
        raise DefuseError(f"the baseline {path} was not written: {reason}.")
    scenarios = [verdict for verdict in results.scenarios if is_settled(verdict)]
    test_sets = [verdict for verdict in results.test_sets if is_settled(verdict)]
    if not scenarios and not test_sets:
        raise DefuseError(f"the baseline {path} was not written: no verdict is PASS.")
    baseline = Baseline.of_run(results.models, scenarios, test_sets)
    save_baseline(path, load_baseline(path).updated(baseline) if path.is_file() else baseline)


def is_settled(verdict: Verdict) -> bool:
    """Whether a baseline takes the predictions of a verdict.

    A drop that is INCONCLUSIVE is none to start from: after several of them, the sum would be unnoticed.
    """
    return verdict.outcome == "PASS" or (verdict.outcome == "INCONCLUSIVE" and verdict.comparison is None)


def _write_html(path: Path, results: Results) -> None:
    from pytest_defuse.report.html import render_html  # most runs write no page

    replace_text(path, render_html(results))


def gate_judgements(
    accepted: Sequence[str], results: Results, failed: Sequence[str], not_judged: Sequence[str]
) -> list[Judgement]:
    """What the session's tests say about a corrected model: everything that did not pass.

    Args:
        accepted: ids of the scenarios that the model was corrected for.
        results: of all tests with the corrected model.
        failed: ids of the failed tests.
        not_judged: what did not run to its end, in words.
    """
    judgements = [Judgement("INCONCLUSIVE", f"{words}: run all tests of the gate") for words in not_judged]
    if failed:
        names = ", ".join(name.rpartition("::")[2] for name in failed)
        judgements.append(Judgement("FAIL", f"{len(failed)} failed: {names}"))
    if misses := [verdict for verdict in results.verdicts if verdict.outcome == "FAIL"]:
        nearest = max(misses, key=lambda verdict: verdict.accuracy.value - verdict.bound)
        sentence = f"nearest miss: {nearest.name}, {nearest.accuracy} against {nearest.bound:.1%}"
        judgements.append(Judgement("FAIL", sentence))
    for verdict in results.verdicts:
        if verdict.outcome == "INCONCLUSIVE":
            sentence = f"{verdict.name}: {verdict.accuracy} against {verdict.bound:.1%}, too few images to tell"
            judgements.append(Judgement("INCONCLUSIVE", sentence))
    evaluated = {scenario.id for scenario in results.scenarios}
    if missing := [name for name in accepted if name not in evaluated]:
        sentence = f"no test evaluated {', '.join(missing)}: run all tests of the gate"
        judgements.append(Judgement("INCONCLUSIVE", sentence))
    return judgements
