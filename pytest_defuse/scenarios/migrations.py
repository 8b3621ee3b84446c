"""Formats before the present one, read by turning their data into the next format's, step by step.

Format 0 kept summaries of votes inside scenario.yaml and the generator's hash in store.yaml, where branches that
worked at once came into conflict. Format 1 has one file an annotator, and the hash in each region only.
"""

from collections.abc import Callable
from typing import Any

Data = dict[Any, Any]


def _from_0(data: Data, schema_name: str) -> Data:
    if schema_name == "store":
        return {key: value for key, value in data.items() if key != "generator"} | {"format": "1"}
    # A summary does not say which tile was given which class, so it cannot become votes: it is kept in words.
    summaries = [_in_words(vote) for vote in data.get("votes") or [] if isinstance(vote, dict)]
    notes = [text for text in (data.get("notes"), *summaries) if text]
    kept = {key: value for key, value in data.items() if key != "votes"}
    return kept | {"format": "1", "notes": "\n".join(map(str, notes))}


def _in_words(vote: Data) -> str:
    return (
        f"Vote of {vote.get('who')} ({vote.get('kind')}): {vote.get('label') or 'no class'}, "
        f"agreement {vote.get('agreement')}, none of the above on {vote.get('none_of_the_above', 0)} tiles."
    )


STEPS: dict[int, Callable[[Data, str], Data]] = {0: _from_0}
"""For each old format, what makes the next one of it."""


def upgraded(data: Data, number: int, schema_name: str) -> Data:
    """The data of a file of format ``number`` as the present format has it.

    Args:
        data: as read, unchecked: what is wrong with it is for the schema to say.
        schema_name: which kind of file it is.
    """
    for step in range(number, max(STEPS) + 1):
        data = STEPS[step](data, schema_name)
    return data
