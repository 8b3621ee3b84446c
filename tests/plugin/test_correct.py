"""--defuse-correct: finetune, gate the corrected model, write it only if every bound passes."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pytest_defuse.correct import checkpoints
from pytest_defuse.runtime import cache
from pytest_defuse.scenarios.scenario import Scenario
from tests.plugin.conftest import CONFTEST, TESTS, tree

Accept = Callable[..., Scenario]


def test_a_model_that_can_be_fixed(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.495)
    (project.path / "toy.pt").write_bytes(b"the old weights")
    before = tree(project.path)
    project.runpytest().assert_outcomes(passed=1, failed=1)
    result = project.runpytest("--defuse-correct")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "lambda*",
            "before*",
            "0 (control*",
            "set *before*control*after*",
            "test set *",
            "blur *shifted copy*",
            f"{scenario.id}*0.0%*16/16*PASS*",
            "every bound passes: wrote toy.defused.safetensors",
        ]
    )
    after = tree(project.path)
    assert set(after) - set(before) == {"toy.defused.safetensors"}
    assert before.items() <= after.items(), "the old weights and the store are as they were"
    with safe_open(project.path / "toy.defused.safetensors", framework="pt") as checkpoint:
        assert sorted(checkpoint.keys()) == ["head.bias", "head.weight", "scale", "threshold"]
        metadata = json.loads(checkpoint.metadata()["pytest-defuse"])
    assert metadata["problems"] == []
    before_control_after = metadata["accuracy before, control, after"]
    assert before_control_after[scenario.id][::2] == [0.0, 1.0]
    assert {"test set", "blur", "noise", "affine", "contrast", "jpeg"} < set(before_control_after)
    sheets = scenario.record.sheets
    assert metadata["scenarios"] == {
        scenario.id: {"correction": sheets.correction.sha256, "held_out": sheets.held_out.sha256}
    }
    assert metadata["settings"]["search"] == "halving"
    assert metadata["chosen"]["alpha"] > 0
    assert not any((project.path / ".defuse_cache").glob("correction-*")), "unfinished work is forgotten"


@pytest.mark.slow
def test_a_model_that_misses_its_bounds(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.2)  # these are dark: no model can predict bright for them and keep its test accuracy
    (project.path / "toy.defused.safetensors").write_bytes(b"an earlier success")
    result = project.runpytest("--defuse-correct")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            f"nearest miss: {scenario.id}, *against 90.0%",
            "*nothing was overwritten; the attempt is toy.failed-attempt.safetensors",
        ]
    )
    assert (project.path / "toy.defused.safetensors").read_bytes() == b"an earlier success"
    assert (project.path / "toy.failed-attempt.safetensors").exists()


@pytest.mark.slow
def test_a_scenario_that_no_test_evaluated(project: pytest.Pytester, accept: Accept) -> None:
    selected, other = accept(mean=0.495), accept(mean=0.496)
    result = project.runpytest("--defuse-correct", "-k", selected.id)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [f"INCONCLUSIVE: no test evaluated {other.id}: run all tests of the gate", "*the attempt is *"]
    )


@pytest.mark.slow
def test_a_shift_set_that_got_worse(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    # On this set dark reaches up to 0.498: what fixes the scenario breaks it.
    shift = "return subject(shifts={'dusk': [(torch.full((1, 8, 8), 127, dtype=torch.uint8), 0)] * 20})"
    project.makeconftest(CONFTEST.replace("return subject()", shift))
    result = project.runpytest("--defuse-correct")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["accuracy on shift set dusk fell from 100.0% to 0.0%, more than max_shift_drop 1.0%"])
    assert not (project.path / "toy.defused.safetensors").exists()


def test_nothing_to_correct(project: pytest.Pytester, accept: Accept) -> None:
    accept(label=None)
    result = project.runpytest("--defuse-correct")
    result.stdout.fnmatch_lines(["There is nothing to correct, because no scenario is accepted: *"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_no_checkpoint(project: pytest.Pytester, accept: Accept) -> None:
    accept()
    project.makeconftest(CONFTEST.replace("return subject()", "return subject(checkpoint=None)"))
    result = project.runpytest("--defuse-correct")
    result.stdout.fnmatch_lines(["Correction writes the new weights next to the model's checkpoint: give *"])


@pytest.mark.slow
def test_the_corrected_model_goes_where_one_says(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    project.makeconftest(CONFTEST.replace("return subject()", "return subject(checkpoint=None)"))
    result = project.runpytest("--defuse-correct", "--defuse-correct-output", "out/fixed.safetensors")
    result.stdout.fnmatch_lines(["every bound passes: wrote out/fixed.safetensors"])
    assert (project.path / "out" / "fixed.safetensors").exists()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("toy.pt", "*toy.pt is the model's own checkpoint, which is never overwritten: name another output."),
        (
            "toy.pt/fixed.safetensors",
            "*the corrected checkpoint cannot be written to *toy.pt (*): make the folder writable.",
        ),
        ("tests", "*tests is a folder: give --defuse-correct-output a file."),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(
    project: pytest.Pytester, accept: Accept, output: str, words: str
) -> None:
    accept(mean=0.495)
    project.mkdir("tests")
    (project.path / "toy.pt").write_bytes(b"the old weights")
    result = project.runpytest("--defuse-correct", "--defuse-correct-output", output)
    result.stdout.fnmatch_lines([words])
    result.stdout.no_fnmatch_line("*finetuning*")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (project.path / "toy.pt").read_bytes() == b"the old weights"


MARKED = "import pytest\n\npytestmark = pytest.mark.defuse_correct({})\n" + TESTS


def test_a_marker_says_how_to_correct(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    settings = 'search="grid", lambdas=[0.5], epochs=1, rates=[2e-3], frozen=["head.*"], loss=lambda z, y: z.sum() * 0'
    project.makepyfile(test_model=MARKED.format(settings))
    result = project.runpytest("--defuse-correct")
    result.stdout.fnmatch_lines(["0 (control*", "0.5 (chosen)*", "every bound passes: wrote *"])
    with safe_open(project.path / "toy.defused.safetensors", framework="pt") as checkpoint:
        assert checkpoint.get_tensor("head.weight").tolist() == [[-1.0], [1.0]]
        settings = json.loads(checkpoint.metadata()["pytest-defuse"])["settings"]
    assert (settings["frozen"], settings["loss"]) == (["head.*"], "<lambda>")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("epoch=3", "defuse_correct has no setting 'epoch' (did you mean 'epochs'?): it has search, lambdas, *"),
        ("epochs=0", "defuse_correct(epochs=0): give a whole number >= 1."),
        ('frozen=["body.*"]', "defuse_correct(frozen=...): 'body.?' matches no parameter of subject 'toy', *"),
    ],
)
def test_a_setting_that_cannot_be(project: pytest.Pytester, accept: Accept, settings: str, words: str) -> None:
    accept(mean=0.495)
    project.makepyfile(test_model=MARKED.format(settings))
    result = project.runpytest("--defuse-correct")
    result.stdout.fnmatch_lines([words])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_two_ways_to_correct(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    marked = (f"@pytest.mark.defuse_correct(epochs={n})\ndef test_{n}(defuse_test_accuracy): pass" for n in (1, 2))
    project.makepyfile("import pytest", *marked)
    result = project.runpytest("--defuse-correct")
    result.stderr.fnmatch_lines(["*two tests give defuse_correct(epochs=...) different values, 1 and 2: *"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.slow
def test_test_images_that_got_worse_keep_the_old_model(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    dusk = "[(torch.full((1, 8, 8), 127, dtype=torch.uint8), 0)] * 20"
    project.makeconftest(CONFTEST.replace("return subject()", f"return subject(test=[*images(200, 1), *{dusk}])"))
    project.makepyfile(test_model=TESTS.replace(">= 0.97", ">= 0"))
    result = project.runpytest("--defuse-correct", "--defuse-report=report.html", "--defuse-summary=s.md")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "accuracy on the test set fell by *, more than max_test_drop 0.5%",
            "accuracy on class 'dark' of the test set fell by * (20 of 120 images lost, 0 gained), more than *",
            "20 of 220 images of the test set were correct and are wrong, *",
            "*the attempt is toy.failed-attempt.safetensors",
        ]
    )
    page = (project.path / "report.html").read_text()
    assert "lost: label dark, predicted dark → bright" in page
    assert '<svg class="tradeoff"' in page
    assert "xychart-beta" in (project.path / "s.md").read_text()


@pytest.mark.slow
def test_a_held_out_sheet_that_cannot_be_read(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.495)
    scenario.sheet_file("held_out").unlink()
    result = project.runpytest("--defuse-correct")
    result.stdout.fnmatch_lines(["*held_out.png*", "*the attempt is toy.failed-attempt.safetensors"])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.slow
def test_an_interrupted_gate_keeps_the_training(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    project.makepyfile(test_model="def test_it(defuse_test_accuracy):\n    raise KeyboardInterrupt")
    result = project.runpytest_inprocess("--defuse-correct", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert not list(project.path.glob("*.safetensors"))
    assert list((project.path / ".defuse_cache").glob("correction-*/lambda0.0-*.safetensors"))
    project.makepyfile(test_model=TESTS)
    project.runpytest("--defuse-correct").stdout.fnmatch_lines(["*resumed*", "every bound*"])


def test_a_folder_that_cannot_be_written_to(project: pytest.Pytester, accept: Accept) -> None:
    accept()
    (project.path / "weights").write_text("a file where the folder should be")
    project.makeconftest(CONFTEST.replace("return subject()", "return subject(checkpoint='weights/toy.pt')"))
    result = project.runpytest("--defuse-correct")
    result.stdout.fnmatch_lines(
        ["the corrected checkpoint cannot be written to weights (*): make the folder writable*"]
    )
    assert "finetuning" not in result.stdout.str() + result.stderr.str(), "it is refused before the work"


BRIEF = 'search="grid", lambdas=[0.5], epochs=1, rates=[2e-3], recheck=False'
YIELDING = CONFTEST.replace(
    "    return subject()",
    """    class Night:
        gone = False
        def __len__(self):
            return 20
        def __getitem__(self, index):
            assert not self.gone, "it was read after its teardown"
            return torch.full((1, 8, 8), 20, dtype=torch.uint8), 0

    night = Night()
    yield subject(shifts={"night": night})
    night.gone = True
    {end}
