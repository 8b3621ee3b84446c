"""The cost of the plugin in a run that does not use it, and the resolution of options."""

import os
import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "torchvision", "numpy", "scipy", "sklearn", "pydantic", "PIL", "jinja2", "rich", "yaml", "filelock"),
    "pytest_defuse.statistics",  # needed only where an accuracy is compared
)


def loaded_after(code: str) -> list[str]:
    """Which heavy modules a fresh interpreter holds after some code."""
    check = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, check=True)
    return eval(result.stdout.splitlines()[-1])


def test_the_plugin_imports_nothing_heavy() -> None:
    assert loaded_after("import pytest_defuse.plugin") == []


def test_a_run_that_does_not_use_it_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    code = "import pytest; assert pytest.main(['-q', '-p', 'no:xdist', '-p', 'no:hypothesispytest']) == 0"
    assert loaded_after(code) == []


@pytest.mark.parametrize(
    ("ini", "environment", "arguments", "expected"),
    [
        ("", {}, [], "fixtures"),
        ("defuse_store = from_ini", {}, [], "from_ini"),
        ("defuse_store = from_ini", {"DEFUSE_STORE": "from_env"}, [], "from_env"),
        ("defuse_store = from_ini", {"DEFUSE_STORE": "from_env"}, ["--defuse-store=from_cli"], "from_cli"),
    ],
)
def test_command_line_before_environment_before_ini_before_default(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    ini: str,
    environment: dict[str, str],
    arguments: list[str],
    expected: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.makepyfile(
        f"""
        from pytest_defuse.plugin.stash import SESSION
        def test_store(pytestconfig):
            assert pytestconfig.stash[SESSION].options.store == pytestconfig.rootpath / "{expected}"
        """
    )
    (pytester.mkdir(expected) / "toy").mkdir()
    (pytester.path / expected / "toy" / "store.yaml").touch()
    pytester.runpytest(*arguments).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("ini", "environment", "arguments", "source"),
    [
        ("defuse_store = named", {}, [], "ini key defuse_store"),
        ("", {"DEFUSE_STORE": "named"}, [], "environment variable DEFUSE_STORE"),
        ("", {}, ["--defuse-store=named"], "--defuse-store"),
    ],
)
def test_a_named_folder_that_is_no_store_is_a_usage_error(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    ini: str,
    environment: dict[str, str],
    arguments: list[str],
    source: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.makepyfile("def test_nothing(): pass")

    def refused(problem: str) -> None:
        result = pytester.runpytest(*arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*{source} names the store *named, and {problem}, or create the store *"])
        assert pytester.runpytest("--defuse-discover", "--collect-only", *arguments).ret == pytest.ExitCode.OK

    refused("there is no such folder: correct the name")
    folder = pytester.mkdir("named")
    if ini:  # the store of a project before its first discovery
        assert pytester.runpytest(*arguments).ret == pytest.ExitCode.OK
    else:
        refused("that folder has no store of any subject: correct the name")
    (folder / "store.yaml").touch()
    refused(f"that folder has no store of any subject: name {pytester.path}")
    (folder / "store.yaml").unlink()
    (folder / "toy").mkdir()
    (folder / "toy" / "store.yaml").touch()
    assert pytester.runpytest(*arguments).ret == pytest.ExitCode.OK


def test_a_wrong_value_names_its_source(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    result = pytester.runpytest("--defuse-seed=many")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--defuse-seed is 'many': give a whole number >= 0."])
    result = pytester.runpytest("--defuse-store=")
    result.stderr.fnmatch_lines(["*--defuse-store is empty: give a folder."])
    monkeypatch.setenv("DEFUSE_DISCOVER", "perhaps")
    result = pytester.runpytest()
    result.stderr.fnmatch_lines(["*environment variable DEFUSE_DISCOVER is 'perhaps': give true or false."])


@pytest.mark.parametrize(
    ("ini", "environment", "sentence"),
    [
        ("defuse_stric = true", {}, "ini key defuse_stric sets no option: did you mean defuse_strict?"),
        ("", {"DEFUSE_STRIC": "1"}, "environment variable DEFUSE_STRIC sets no option: did you mean DEFUSE_STRICT?"),
        (
            "",
            {"DEFUSE_BASLINE": ""},
            "environment variable DEFUSE_BASLINE sets no option: did you mean DEFUSE_BASELINE?",
        ),
    ],
)
def test_a_name_that_begins_like_an_options_and_is_none_is_a_usage_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ini: str, environment: dict[str, str], sentence: str
) -> None:
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.makepyfile("def test_nothing(): pass")
    monkeypatch.setenv("DEFUSE_DATA", "the data sets of the benchmarks")
    assert pytester.runpytest("-c", os.devnull).ret == pytest.ExitCode.OK
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{sentence} Correct or remove it."])


@pytest.mark.parametrize("verb", ["discover", "correct"])
def test_long_verbs_refuse_xdist_workers(pytester: pytest.Pytester, verb: str) -> None:
    result = pytester.runpytest(f"--defuse-{verb}", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--defuse-{verb} uses the whole machine: run it without xdist workers*"])


def test_markers_are_registered(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.defuse(min_accuracy=0.9)
        @pytest.mark.defuse_discover(draws=1)
        def test_nothing(): pass
        """
    )
    pytester.runpytest("--strict-markers").assert_outcomes(passed=1)
