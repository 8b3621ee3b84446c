"""What the documentation tells people to copy is whole: services accept it, shells read it, and its options exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_defuse.cli import main
from pytest_defuse.plugin.options import TABLE

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "docs" / "recipes"
GITHUB = sorted((RECIPES / "github").glob("*.yml"))
GITLAB = RECIPES / "gitlab" / ".gitlab-ci.yml"
JENKINS = RECIPES / "jenkins" / "Jenkinsfile"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "docs" / "recipes.md", *GITHUB, GITLAB, JENKINS]


@pytest.mark.parametrize(
    ("schema", "files"),
    [("vendor.github-workflows", GITHUB), ("vendor.gitlab-ci", [GITLAB])],
    ids=["GitHub", "GitLab"],
)
def test_a_recipe_fits_the_schema_of_its_service(schema: str, files: list[Path]) -> None:
    assert files
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def scripts() -> list[tuple[str, str]]:
    """Every shell script of the recipes, with where it is; the service's own expressions made plain words."""
    found = []
    for path in GITHUB:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            found += [(f"{path.name}: {name}", step["run"]) for step in job["steps"] if "run" in step]
    for name, job in yaml.safe_load(GITLAB.read_text()).items():
        if isinstance(job, dict) and "script" in job:
            found.append((f"{GITLAB.name}: {name}", "\n".join(job["script"])))
    found += [("Jenkinsfile", script) for script in re.findall(r"sh '''(.*?)'''", JENKINS.read_text(), re.DOTALL)]
    return [(where, re.sub(r"\$\{\{.*?\}\}", "WORD", script)) for where, script in found]


@pytest.mark.parametrize(("where", "script"), scripts(), ids=[where for where, _ in scripts()])
def test_a_script_of_a_recipe_is_one_that_a_shell_reads(where: str, script: str) -> None:
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert checked.returncode == 0, f"{where}: {checked.stderr}"


def test_a_jenkinsfile_closes_what_it_opens() -> None:
    code = re.sub(r"'''.*?'''|'[^']*'|//[^\n]*", "", JENKINS.read_text(), flags=re.DOTALL)
    assert code.count("{") == code.count("}") > 0
    assert code.count("(") == code.count(")") > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_are_written_about_exist(page: Path) -> None:
    known = {f"--defuse-{row.name}" for row in TABLE}
    written = set(re.findall(r"--defuse-[a-z]+(?:-[a-z]+)*", page.read_text(encoding="utf-8")))
    assert written
    assert written <= known


def test_files_that_the_recipes_page_names_exist() -> None:
    page = REPOSITORY / "docs" / "recipes.md"
    named = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert all((page.parent / name).exists() for name in named if "://" not in name)


def test_the_report_command_knows_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", "--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert all(flag in output for flag in ("--html", "--markdown", "--code-quality"))