""",
)


LOSS = """import pytest, shutil, torch

def loss(logits, labels):
    with open("steps", "a") as steps:
        steps.write("x")
    {}
    return torch.nn.functional.cross_entropy(logits, labels)

pytestmark = pytest.mark.defuse_correct(loss=loss, """
COUNTED = LOSS.format("pass") + BRIEF + ")\n" + TESTS
STEPS = 2 * 9
"""Of the control and one trial: 2,304 images in batches of 256."""


def steps(project: pytest.Pytester) -> int:
    """How many steps of the training have run."""
    return len((project.path / "steps").read_text())


def states(project: pytest.Pytester) -> list[str]:
    """The files of unfinished training."""
    return [file.name for file in (project.path / ".defuse_cache").glob("correction-*/lambda*")]


def test_a_subject_is_evaluated_before_its_teardown(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    project.makeconftest(YIELDING.replace("{end}", ""))
    project.makepyfile(test_model=MARKED.format(BRIEF))
    result = project.runpytest("--defuse-correct")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["night *shift set *", "every bound passes: wrote toy.defused.safetensors"])


def test_an_error_in_the_teardown_keeps_the_attempt_the_training_and_the_reports(
    project: pytest.Pytester, accept: Accept
) -> None:
    accept(mean=0.495)
    project.makeconftest(YIELDING.replace("{end}", 'raise OSError("the share is gone")'))
    project.makepyfile(test_model=MARKED.format(BRIEF))
    result = project.runpytest("--defuse-correct", "--defuse-results=r.json", "--defuse-report=r.html")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["1 failed: *", "*the attempt is toy.failed-attempt.safetensors"])
    assert (project.path / "toy.failed-attempt.safetensors").exists()
    assert not (project.path / "toy.defused.safetensors").exists()
    assert states(project), "the training is kept"
    assert json.loads((project.path / "r.json").read_text())["corrections"]
    assert (project.path / "r.html").exists()


@pytest.mark.parametrize("error", ["RuntimeError", "KeyError", "MemoryError"])
def test_an_error_in_a_shift_set_keeps_the_attempt_the_training_and_the_reports(
    project: pytest.Pytester, accept: Accept, error: str
) -> None:
    accept(mean=0.495)
    readable = YIELDING.replace("{end}", "")
    project.makeconftest(readable.replace("assert not self.gone,", f'raise {error}("no file")  #'))
    project.makepyfile(test_model=COUNTED)
    result = project.runpytest("--defuse-correct", "--defuse-results=r.json")
    result.stdout.fnmatch_lines(
        [
            f"INCONCLUSIVE: *{error}: *no file*",
            "*the attempt is toy.failed-attempt.safetensors",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert states(project)
    assert json.loads((project.path / "r.json").read_text())["corrections"]
    project.makeconftest(readable)
    project.runpytest("--defuse-correct").stdout.fnmatch_lines(["every bound passes: wrote toy.defused.safetensors"])
    assert steps(project) == STEPS, "nothing is trained again"
    assert not states(project)


def test_a_scenario_that_a_correction_does_not_improve_writes_nothing(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.495)
    project.makepyfile(
        test_model=f"""
        import pytest
        pytestmark = pytest.mark.defuse_correct({BRIEF}, frozen=["threshold", "scale", "head.weight"],
                                                loss=lambda z, y: z.sum() * 0, augment="none")

        def test_scenario(defuse_scenario):
            assert defuse_scenario.accuracy >= 0
        """.replace("2e-3", "1e-9")
    )
    result = project.runpytest("--defuse-correct")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            f"{scenario.id}: 0 of 16 held-out images are correct before, 0 of 16 after, less than "
            "defuse_correct(target=...) 90.0%",
            "*nothing was overwritten; the attempt is toy.failed-attempt.safetensors",
        ]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert not (project.path / "toy.defused.safetensors").exists()


EXIT = """
def test_between():
    pytest.exit("enough", returncode=0)
"""
BETWEEN = """
def test_between():
    assert False
"""
BROKEN = """
@pytest.fixture(scope="session")
def broken():
    raise ValueError("broken")

def test_broken(broken, defuse_test_accuracy):
    pass
"""
BY_NAME = """
def test_by_name(request):
    assert request.getfixturevalue("defuse_test_accuracy") > 1
"""
OTHERS = "def test_others(): pass"


@pytest.mark.parametrize(
    ("between", "after", "options", "reason"),
    [
        (BETWEEN, OTHERS, ["-x"], "INCONCLUSIVE: the run is partial: stopping after 1 failures*"),
        (EXIT, OTHERS, [], "INCONCLUSIVE: 1 tests of the model did not run, such as test_model.py::test_accuracy*"),
        ("", OTHERS, ["-k", "test_scenario"], "INCONCLUSIVE: 1 tests of the model did not run*"),
        ("", "import nothing", ["--continue-on-collection-errors"], "INCONCLUSIVE: test_others.py could not be *"),
        (BROKEN, OTHERS, [], "1 failed: test_broken*"),
        (BY_NAME, OTHERS, [], "1 failed: test_by_name*"),
    ],
    ids=["stopped", "exit", "selected", "not collected", "broken fixture", "by name"],
)
def test_no_checkpoint_is_written_unless_every_test_of_the_model_was_judged(
    project: pytest.Pytester, accept: Accept, between: str, after: str, options: list[str], reason: str
) -> None:
    accept(mean=0.495)
    project.makepyfile(
        test_model=COUNTED.replace("def test_accuracy", f"{between}\ndef test_accuracy"), test_others=after
    )
    result = project.runpytest("--defuse-correct", *options)
    result.stdout.fnmatch_lines([reason, "*the attempt is toy.failed-attempt.safetensors"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert not (project.path / "toy.defused.safetensors").exists()


@pytest.mark.parametrize(
    "tests",
    ["def test_other(): pass", TESTS.replace("def test_", "@pytest.mark.skip\ndef test_")],
    ids=["other", "skip"],
)
@pytest.mark.parametrize("verb", ["correct", "discover"])
def test_a_verb_that_did_nothing_fails(project: pytest.Pytester, accept: Accept, tests: str, verb: str) -> None:
    accept(mean=0.495)
    skipped = "\nimport pytest\n@pytest.mark.skip\ndef test_search(defuse_discovery): pass\n"
    project.makepyfile(test_model=tests + skipped)
    result = project.runpytest(f"--defuse-{verb}", "-q", "--no-summary")
    result.stdout.fnmatch_lines([f"--defuse-{verb} *ed no model: *"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Some tensors share memory"),
    ],
    ids=["safetensors", "disk", "state_dict"],
)
def test_a_checkpoint_that_cannot_be_written_keeps_the_training(
    project: pytest.Pytester, accept: Accept, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    accept(mean=0.495)
    project.makepyfile(test_model=COUNTED)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_model", fail)
        result = project.runpytest_inprocess("--defuse-correct")
    words = error.strerror if isinstance(error, OSError) else str(error)
    result.stdout.fnmatch_lines(
        [f"*toy.defused.safetensors cannot be written (*{words}): run again, the training is kept"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    project.runpytest("--defuse-correct").stdout.fnmatch_lines(["every bound passes: wrote *"])
    assert steps(project) == STEPS, "nothing is trained again"


def test_an_error_while_training_is_reported_by_every_test_and_not_trained_again(
    project: pytest.Pytester, accept: Accept
) -> None:
    accept(mean=0.495)
    project.makepyfile(test_model=COUNTED.replace("pass\n", 'raise ValueError("no such class")\n', 1))
    result = project.runpytest("--defuse-correct")
    words = "The correction stopped: ValueError: no such class (test_model.py, line 6). Its training so far is kept: *"
    result.stdout.fnmatch_lines([words, words])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert steps(project) == 1
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_full_disk_while_training_is_one_sentence_and_the_training_is_kept(
    project: pytest.Pytester, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, written = cache.save_file, list[object]()

    def full(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        written.append(path)
        if len(written) > 5:  # the weights of the control are the fourth, the first state of the next trial the fifth
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(tensors, path, metadata)

    accept(mean=0.495)
    project.makepyfile(test_model=COUNTED)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "save_file", full)
        result = project.runpytest_inprocess("--defuse-correct")
    result.stdout.fnmatch_lines(["*cannot be written (*No space left on device*): free disk space, *"] * 2)
    result.stdout.no_fnmatch_line("*Traceback*")
    assert steps(project) == STEPS, "the second test does not train again"
    project.runpytest("--defuse-correct").stdout.fnmatch_lines(["every bound passes: wrote *"])
    assert steps(project) == STEPS * 3 / 2, "the control is not trained again"


def test_a_cache_that_is_deleted_while_training_changes_nothing(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    project.makepyfile(test_model=COUNTED.replace("pass\n", 'shutil.rmtree(".defuse_cache", ignore_errors=True)\n', 1))
    result = project.runpytest("--defuse-correct")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["every bound passes: wrote *"])


def test_workers_are_refused_however_they_are_requested(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.495)
    for arguments in (["-n2"], ["--dist=load", "--tx=2*popen"]):
        result = project.runpytest("--defuse-correct", *arguments)
        result.stderr.fnmatch_lines(["*--defuse-correct uses the whole machine: run it without xdist workers*"])
        assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_subject_s_correction_is_its_own(project: pytest.Pytester, accept: Accept) -> None:
    """The failed test of b, its settings and its scenario do not reach the correction of a."""
    project.makeconftest("")
    project.makepyfile(test_model="")
    for name, epochs, test in (("a", 1, "assert True"), ("b", 2, "assert False")):
        accept(mean=0.495 if name == "a" else 0.49)
        (project.path / "fixtures" / "toy").rename(project.path / "fixtures" / name)
        folder = project.mkdir(name)
        (folder / "__init__.py").touch()
        own = f'return subject(name="{name}", checkpoint="{name}.safetensors")'
        (folder / "conftest.py").write_text(CONFTEST.replace("return subject()", own))
        brief = BRIEF.replace("epochs=1", f"epochs={epochs}")
        (folder / f"test_{name}.py").write_text(
            MARKED.format(brief) + f"\ndef test_own(defuse_subject, defuse_test_accuracy): {test}\n"
        )
    result = project.runpytest("--defuse-correct", "--defuse-results=r.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (project.path / "a.defused.safetensors").exists()
    assert not (project.path / "b.defused.safetensors").exists()
    first, second = json.loads((project.path / "r.json").read_text())["corrections"]
    assert (first["subject"], first["problems"]) == ("a", [])
    assert second["problems"] == ["1 failed: test_own"]
    assert {max(trial["epochs"] for trial in part["trials"]) for part in (first, second)} == {1, 2}
