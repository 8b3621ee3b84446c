"""The room in a store, which is checked before the long work whose results go there."""

import numpy as np

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import check_writable
from pytest_defuse.scenarios.problems import plain_folder
from pytest_defuse.scenarios.schema import StoreRecord
from pytest_defuse.scenarios.sheets import tile_format
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject


def room_for(store: Store, subject: Subject) -> int:
    """How many more scenarios of a subject the budget in store.yaml allows, at least one; nothing is written.

    Raises:
        DefuseError: the store cannot be read or written, has other classes or another image size, or is full.
    """
    folder = plain_folder(store.folder)
    check_writable(next(parent for parent in (folder, *folder.absolute().parents) if parent.exists()), "Candidates")
    record = StoreRecord.of(subject.classes, tile_format(np.empty((1, *subject.image_shape), dtype=np.uint8)))
    if not store.exists():
        return record.budgets.scenarios
    store.check_fits(record)
    count, budget = len(store.scenarios()), store.record().budgets.scenarios
    if count >= budget:
        raise DefuseError(
            f"{store.folder / 'store.yaml'}: the store has {count} scenarios, and its budgets.scenarios is {budget}: "
            "remove rejected ones, or raise the budget, before you search for more."
        )
    return budget - count
