"""The benchmark's plots, as PNG and SVG (matplotlib, the extra `bench`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gram.errors import MissingExtra
from gram.folders import new_file

CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 300)
"""Cut-offs of the plot of recall."""
OURS = "gram"


def plot_recall(means: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Recall against the cut-off, a line an engine; `means` maps an engine to its R@k. `path` has no suffix."""
    figure, axes = _figure(1)
    for i, (name, mean) in enumerate(means.items()):
        axes[0].plot(CURVE, [mean[f"R@{k}"] for k in CURVE], label=name, **_style(name, i))
    axes[0].set(xscale="log", xlabel="products looked at", ylabel="recall", ylim=(0, 1))
    axes[0].set_xticks(CURVE, [str(k) for k in CURVE])
    axes[0].minorticks_off()
    axes[0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    _save(figure, path)


def plot_latency(means: Mapping[str, Mapping[str, float]], p50: Mapping[str, float], path: Path) -> None:
    """nDCG@10 and R@100 against the median time of one query in milliseconds, a point an engine."""
    figure, axes = _figure(2)
    for ax, measure in zip(axes, ("nDCG@10", "R@100"), strict=True):
        for i, (name, mean) in enumerate(means.items()):
            style = _style(name, i)
            ax.scatter(p50[name], mean[measure], color=style["color"], marker=style["marker"], label=name)
        ax.set(xscale="log", xlabel="one query, one thread: p50 in ms", ylabel=measure)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    _save(figure, path)


def figure_class() -> Any:
    """matplotlib's Figure. Raises MissingExtra without the extra `bench`."""
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no global state
    except ImportError as error:
        raise MissingExtra("Plots", "bench") from error
    return Figure


def _figure(columns: int) -> tuple[Any, Any]:
    figure = figure_class()(figsize=(5 * columns + 2.5, 4.5), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.grid(alpha=0.3)
    return figure, axes


def _style(name: str, i: int) -> dict[str, Any]:
    """GRAM black and thick; rivals apart by colour and mark."""
    if name == OURS:
        return {"color": "black", "linewidth": 2.5, "marker": "o", "markersize": 5, "zorder": 9}
    return {"color": f"C{i % 10}", "linewidth": 1.2, "marker": "osD^v<>Px*"[i % 7], "markersize": 4}


def _save(figure: Any, path: Path) -> None:
    for suffix in (".png", ".svg"):
        with new_file(path.with_suffix(suffix)) as draft:
            figure.savefig(draft, dpi=150, metadata={"Date": None} if suffix == ".svg" else None)
