"""How a language model is trained to write codes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from gram.coder.causal.coder import WritingSettings
from gram.coder.causal.language_model import LanguageModelSettings
from gram.errors import SettingError


@dataclass(frozen=True)
class CausalSettings:
    """Every stage's part. A stage of no steps is left out; `steps` = 0 chooses by the size of the data."""

    model: LanguageModelSettings = field(default_factory=LanguageModelSettings)
    writing: WritingSettings = field(default_factory=WritingSettings)
    steps: int = 0  # of joint training
    co_training: int = -1  # steps; −1 for half as many as joint training
    co_alignment: int = -1  # steps; −1 for a quarter as many
    batch: int = 32  # texts of each side in a step
    rate: float = 0.0  # 0 chooses: adapters 2e-4, all weights 5e-5, random weights 1e-3
    product_side: float = 1.0  # λ of L_q + λ·L_p (Eq. 3)
    validate_every: int = 100
    patience: int = 4  # validations without a gain before joint training and co-training stop
    beta_chosen: float = 0.5  # β_w of Eq. 6
    beta_rejected: float = 0.2  # β_l
    likelihood: float = 0.2  # of the chosen codes beside Eq. 6: without it both likelihoods fall (Pang et al. 2024)
    rounds: int = 2  # of co-alignment: codes are written anew before each
    texts: int = 8000  # queries, and products, that co-training and co-alignment write codes of, at most

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise SettingError(f"the rate is a number above 0, or 0 to choose one, not {self.rate}")

    def chosen_stages(self, n_queries: int, n_products: int) -> tuple[int, int, int]:
        """Steps of joint training, co-training and co-alignment.

        Joint training's by default: three passes over what is there, at least 200 steps, at most 4,000.
        """
        joint = self.steps or int(min(4000, max(200, 3 * max(n_queries, n_products // 2) // self.batch)))
        co_training = joint // 2 if self.co_training < 0 else self.co_training
        return joint, co_training, joint // 4 if self.co_alignment < 0 else self.co_alignment

    def chosen_rate(self) -> float:
        if self.rate:
            return self.rate
        return 1e-3 if self.model.from_scratch else 2e-4 if self.model.adapted else 5e-5
