import pytest

from tests.example_project.conftest import Example


def test_scenarios_are_labelled_and_complete(example: Example) -> None:
    scenarios = example.store.scenarios()
    accepted = [scenario for scenario in scenarios if scenario.record.status == "accepted"]
    assert len(accepted) >= 5
    for scenario in scenarios:
        for split in ("correction", "held_out"):
            assert scenario.pixels(split).shape == (256, 1, 28, 28)


@pytest.mark.slow
def test_the_gate_fails_the_original_model_as_recorded(example: Example) -> None:
    result = example.pytest("tests/test_model.py")
    accepted = example.store.scenarios("accepted")
    assert pytest.RunResult.parse_summary_nouns(result.stdout.splitlines()) == {"failed": len(accepted), "passed": 1}
    for scenario in accepted:
        right = scenario.record.sheets.held_out.predicted.get(scenario.record.label or "", 0)
        assert f"scenario {scenario.id} (label '{scenario.record.label}'): accuracy {right}/256" in result.stdout
