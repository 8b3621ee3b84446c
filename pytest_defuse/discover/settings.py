"""Settings of a discovery."""

from typing import ClassVar, Literal

from pytest_defuse.runtime.settings import Count, OpenShare, Positive, Settings, setting


class DiscoverySettings(Settings):
    """Settings of a discovery; ``@pytest.mark.defuse_discover`` accepts these names.

    ``mode="paper"`` replaces some defaults by the papers' values for MNIST, and fits one mixture: no region is required
    to be found again by another fit.
    """

    marker: ClassVar = "defuse_discover"
    presets: ClassVar = {
        ("mode", "paper"): {
            "draws": 500,
            "cap": 100,
            "clustering": "plain",
            "restarts": 1,
            "min_weight": 0.01,
            "min_failures": 30,
        }
    }
    renamed: ClassVar = {"images": "tiles", "worst_reconstruction": "min_reconstruction"}
    removed: ClassVar = {"backend": "there is one implementation of the mixture"}

    mode: Literal["default", "gradient", "paper"] = setting(
        "default",
        "The search. `default`: adaptive, and a failure counts only if the reference classifiers that give a second "
        "opinion (judges) contradict the model. `gradient`: the same, and each draw is moved along gradients first. "
        "`paper`: Algorithm 1 of the papers, without judges.",
        "`benchmarks/search.py`: at least 8 times the valid failures of uniform draws for a forward pass",
    )
    budget: Count = setting(
        60_000,
        "Forward passes of the model in the search: on images, their reconstructions, draws and rechecks in float32, "
        "and in gradient steps. Confirming regions and the judges take further ones, and reports count all. Not used "
        "in mode `paper`.",
    )
    draws: Count = setting(
        10,
        "Draws around one image: in one block, or in total in mode `paper` (Q).",
        "our choice; `paper`: Defuse, appendix B.2",
    )
    noise: Positive = setting(
        0.4, "Standard deviation of the draws, in units of each latent dimension's standard deviation over the images."
    )
    neighbour_noise: Positive = setting(0.3, "The same for draws around failures that were already found.")
    cap: Count = setting(
        10, "Maximum number of failures kept for one image.", "our choice; `paper`: Defuse, appendix B.2"
    )
    a: Positive = setting(50.0, "Mode `paper` adds noise from Beta(a, b).", "Defuse, section 4.1: MNIST")
    b: Positive = setting(50.0, "See `a`.", "Defuse, section 4.1: MNIST")
    steps: Count = setting(5, "Gradient steps for each draw in mode `gradient`.")
    clustering: Literal["joint", "plain"] = setting(
        "joint",
        "`joint`: one mixture for each kind of error (label and prediction). `plain`: one mixture of all codes, as in "
        "the papers.",
        "our choice: a region is then of one kind of error",
    )
    components: Count = setting(
        100,
        "Maximum number of components of a mixture (K); a mixture of few failures has fewer.",
        "Defuse, section 4.1: K = 100",
    )
    restarts: Count = setting(
        5, "Fits of the mixture from different starts; the one with the largest lower bound is used."
    )
    stability: OpenShare = setting(
        0.5, "A region counts as found again by another fit if their Bhattacharyya coefficient is above this."
    )
    min_weight: OpenShare = setting(
        0.001, "Components of smaller weight are dropped (epsilon).", "our choice; `paper`: Defuse, section 4.1"
    )
    min_failures: Count = setting(
        15, "Components with fewer failures are dropped. Larger than `cap`, so a region has failures of several images."
    )
    tau: Positive = setting(
        0.5, "Scale of a region's covariance for fresh draws.", "Defuse, section 4.1: tau = 0.5 for MNIST"
    )
    rho: OpenShare = setting(
        0.5,
        "A region becomes a candidate if its failure rate is significantly above this.",
        "Defuse, section 4.1: rho = 0.5",
    )
    confirmations: Count = setting(256, "Fresh draws that decide whether a region is a candidate.")
    max_overlap: OpenShare = setting(
        0.3, "Regions of one error are merged if their Bhattacharyya coefficient is above this."
    )
    tiles: Count = setting(256, "Tiles in each of a candidate's two sheets.", "Defuse, section 4.1: 256 images")
    candidates: Count = setting(
        12, "Maximum number of candidates; those that cover the most training images come first."
    )
    confidence: OpenShare = setting(
        0.9, "Minimum softmax probability of a confident judge; calibration on held-out images may raise it."
    )
    generator: Literal["default", "paper"] = setting(
        "default",
        "The built-in generator. `default` is trained to keep what a judge sees; `paper`, the papers', only on pixels.",
        "`benchmarks/generator.py --plain` compares both",
    )
    latent: int = setting(
        0,
        "Latent dimensions of the default generator; 0: 16 for grey images and 48 for RGB.",
        "`benchmarks/generator.py`: all 16 and all 48 dimensions are active",
        ge=0,
    )
    beta: Positive = setting(
        0.5, "Weight of the KL term of the default generator.", "our choice: the papers' 4 blurs small strokes away"
    )
    generator_steps: Count = setting(
        2000, "Optimizer steps of the default generator.", "`benchmarks/generator.py`, on MNIST"
    )
    min_reconstruction: OpenShare = setting(
        0.85, "Minimum accuracy of the model on reconstructions, as a share of its accuracy on the images."
    )
