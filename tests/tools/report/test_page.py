"""The page as text: whole, alone, and with the figures of the data in its tables."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from irc.tools.report.page import COLUMNS, cell, number, render, seconds, unit, write
from irc.tools.report.svg import Drawing, fit, graph_svg, memory_svg, path, short, size_text, ticks

Data = dict[str, Any]
VOID = {"meta", "link", "input", "br"}
SVG = "{http://www.w3.org/2000/svg}"


class Balanced(HTMLParser):
    """Checks that elements close in order, and keeps attributes and the rows of tables."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.rows: dict[str, list[str]] = {}
        self.kernel = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {k: v or "" for k, v in attrs}
        self.attributes += [(tag, k, v) for k, v in found.items()]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.kernel = found.get("data-kernel", "")
            self.rows[self.kernel] = []
        elif tag == "td" and "data-v" in found:
            self.rows[self.kernel].append(found["data-v"])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


def parsed(page: str) -> Balanced:
    """The page, read whole."""
    reader = Balanced()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


@pytest.mark.parametrize("name", ["demo", "control"])
def test_the_page_is_well_formed(name: str, request: pytest.FixtureRequest) -> None:
    reader = parsed(render(request.getfixturevalue(name)))
    assert len(reader.ids) == len(set(reader.ids))
    links = {v for tag, k, v in reader.attributes if tag == "a" and k == "href"}
    assert not [link for link in links if link[1:] not in reader.ids]


def test_the_page_needs_nothing_else(demo: Data) -> None:
    page = render(demo)
    for tag, name, value in parsed(page).attributes:
        if name in ("src", "href", "action", "srcset", "data", "poster"):
            assert value.startswith("#") or value == "data:,", (tag, name, value)
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) == {"http://www.w3.org/2000/svg"}
    assert all(m.startswith("#") for m in re.findall(r"url\(([^)]*)\)", page))
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|importScripts|new Worker", page)


def test_the_table_has_the_figures_of_the_kernels(demo: Data) -> None:
    rows = parsed(render(demo)).rows
    for kernel in demo["kernels"]:
        assert rows[kernel["name"]] == [str(kernel[key]) for key, _, _ in COLUMNS]


def test_figures_stand_in_words(demo: Data) -> None:
    text = re.sub(r"<[^>]*>", " ", render(demo))
    memory = demo["memory"]
    assert f"an arena of {memory['arena']} bytes" in text
    assert f"needs {memory['lower_bound']}." in text
    for phase in demo["phases"]:
        assert re.search(rf"{phase['name']}\s+{re.escape(seconds(phase['seconds']))}", text)
    for refusal in demo["fusion"]["refusals"]:
        assert refusal["why"] in text and refusal["producer"] in text


def test_the_data_in_the_page_is_the_data(demo: Data) -> None:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', render(demo))
    assert found is not None
    inside = json.loads(found[1])
    assert inside["kernels"] == demo["kernels"]
    assert inside["graph"] == json.loads(json.dumps(demo["graph"]))


