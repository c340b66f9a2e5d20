"""One :class:`~m2rl_core.types.Figure`, drawn as SVG by matplotlib.

The drawings are read on light and on dark pages: lines and letters take ``currentColor``, data colours are mid-tones,
and areas are shaded by opacity. Letters stay text, so that they are found, copied and scaled. The same data gives the
same bytes.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from io import StringIO
from textwrap import wrap
from typing import TYPE_CHECKING

from m2rl_core.errors import UserError
from m2rl_core.report.tables import number
from m2rl_core.types import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = ("#3f7fbf", "#d97f30", "#3a9b6b", "#c8566b", "#8a6fc4", "#2f9aa6", "#a57a4c", "#858b94")
_STROKES = ("-", "--", ":")
"""Of lines whose colours come again."""
_INK = "#010203"
"""Stands for ``currentColor`` while matplotlib draws."""
_SIZE = (4.2, 2.7)
"""Inches, at 100 units per inch in the page."""
_CELLS = 7
"""Most cells beside each other with letters of full size."""
_BARS = 36
"""Most bars of a drawing."""
_NAME = 28
"""Most letters of a name beside an axis or in a legend."""
_LINE = 48
"""Most letters below an axis."""
_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_DEFAULTS = re.compile(r"\s*<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_FONT = re.compile(r"font: (?:\w+ )*([\d.]+)px [^;\"]*")
_DARK = (
    "<style>svg{color-scheme:light dark;color:#1f2328;font-family:system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){svg{color:#e6e8eb}}</style>"
)


def draw(figure: Figure, name: str) -> str:
    """An ``<svg>`` element; ``name`` makes its ids unique within a page.

    Raises:
        UserError: matplotlib is not installed.
    """
    figure = _readable(figure)
    with _style(name):
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Canvas

        canvas = Canvas(figsize=_size(figure), layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.add_subplot()
        _DRAW[figure.kind](axes, figure)
        across, upright = _axis_labels(figure)
        axes.set_xlabel(clean(across))
        axes.set_ylabel(_wrapped(clean(upright), _size(figure)[1]))
        out = StringIO()
        canvas.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _portable(out.getvalue(), name, clean(figure.title))


def standalone(svg: str) -> str:
    """The same drawing as a file of its own that follows the viewer's light or dark setting."""
    head, bracket, body = svg.partition(">")
    width = "" if " width=" in head else f' width="{100 * _SIZE[0]:.0f}"'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{width}{bracket}{_DARK}{body}\n'


def missing(error: ModuleNotFoundError) -> UserError:
    """What to say where a library of the extra is not installed."""
    return UserError("the report needs matplotlib and jinja2", found=error, then="pip install 'm2rl-core[report]'")


