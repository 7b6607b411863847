"""Pictures and pages: what is drawn is what was measured."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.image import imread

from cygnoreco.display.figure import frame_figure, show_png
from cygnoreco.display.outlines import Cells
from cygnoreco.display.page import html, show_html
from cygnoreco.display.view import EventView, colour_scale
from cygnoreco.types import CLUSTER_DTYPE


def make_view(shape=(256, 320), clusters=2, **options):
    """Noise with square clusters of 3 x 3 macro-pixels of known light."""
    rng = np.random.default_rng(1)
    image = rng.normal(0, 2.6, shape).astype(np.float32)
    table, cells = np.zeros(clusters, CLUSTER_DTYPE), []
    for index in range(clusters):
        row, col = 10 + 12 * (index % 4), 5 + 10 * (index // 4)
        image[4 * row : 4 * row + 12, 4 * col : 4 * col + 12] += 90 - index
        block = image[4 * row : 4 * row + 12, 4 * col : 4 * col + 12]
        table[index]["sc_integral"] = block.sum()
        table[index]["sc_length"] = 10 + index
        limits = {"sc_ymin": 4 * row, "sc_ymax": 4 * row + 11, "sc_xmin": 4 * col, "sc_xmax": 4 * col + 11}
        for name, value in limits.items():
            table[index][name] = value
        rows, cols = np.mgrid[row : row + 3, col : col + 3]
        cells.append(Cells(rows.ravel(), cols.ravel()))
    return EventView(image, table, cells, title="run 5001 · event 3 <lime>", **options)


def texts(figure):
    return [text.get_text() for part in (figure, *figure.axes) for text in part.texts]


def outlines_drawn(figure):
    return [part for part in figure.axes[0].collections if isinstance(part, LineCollection)]


@pytest.mark.parametrize("shape", [(256, 256), (256, 512), (512, 256), (255, 322)])
def test_the_picture_is_in_proportion(shape):
    figure = frame_figure(make_view(shape))
    figure.canvas.draw()
    box = figure.axes[0].get_window_extent()
    assert box.height / box.width == pytest.approx((shape[0] // 4) / (shape[1] // 4), rel=0.01)
    image = figure.axes[0].images[0]
    assert image.get_array().shape == (shape[0] // 4, shape[1] // 4)
    assert image.get_extent() == [-0.5, shape[1] // 4 * 4 - 0.5, shape[0] // 4 * 4 - 0.5, -0.5]


def test_outlines_lie_on_the_borders_of_macro_pixels():
    view = make_view()
    first, second = outlines_drawn(frame_figure(view))
    points = np.concatenate(first.get_segments())
    assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == ([19.5, 39.5], [31.5, 51.5])
    assert len(first.get_segments()) == len(second.get_segments()) == 4


def test_the_list_has_the_numbers_of_the_clusters():
    view = make_view(clusters=25)
    found = texts(frame_figure(view, listed=20))
    for row in view.clusters[:20]:
        assert f"{float(row['sc_integral']):,.0f}" in found
    assert f"{float(view.clusters[24]['sc_integral']):,.0f}" not in found
    assert "25 clusters" in found
    assert "and 5 smaller" in found
    assert view.title in found


def test_every_cluster_is_outlined_and_the_largest_are_numbered():
    figure = frame_figure(make_view(clusters=10), numbered=4)
    assert len(outlines_drawn(figure)) == 10
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("x_is_column", [True, False])
def test_a_cluster_without_pixels_shows_its_box(x_is_column):
    view = make_view(clusters=1, x_is_column=x_is_column)
    nothing = Cells(np.empty(0, int), np.empty(0, int))
    box = EventView(view.image, view.clusters, [nothing], x_is_column=x_is_column)
    (drawn,) = outlines_drawn(frame_figure(box))
    points = np.concatenate(drawn.get_segments())
    low, high = ([19.5, 39.5], [31.5, 51.5])
    if not x_is_column:
        low, high = low[::-1], high[::-1]
    assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == (low, high)
    assert 'class="box"' in html(box)


def test_a_png_is_1200_pixels_wide(tmp_path):
    path = show_png(make_view((256, 256)), tmp_path / "event.png")
    height, width, _ = imread(path).shape
    assert width == 1200
    assert 800 < height < 1000
    assert list(tmp_path.iterdir()) == [path]


def test_pyplot_is_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    show_png(make_view(), tmp_path / "event.png")
    assert dict(matplotlib.rcParams) == before
    assert not matplotlib.is_interactive()


class Page(HTMLParser):
    """Rows of the table, shapes by cluster, and every address in the page."""

    def __init__(self):
        super().__init__()
        self.rows, self.paths, self.addresses, self.cluster, self.cell = [], {}, [], None, False

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [value for name, value in attributes.items() if name in ("src", "href")]
        if tag == "tr" and "data-cluster" in attributes:
            self.rows.append([])
        self.cell = tag == "td"
        if tag == "g":
            self.cluster = int(attributes["data-cluster"])
        if tag == "path" and attributes["class"] == "edge":
            self.paths[self.cluster] = attributes["d"]

    def handle_data(self, data):
        if self.cell:
            self.rows[-1].append(data)
            self.cell = False


def parse(view):
    page = Page()
    page.feed(html(view))
    return page


def test_a_page_needs_nothing_else(tmp_path):
    path = show_html(make_view(), tmp_path / "event.html")
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert "@import" not in text
    assert re.search(r"<(script|link)[^>]+(src|href)", text) is None
    addresses = parse(make_view()).addresses
    assert len(addresses) == 2
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "$" not in re.sub(r"\$\{[^}]+\}", "", text)  # every field of the template is filled in


def test_a_page_has_the_numbers_of_the_clusters():
    view = make_view(clusters=3)
    page = parse(view)
    assert [row[:2] for row in page.rows] == [
        [str(index), f"{float(row['sc_integral']):,.0f}"] for index, row in enumerate(view.clusters, 1)
    ]
    assert [row[4] for row in page.rows] == [f"{length * view.pixel_mm:.1f}" for length in (10, 11, 12)]
    assert sorted(page.paths) == [1, 2, 3]
    assert page.paths[1].startswith("M19.5 39.5L31.5 39.5")


def test_energies_are_shown_when_there_are_any():
    view = make_view()
    assert "energy" not in html(view)
    view.clusters["sc_energy"] = 5.9
    assert "<td>5.90</td>" in html(view)


def test_the_title_is_escaped():
    text = html(make_view())
    assert "event 3 &lt;lime&gt;" in text
    assert "<lime>" not in text


@pytest.mark.parametrize("image", [np.zeros((64, 64)), np.full((64, 64), 7.0)])
def test_a_frame_without_clusters_or_light(image, tmp_path):
    view = EventView(image.astype(np.float32), title="dark")
    assert "no clusters" in texts(frame_figure(view))
    assert "No clusters." in html(view)
    assert show_png(view, tmp_path / "dark.png").stat().st_size > 1000


def test_colours_follow_the_noise_and_not_the_tracks():
    rng = np.random.default_rng(2)
    image = rng.normal(0, 0.65, (200, 200))
    dark = colour_scale(image)
    image[50:60, 50:60] += 500
    bright = colour_scale(image)
    assert bright.linear_width == pytest.approx(dark.linear_width, rel=0.05)
    assert bright.vmin == pytest.approx(dark.vmin, abs=0.05)
    assert bright.vmax > 400
    image[100, 100] = 1e6  # one hot pixel does not darken the rest
    assert colour_scale(image).vmax < 600


def test_clusters_and_cells_must_agree():
    with pytest.raises(ValueError, match="2 clusters, but macro-pixels of 0"):
        EventView(np.zeros((8, 8)), np.zeros(2, CLUSTER_DTYPE))
    with pytest.raises(ValueError, match="less than one macro-pixel"):
        EventView(np.zeros((3, 8)))
