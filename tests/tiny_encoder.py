"""An encoder so small that it is made in a moment, and the few products that it has its tokens from."""

from __future__ import annotations

import torch

from gram.coder.encoder.backbone import Backbone, ScratchSettings, scratch_backbone
from gram.records import Product

TINY = ScratchSettings(width=24, layers=1, heads=2, vocabulary=200)
PRODUCTS = [
    Product(str(i), f"{colour} {kind}", brand=brand, category=("Home", "Garden"), description="Rarely seen gizmo")
    for i, (colour, kind, brand) in enumerate(
        (c, k, b) for c in ("Red", "Dark Blue") for k in ("Garden Hose", "Desk Lamp") for b in ("Acme", "Zenit")
    )
]


def make_backbone() -> Backbone:
    torch.manual_seed(0)
    return scratch_backbone([p.title for p in PRODUCTS] + ["acme zenit home garden"], TINY)
