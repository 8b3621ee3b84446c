import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.discover.failed_draws import FailedDraws, occurrence_numbers


@given(st.lists(st.integers(0, 5), min_size=1))
def test_occurrence_numbers_count_the_equal_values_before(values: list[int]) -> None:
    expected = [values[:index].count(value) for index, value in enumerate(values)]
    assert occurrence_numbers(torch.tensor(values)).tolist() == expected


def test_concatenated_draws_keep_their_order() -> None:
    numbers = torch.arange(4)
    draws = FailedDraws(numbers[:, None].float(), numbers, numbers, numbers, numbers)
    both = FailedDraws.concatenate([draws[:2], draws[torch.tensor([3])]])
    assert len(both) == 3
    assert all(values.flatten().tolist() == [0, 1, 3] for values in vars(both).values())
