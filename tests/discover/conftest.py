from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Arrays as small as those of these tests are slower on several threads than on one."""
    with threadpool_limits(1):
        yield