def clean(text: str, length: int = 60) -> str:
    """Text that XML and a small drawing can hold."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= length else printable[: length - 1] + "…"


def _readable(figure: Figure) -> Figure:
    """Bars too many to be told apart as a heat map of the same values."""
    rows = {str(x): [values[i] for values in figure.series.values()] for i, x in enumerate(figure.x)}
    if figure.kind != "bars" or len(rows) * len(figure.series) <= _BARS:
        return figure
    across, upright = _axis_labels(figure)
    return replace(figure, kind="heatmap", x=list(figure.series), series=rows, x_label=across, y_label=upright)


def _axis_labels(figure: Figure) -> tuple[str, str]:
    """(below, beside) the axes. Bars lie, so that their values are read below."""
    if figure.kind == "bars" and figure.y_label:
        return figure.y_label, figure.x_label
    return figure.x_label, figure.y_label


def _wrapped(text: str, inches: float) -> str:
    """Lines that an upright label of a drawing of this height has room for."""
    return "\n".join(wrap(text, max(10, round(9 * inches))))


@contextmanager
def _style(name: str) -> Iterator[None]:
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise missing(error) from error
    with mpl.rc_context(_RC | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")  # the viewer's own font draws it
        yield


_RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.prop_cycle": f"cycler('color', {list(PALETTE)!r})",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "grid.color": _INK,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
}


def _size(figure: Figure) -> tuple[float, float]:
    width, height = _SIZE
    if figure.kind == "heatmap":
        return width, max(1.6, 0.9 + (0.46 if figure.beneath else 0.34) * len(figure.series))
    if figure.kind == "bars":
        return width, max(1.8, 0.9 + len(figure.x) * (0.1 + 0.16 * len(figure.series)))
    names = [_label(name) for name in figure.series]
    return width, height + 0.18 * max(0, math.ceil(len(names) / _columns(names)) - 2)


# ── kinds ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lines(axes: Axes, figure: Figure) -> None:
    """A series without any value is not drawn and keeps its colour, so that figures side by side agree. Lines go on
    over places where a value is missing."""
    x = _positions(figure.x)
    for i, (label, values) in enumerate(figure.series.items()):
        known = [(at, value) for at, value in zip(x, _floats(values), strict=True) if math.isfinite(value)]
        if known:
            marker, (again, which) = "o" if len(known) < 12 else None, divmod(i, len(PALETTE))
            [line] = axes.plot(*zip(*known, strict=True), label=_label(label), marker=marker, markersize=3)
            line.set(color=PALETTE[which], linestyle=_STROKES[again % len(_STROKES)])
    axes.grid(axis="y")
    _ticks(axes, figure.x)
    _legend(axes)


def _bars(axes: Axes, figure: Figure) -> None:
    """Horizontal, so that long names stay readable; the first category on top."""
    height = 0.8 / max(1, len(figure.series))
    for i, (label, values) in enumerate(figure.series.items()):
        y = [j + (i - (len(figure.series) - 1) / 2) * height for j in range(len(figure.x))]
        axes.barh(y, _floats(values), height * 0.9, label=_label(label))
    axes.set_yticks(range(len(figure.x)), [clean(str(x), _NAME) for x in figure.x])
    axes.set_ylim(len(figure.x) - 0.45, -0.55)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.axvline(0, color=_INK, linewidth=0.6)
    _legend(axes)


def _heatmap(axes: Axes, figure: Figure) -> None:
    """Opacity is the size of a value, blue above zero and orange below; what is beneath it has no colour."""
    from matplotlib.patches import Rectangle

    cells = [_floats(values) for values in figure.series.values()]
    beneath = [_floats(values) for values in figure.beneath.values()]
    (largest, decimals), (_, below) = (_scale(each, len(figure.x)) for each in (cells, beneath))
    size = 9.5 * min(1.0, _CELLS / max(1, len(figure.x)))
    for row, values in enumerate(cells):
        for column, value in enumerate(values):
            known = math.isfinite(value)
            colour = PALETTE[0] if not known or value >= 0 else PALETTE[1]
            shade = 0.08 + 0.62 * abs(value) / largest if known else 0.0
            axes.add_patch(Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, color=colour, alpha=shade, linewidth=0))
            middle = row - 0.16 if beneath else row
            axes.text(column, middle, number(value, decimals), ha="center", va="center", fontsize=size)
            if beneath:
                second = number(beneath[row][column], below, signed=True)
                axes.text(column, row + 0.22, second, ha="center", va="center", fontsize=0.84 * size)
    axes.set(xlim=(-0.5, len(figure.x) - 0.5), ylim=(len(cells) - 0.5, -0.5))
    _name_ticks(axes, figure.x)
    axes.set_yticks(range(len(cells)), [clean(name, _NAME) for name in figure.series])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _scale(cells: Sequence[Sequence[float]], columns: int) -> tuple[float, int]:
    """The largest size of a value, and the decimals that tell values of that size apart where there is room."""
    largest = max((abs(v) for row in cells for v in row if math.isfinite(v)), default=0.0) or 1.0
    return largest, min(4, max(0, (1 if columns > _CELLS else 2) - math.floor(math.log10(largest))))


def _scatter(axes: Axes, figure: Figure) -> None:
    x = _positions(figure.x)
    for (label, values), marker in zip(figure.series.items(), "osD^v<>P" * len(figure.series), strict=False):
        axes.scatter(x, _floats(values), s=22, marker=marker, label=_label(label), linewidths=0)
    axes.grid()
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=5)
    _legend(axes)


_DRAW: dict[str, Callable[[Axes, Figure], None]] = {
    "lines": _lines,
    "bars": _bars,
    "heatmap": _heatmap,
    "scatter": _scatter,
}


def _positions(x: Sequence[str | float]) -> list[float]:
    return [float(v) if not isinstance(v, str) else float(i) for i, v in enumerate(x)]


def _ticks(axes: Axes, x: Sequence[str | float]) -> None:
    """Names where there are names, whole numbers where they are far enough apart."""
    from matplotlib.ticker import MaxNLocator

    if any(isinstance(v, str) for v in x):
        _name_ticks(axes, x)
    elif x and (all(v == int(v) for v in _positions(x)) or max(_positions(x)) - min(_positions(x)) >= 4):
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))


def _name_ticks(axes: Axes, x: Sequence[str | float]) -> None:
    """A name at every place, slanted where they would run into each other."""
    names = [clean(str(each), _NAME) for each in x]
    crowded = max(map(len, names), default=0) * len(names) > _LINE
    axes.set_xticks(range(len(x)), names, rotation=30 if crowded else 0, ha="right" if crowded else "center")


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if v is None else float(v) for v in values]


def _label(text: str) -> str:
    """matplotlib drops labels that begin with an underscore."""
    text = clean(text, _NAME)
    return " " + text if text.startswith("_") else text


def _legend(axes: Axes) -> None:
    """Above the axes, in as many columns as fit beside each other; none for a single series."""
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=_columns(labels), borderaxespad=0.2,
            handlelength=1.2, handletextpad=0.5, columnspacing=1.2, alignment="left",
        )  # fmt: skip


def _columns(labels: Sequence[str]) -> int:
    """Of a legend."""
    return max(1, min(len(labels), 44 // (6 + max(map(len, labels), default=0))))


# ── SVG ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _portable(svg: str, name: str, title: str) -> str:
    """The bare element: own ids, no metadata, the page's font and colour, scaled by the page."""
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)
    svg = _DEFAULTS.sub("", _METADATA.sub("", _HEAD.sub("", svg))).strip()
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = _FONT.sub(r"font-size: \1px", svg).replace(_INK, "currentColor")
    head, bracket, body = svg.partition(">")
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(title)}" stroke-linejoin="round"{bracket}{body}'
