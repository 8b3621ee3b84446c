"""Settings of failure modes."""

from typing import ClassVar

from pytest_defuse.rules.settings import RuleSettings
from pytest_defuse.runtime.settings import Count, setting


class ExplainSettings(RuleSettings):
    """Settings of failure modes; ``@pytest.mark.defuse_explain`` accepts these names."""

    marker: ClassVar = "defuse_explain"
    renamed: ClassVar = {"images": "tiles"}

    layer: str | None = setting(
        None,
        "The layer whose output is used as features, as `named_modules()` calls it; default: the input of the last "
        "linear layer.",
        "Barlow, section 4: the penultimate layer",
    )
    tiles: Count = setting(
        256, "Maximum number of tiles in each of a candidate's two sheets.", "Defuse, section 4.1: 256 images"
    )
