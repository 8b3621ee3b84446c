import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_defuse.cli import main
from pytest_defuse.plugin.inifile import options_here
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.store import Store
from tests.contents import contents
from tests.review.stores import add_candidate, build_store
from tests.scenarios.planting import before_the_next_lock, with_predictions


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, seen from its root, whose conftest.py must not be run."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text("raise SystemExit('conftest.py was run')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(project: Path) -> Store:
    return build_store(project / "fixtures" / "digits")


def ids(store: Store) -> list[str]:
    return [scenario.id for scenario in store.scenarios()]


class TestWhereTheStoreIs:
    def test_beside_the_ini_file_by_default_also_from_a_subdirectory(self, project: Path, monkeypatch) -> None:
        (project / "deep" / "down").mkdir(parents=True)
        monkeypatch.chdir(project / "deep" / "down")
        assert options_here().store == project / "fixtures"

    def test_command_line_then_environment_then_ini(self, project: Path, monkeypatch) -> None:
        (project / "pytest.ini").write_text("[pytest]\ndefuse_store = of_ini\n")
        assert options_here().store == project / "of_ini"
        monkeypatch.setenv("DEFUSE_STORE", "of_environment")
        assert options_here().store == project / "of_environment"
        assert options_here(["--defuse-store=of_command_line"]).store == project / "of_command_line"

    @pytest.mark.parametrize(
        "addopts", ["-n2 -ra", "--defined-in-conftest", "--strict-markers -p no:terminal", "--version"]
    )
    def test_addopts_do_not_matter(self, project: Path, addopts: str, capfd) -> None:
        (project / "pytest.ini").write_text(f"[pytest]\naddopts = {addopts}\n")
        assert options_here().store == project / "fixtures"
        assert capfd.readouterr() == ("", "")

    def test_addopts_may_name_the_store(self, project: Path) -> None:
        (project / "pytest.ini").write_text("[pytest]\naddopts = --defuse-store=of_addopts\n")
        assert options_here().store == project / "of_addopts"

    def test_a_value_that_cannot_be_read_is_one_sentence(self, project: Path, monkeypatch) -> None:
        monkeypatch.setenv("DEFUSE_SEED", "many")
        with pytest.raises(DefuseError, match="DEFUSE_SEED is 'many'"):
            options_here()

    def test_pytest_without_this_plugin_is_one_sentence(self, project: Path) -> None:
        (project / "pytest.ini").write_text("[pytest]\naddopts = -p no:defuse\n")
        with pytest.raises(DefuseError, match=r"load it with -p pytest_defuse\.plugin"):
            options_here()

    def test_pytest_that_cannot_start_is_reported(self, project: Path, capsys) -> None:
        (project / "pytest.ini").write_text("[pytest]\nrequired_plugins = pytest-not-there\n")
        assert main(["list"]) == 2
        assert "pytest-not-there" in capsys.readouterr().err

    @pytest.mark.parametrize("command", [["list"], ["verify"], ["label", "3-as-1-000000", "--reject"], ["review"]])
    def test_no_store_is_misuse(self, project: Path, command: list[str], capsys) -> None:
        assert main([*command, "--defuse-store", "not_there"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("There is no scenario store in not_there")
        assert not (project / "not_there").exists()

    def test_the_option_goes_before_the_command_too(self, store: Store, capsys) -> None:
        store.folder.parent.rename("elsewhere")
        assert main(["--defuse-store", "elsewhere", "list"]) == 0
        assert "in elsewhere" in capsys.readouterr().out


class TestLabel:
    def test_accepts(self, store: Store, capsys) -> None:
        first, second, third = ids(store)
        assert main(["label", first, third, "--label", "8"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"{first} accepted as 8: {Path('fixtures/digits', first, 'scenario.yaml')}",
            f"{third} accepted as 8: {Path('fixtures/digits', third, 'scenario.yaml')}",
        ]
        assert [(s.record.status, s.record.label) for s in store.scenarios()] == [
            ("accepted", "8"),
            ("candidate", None),
            ("accepted", "8"),
        ]
        assert store.get(second).record.label is None

    def test_rejects_also_what_was_accepted(self, store: Store, capsys) -> None:
        first = ids(store)[0]
        main(["label", first, "--label", "8"])
        assert main(["label", first, "--reject"]) == 0
        assert f"{first} rejected: " in capsys.readouterr().out
        assert (store.get(first).record.status, store.get(first).record.label) == ("rejected", None)

    def test_paths_are_relative_to_where_one_is(self, store: Store, monkeypatch, capsys) -> None:
        monkeypatch.chdir(store.folder)
        main(["label", ids(store)[0], "--reject"])
        path = capsys.readouterr().out.split(": ")[1].strip()
        assert Path(path) == Path("..", "digits", ids(store)[0], "scenario.yaml")

    @pytest.mark.parametrize(
        ("wrong", "decision", "sentence"),
        [
            ("9-as-9-999999", ["--label", "8"], "There is no scenario '9-as-9-999999'"),
            ("../digits", ["--reject"], "There is no scenario '../digits'"),
            (None, ["--label", "eight"], "'eight' is not a class of digits/"),
        ],
    )
    def test_changes_nothing_where_one_is_wrong(self, store: Store, wrong, decision, sentence, capsys) -> None:
        before = contents(store.folder)
        ids_to_label = [*ids(store)[:2], *([wrong] if wrong else [])]
        assert main(["label", *ids_to_label, *decision]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(sentence)
        assert err.count("\n") == 1
        assert contents(store.folder) == before

    def test_a_decision_that_another_person_made_meanwhile_stays(self, store: Store, monkeypatch, capsys) -> None:
        first = ids(store)[0]
        before_the_next_lock(monkeypatch, lambda: store.update(first, status="rejected"))
        assert main(["label", first, "--label", "8"]) == 2
        assert "scenario.yaml has changed since it was read" in capsys.readouterr().err
        assert store.get(first).record.status == "rejected"

    @pytest.mark.parametrize("decision", [[], ["--label", "8", "--reject"]])
    def test_needs_exactly_one_decision(self, store: Store, decision: list[str]) -> None:
        with pytest.raises(SystemExit) as exit_:
            main(["label", ids(store)[0], *decision])
        assert exit_.value.code == 2

    def test_one_id_in_two_subjects_wants_the_subject(self, store: Store, capsys) -> None:
        other = Store(store.folder.with_name("other"))
        shutil.copytree(store.folder, other.folder)
        first = ids(store)[0]
        assert main(["label", first, "--label", "8"]) == 2
        assert f"name digits/{first} or other/{first}" in capsys.readouterr().err
        assert main(["label", f"other/{first}", "--label", "8"]) == 0
        assert other.get(first).record.label == "8"
        assert store.get(first).record.label is None


class TestList:
    def test_shows_each_scenario_in_order_of_ids(self, store: Store, capsys) -> None:
        first, second, third = ids(store)
        main(["label", third, "--label", "8"])
        main(["label", second, "--reject"])
        capsys.readouterr()
        assert main(["list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert set(lines.pop(1)) == {"─"}
        assert [line.split() for line in lines] == [
            ["scenario", "status", "label", "predicted", "fails"],
            [first, "candidate", "(1)", "2", "8/9", "90.6%"],
            [second, "rejected", "(2)", "0", "8/9", "90.6%"],
            [third, "accepted", "8", "1", "8/9", "90.6%"],
            [],
            ["1", "candidate,", "1", "accepted,", "1", "rejected", "in", "fixtures"],
        ]
        assert max(map(len, lines)) <= 80

    @pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
    def test_output_to_a_program_has_no_escapes(
        self, store: Store, capsys, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv("TERM", "xterm")
        main(["list"])
        plain = capsys.readouterr().out
        monkeypatch.setenv(variable, "1")
        main(["list"])
        assert capsys.readouterr().out == plain

    def test_keeps_ids_whole_and_names_as_they_are(self, project: Path, capsys) -> None:
        classes = ["[bold]golden retriever", "Siamese cat", "wheelbarrow of stone", "fire truck"]
        store = build_store(project / "fixtures" / "things", classes)
        build_store(project / "fixtures" / "digits")
        assert main(["list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if line.endswith(":")] == ["digits:", "things:"]
        assert all(any(line.startswith(name) for line in lines) for name in ids(store))
        assert any("[bold]golden retriever 8/9" in line for line in lines)

    def test_a_file_that_is_wrong_is_named_with_its_line(self, store: Store, capsys) -> None:
        path = store.scenarios()[0].yaml
        path.write_text(path.read_text().replace('status: "candidate"', "status: maybe"))
        assert main(["list"]) == 2
        assert f"{path.relative_to(Path.cwd())}:4: status" in capsys.readouterr().err


class TestVerify:
    def test_a_whole_store(self, store: Store, capsys) -> None:
        before = contents(store.folder)
        assert main(["verify"]) == 0
        assert capsys.readouterr().out == "3 scenarios in fixtures: every file is valid\n"
        assert contents(store.folder) == before

    def test_names_every_problem_once(self, store: Store, capsys) -> None:
        first, second, third = (scenario.folder for scenario in store.scenarios())
        (first / "scenario.yaml").write_text((first / "scenario.yaml").read_text() + "colour: red\nsize: 3\n")
        shutil.copy(second / "correction.png", second / "held_out.png")
        (third / "correction.png").write_text("version https://git-lfs.github.com/spec/v1\n")
        (third / "held_out.png").unlink()
        (store.folder / "forgotten").mkdir()
        assert main(["verify"]) == 1
        lines = capsys.readouterr().out.splitlines()
        for line, (path, words) in zip(
            sorted(lines),
            [
                (first / "scenario.yaml", "colour: is not a known key"),
                (first / "scenario.yaml", "size: is not a known key"),
                (second / "held_out.png", "other pixels"),
                (third / "correction.png", "git lfs pull"),
                (third / "held_out.png", "is missing"),
                (store.folder / "forgotten" / "scenario.yaml", "is missing"),
            ],
            strict=True,
        ):
            assert line.startswith(os.path.relpath(path))
            assert words in line

    @pytest.mark.parametrize("content", [None, "format: 2\n"])
    def test_a_store_file_that_is_missing_or_wrong_is_named(self, store: Store, content, capsys) -> None:
        path = store.folder / "store.yaml"
        path.unlink()
        if content is not None:
            path.write_text(content)
        assert main(["verify"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines
        assert all(line.startswith(str(Path("fixtures/digits/store.yaml"))) for line in lines)
        assert len(set(lines)) == len(lines)

    def test_as_json(self, store: Store, capsys) -> None:
        (store.scenarios()[0].folder / "held_out.png").unlink()
        path = store.folder / "store.yaml"
        path.write_text(path.read_text().replace("tiles: 256", "tiles: 5"))
        assert main(["verify", "--json"]) == 1
        values = json.loads(capsys.readouterr().out)
        assert values["scenarios"] == 3
        assert [(p["line"], p["warning"]) for p in values["problems"]].count((None, False)) == 1
        assert sum(problem["warning"] for problem in values["problems"]) == 6
        assert {problem["file"].partition("/digits/")[0] for problem in values["problems"]} == {"fixtures"}

    def test_warnings_alone_are_no_failure(self, store: Store, capsys) -> None:
        path = store.folder / "store.yaml"
        path.write_text(path.read_text().replace("scenarios: 100", "scenarios: 2"))
        assert main(["verify"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "fixtures/digits/store.yaml:5: warning: budgets.scenarios: the store has 3: remove rejected ones, or raise "
            "this budget.",
            "3 scenarios in fixtures: every file is valid, 1 warning",
        ]

    def test_the_pre_commit_hook_runs_it_for_every_file_of_a_store(self, store: Store) -> None:
        (hook,) = yaml.safe_load((Path(__file__).parents[2] / ".pre-commit-hooks.yaml").read_text())
        assert hook["entry"] == "pytest-defuse verify"
        assert hook["pass_filenames"] is False
        store.vote(ids(store)[0], "anna", {"correction": {0: "1"}})
        files = [path for path in store.folder.glob("[!.]*/**/*") if path.is_file()]
        assert len(files) == 3 * 4 + 1
        assert all(re.search(hook["files"], path.relative_to(Path.cwd()).as_posix()) for path in files)
        assert not re.search(hook["files"], "docs/config.yaml")


class TestVotes:
    @pytest.fixture
    def voted(self, store: Store) -> Store:
        """The first scenario voted a 1, the second nothing, the third without votes; models say else."""
        first, second, third = ids(store)
        for scenario in store.scenarios():
            with_predictions(scenario)
        for who in ("anna", "bob"):
            store.vote(first, who, {"correction": {0: "1", 1: "1", 2: "1", 3: None, 4: "7"}})
            store.vote(second, who, {"correction": {0: None, 1: None}})
        store.vote(first, "cleo", {"correction": {0: "1", 1: "7"}})
        store.vote(third, "judge", {"correction": {0: "3"}}, "model")
        return store

    def test_shows_what_they_say_and_how_far_they_agree(self, voted: Store, capsys) -> None:
        first, second, third = ids(voted)
        before = contents(voted.folder)
        assert main(["votes"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines == [
            f"{first} (candidate): scenario 1, the model is wrong on 4 of 4 tiles",
            "  5 tiles by anna, bob, cleo; agreement 93%",
            "  another class on tile correction 4",
            "  none of the above on tile correction 3",
            f"{second} (candidate): no scenario, none of the above on every tile",
            "  2 tiles by anna, bob; agreement 100%",
            "  none of the above on tile correction 0, correction 1",
            f"{third} (candidate): undecided, nobody has voted",
            "  not counted: judge (model)",
            "",
            "agreement       images  mean +- standard error",
            "scenarios            5  93.3% +- 6.7",
            "others               2  100.0% +- 0.0",
            "both                 7  95.2% +- 4.8",
        ]
        assert contents(voted.folder) == before

    def test_decides_where_they_do(self, voted: Store, capsys) -> None:
        first, _, third = voted.scenarios()
        assert main(["votes", "--decide"]) == 0
        decided = [(s.record.status, s.record.label) for s in voted.scenarios()]
        assert decided == [("accepted", "1"), ("rejected", None), ("candidate", None)]
        assert voted.get(first.id).record.sheets.correction.excluded == (3, 4)
        assert voted.get(first.id).record.sheets.held_out.excluded == ()
        assert voted.get(third.id) == third

    def test_says_by_its_exit_code_that_some_are_undecided(self, voted: Store, capsys) -> None:
        third = ids(voted)[2]
        voted.vote(third, "anna", {"correction": {0: "3", 1: "5"}})
        assert main(["votes", "--decide", "--only", third]) == 1
        assert voted.get(third).record.status == "candidate"
        assert [s.record.status for s in voted.scenarios()] == ["candidate"] * 3
        assert main(["votes", "--only", third]) == 0

    def test_leaves_decisions_of_people_alone(self, voted: Store, capsys) -> None:
        first = ids(voted)[0]
        main(["label", first, "--reject"])
        main(["votes", "--decide"])
        assert voted.get(first).record.status == "rejected"

    def test_as_json(self, voted: Store, capsys) -> None:
        assert main(["votes", "--json"]) == 0
        values = json.loads(capsys.readouterr().out)
        assert [scenario["outcome"] for scenario in values["scenarios"]] == ["scenario", "no scenario", "undecided"]
        assert values["scenarios"][2] | {"scenario": ""} == {
            "scenario": "",
            "status": "candidate",
            "voters": [],
            "models": ["judge"],
            "tiles": 0,
            "ties": 0,
            "agreement": None,
            "outcome": "undecided",
            "label": None,
            "reason": "nobody has voted",
            "remarks": ["not counted: judge (model)"],
        }
        assert [row["images"] for row in values["agreement"]] == [5, 2, 7]


class TestJson:
    def test_of_every_command_is_json_and_nothing_else(self, store: Store, capsys) -> None:
        first = ids(store)[0]
        for command in (
            ["list"],
            ["verify"],
            ["votes"],
            ["migrate", "--check"],
            ["schema"],
            ["label", first, "--reject"],
            ["export", "label-studio", "out", "--only", first],
        ):
            assert main([*command, "--json"]) == 0
            out, err = capsys.readouterr()
            assert err == ""
            assert json.loads(out) is not None

    def test_of_a_decision_is_its_state(self, store: Store, capsys) -> None:
        first = ids(store)[0]
        main(["label", first, "--label", "8", "--json"])
        assert json.loads(capsys.readouterr().out) == [
            {
                "scenario": f"digits/{first}",
                "status": "accepted",
                "label": "8",
                "file": f"fixtures/digits/{first}/scenario.yaml",
            }
        ]
        main(["list", "--json"])
        listed = json.loads(capsys.readouterr().out)
        assert [entry["status"] for entry in listed] == ["accepted", "candidate", "candidate"]
        assert listed[0]["predicted"] == {"2": 8, "1": 1}

    def test_of_misuse_is_the_sentence_too(self, project: Path, capsys) -> None:
        assert main(["list", "--json"]) == 2
        out, err = capsys.readouterr()
        assert json.loads(out)["error"] == err.splitlines()


class TestSchema:
    @pytest.mark.parametrize("kind", ["scenario", "store", "votes"])
    def test_is_what_the_files_of_a_store_name(self, store: Store, kind: str, capsys) -> None:
        assert main(["schema", kind]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(
            (store.folder / ".schema" / f"{kind}.json").read_text()
        )

    def test_is_the_scenarios_by_default(self, project: Path, capsys) -> None:
        main(["schema"])
        assert json.loads(capsys.readouterr().out)["title"] == "pytest-defuse scenario, format 2"


def test_a_store_that_cannot_be_written_is_one_sentence(store: Store, capsys) -> None:
    (store.folder / ".lock").unlink()
    (store.folder / ".lock").mkdir()
    assert main(["label", ids(store)[0], "--reject"]) == 2
    assert re.search(r"fixtures/digits/\.lock cannot be written \(.+\): free disk space", capsys.readouterr().err)


def test_help_names_the_exit_codes(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "exit codes:" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.slow
def test_a_reader_that_stops_reading_is_no_error(store: Store) -> None:
    program = "import sys; from pytest_defuse.cli import main; sys.exit(main())"
    command = f'"{sys.executable}" -c "{program}" schema | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_review_without_its_packages_says_what_to_install(store: Store, monkeypatch, capsys) -> None:
    monkeypatch.delitem(sys.modules, "pytest_defuse.review.app", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["review", "--no-browser"]) == 2
    assert capsys.readouterr().err == ("The page needs two more packages: pip install 'pytest-defuse[review]'.\n")


@pytest.mark.parametrize("port", ["taken", "70000"])
def test_review_on_a_port_that_cannot_be_had(store: Store, port: str, capsys) -> None:
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = str(other.getsockname()[1]) if port == "taken" else port
        assert main(["review", "--no-browser", "--port", number]) == 2
    assert capsys.readouterr().err.startswith(f"Port {number} cannot be used")


@pytest.mark.slow
def test_the_command_runs_as_a_program(store: Store) -> None:
    add_candidate(store, "7", "1", images=4, seed=9)
    command = [sys.executable, "-c", "import sys; from pytest_defuse.cli import main; sys.exit(main())"]
    done = subprocess.run([*command, "verify"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "4 scenarios in fixtures: every file is valid\n",
        "",
    )