@pytest.mark.parametrize("name", ["demo", "control"])
def test_drawings_are_xml_with_every_node(name: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(name)
    root = ElementTree.fromstring(graph_svg(data["graph"], data["kernels"]))
    groups = [g for g in root.iter(f"{SVG}g") if g.get("class", "").startswith("node ")]
    ids = {g.get("id") for g in groups}

    def count(graph: Data) -> int:
        return sum(1 + sum(count(g) for g in n["graphs"]) for n in graph["nodes"])

    assert len(groups) == len(ids) == count(data["graph"])
    for edge in root.iter(f"{SVG}path"):
        if edge.get("class") == "edge":
            assert {f"n{edge.get('data-from')}", f"n{edge.get('data-to')}"} <= ids
    timeline = ElementTree.fromstring(memory_svg(data["memory"]))
    rectangles = [r for r in timeline.iter(f"{SVG}rect") if "buffer" in r.get("class", "")]
    assert len(rectangles) == len(data["memory"]["buffers"])


def test_inner_graphs_lie_inside_their_node(control: Data) -> None:
    drawing = Drawing(control["graph"], {})
    for node, (width, height) in zip(control["graph"]["nodes"], drawing.sizes, strict=True):
        inner = drawing.inner[node["id"]]
        assert sum(d.width for d in inner) < width and all(d.height < height for d in inner)
    assert any(drawing.inner.values())


def test_hostile_names_do_no_harm(demo: Data) -> None:
    evil = "</script><script>alert(1)</script><b a=\"'&"
    data = json.loads(json.dumps(demo))
    data["title"] = data["graph"]["nodes"][0]["title"] = evil
    data["graph"]["nodes"][2]["place"] = data["kernels"][0]["from"][0] = evil
    data["summary"]["inputs"][0]["name"] = data["memory"]["buffers"][0]["name"] = evil
    data["fusion"]["refusals"][0]["producer"] = data["copies"] = [evil]
    page = render(data)
    parsed(page)
    assert "<script>alert" not in page and page.count("<script") == page.count("</script>") == 2
    ElementTree.fromstring(graph_svg(data["graph"], data["kernels"]))
    ElementTree.fromstring(memory_svg(data["memory"]))


def test_a_model_without_kernels_has_a_page(demo: Data) -> None:
    data = json.loads(json.dumps(demo)) | {"kernels": [], "peaks": None}
    data["graph"] = {"name": "main", "nodes": [], "edges": []}
    none = dict.fromkeys(("arena", "lower_bound", "weights"), 0)
    data["memory"] = none | {"buffers": [], "steps": ["return"], "live": [0]}
    data["fusion"] = {"regions": [], "refusals": []}
    data["summary"] |= {"latency": None, "flops": 0, "bytes": 0}
    parsed(render(data))
    assert "no arena is needed" in memory_svg(data["memory"])


def test_a_bound_below_the_arena_is_marked_beside_it(demo: Data) -> None:
    memory = demo["memory"] | {"arena": 2 * demo["memory"]["arena"]}
    assert "= lower bound" in memory_svg(demo["memory"])
    assert 'class="bound"' in memory_svg(memory) and "= lower bound" not in memory_svg(memory)


def test_an_old_page_stays_until_the_new_one_is_whole(
    demo: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = tmp_path / "r.html"
    goal.write_text("old")

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(Exception, match="No space left"):
            write(demo, goal)
    assert goal.read_text() == "old" and list(tmp_path.iterdir()) == [goal]
    write(demo, goal)
    assert goal.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_template_is_in_the_package() -> None:
    root = Path(__file__).resolve().parents[3]
    folder = resources.files("irc.tools.report")
    assert {p.name for p in folder.iterdir() if not p.name.endswith(".py")} - {"__pycache__"} == {
        "page.html", "page.css", "page.js",
    }  # fmt: skip
    packaged = '"irc.tools.report" = ["*.html", "*.css", "*.js"]'
    assert packaged in (root / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (number(0), "0"),
        (number(1.5), "1.50"),
        (number(12.34), "12.3"),
        (number(1234567), "1\u202f234\u202f567"),
        (number(0.0567), "0.057"),
        (number(1e-5), "<0.001"),
        (seconds(2.5), "2.50\u00a0s"),
        (seconds(3.1e-4), "310\u00a0µs"),
        (size_text(999), "999 B"),
        (size_text(1_500_000), "1.5 MB"),
        (short("f32[1, 64, 56, 56], i64[]"), "f32 1×64×56×56, i64"),
        (short("f32[min(9, N), 2*N]"), "f32 min(9, N)×2*N"),
        (fit("conv+add", 40, 8), "conv…"),
        (cell(None, "share", {}), "–"),
        (cell(0.125, "share", {}), "12.5"),
        (cell(2e6, "flops", {"flops": ("MFLOP", 1e6)}), "2"),
        (unit("bytes", [4e7, None]), ("MB", 1e6)),
        (unit("seconds", [1e-7]), ("µs", 1e-6)),
        (ticks(12345), [0, 5000, 10000]),
        (ticks(0), [0]),
        (path([(1, 0), (1, 5), (1, 8)]), "M1 0L1 5L1 8"),
        (path([(1, 0), (1, 5), (9, 8), (9, 8)]), "M1 0L1 5C1 6.5 9 6.5 9 8"),
    ],
)
def test_small_parts(found: object, wanted: object) -> None:
    assert found == wanted
