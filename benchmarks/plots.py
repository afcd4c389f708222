"""Draws lines as an SVG; needs matplotlib: uv run --with matplotlib python …"""

from pathlib import Path

Points = list[tuple[float, float]]
COLOURS = {
    "rendered": "tab:blue",
    "plain Chancy": "tab:gray",
    "pgqueuer": "tab:green",
    "procrastinate": "tab:red",
    "oban": "tab:orange",
}


def draw(file: Path, x: str, y: str, lines: dict[str, Points]) -> None:
    """Draws a line for each contestant, both axes logarithmic."""
    import matplotlib
    from matplotlib import pyplot, ticker

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": file.stem})
    figure, axis = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name, points in lines.items():
        if points:
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                label=name,
                color=COLOURS.get(name),
            )
    places = sorted({place for points in lines.values() for place, _ in points})
    axis.set(xlabel=x, ylabel=y, xscale="log", yscale="log")
    axis.set_xticks(places, [f"{place:,}" for place in places])
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    figure.savefig(file, metadata={"Date": None})
