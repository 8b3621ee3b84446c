import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_defuse.discover.failed_draws import Failures, ranks


@given(st.lists(st.integers(0, 5), min_size=1))
def test_a_rank_counts_the_equal_values_before(numbers: list[int]) -> None:
    expected = [numbers[:at].count(number) for at, number in enumerate(numbers)]
    assert ranks(torch.tensor(numbers)).tolist() == expected


def test_joined_failures_keep_their_order() -> None:
    count = torch.arange(4)
    failures = Failures(count[:, None].float(), count, count, count, count)
    joined = Failures.joined([failures[:2], failures[torch.tensor([3])]])
    assert len(joined) == 3
    assert all(part.flatten().tolist() == [0, 1, 3] for part in vars(joined).values())
