"""The page in headless Chromium: no script errors, and what is drawn is to be seen.

Skipped with its reason where there is no Chromium; continuous integration installs one.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from irc.tools.report.page import render

Data = dict[str, Any]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium to show the page")
WIDTH, HEIGHT = 1000, 560
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--hide-scrollbars --enable-logging=stderr"
).split()
OPEN_ALL = "<script>document.getElementById('open-all').click()</script>"
SVG = "{http://www.w3.org/2000/svg}"


class Seen(NamedTuple):
    """What the browser made of a page: its document at the end, its log, and the picture."""

    document: str
    log: str
    shot: Path


def look(page: Path, place: str, folder: Path) -> Seen:
    """Open a page at a place (#...) in a browser of its own."""
    shot = folder / f"{place or 'top'}.png"
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}"]
    command += [f"{page.as_uri()}#{place}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Seen(done.stdout, done.stderr, shot)


def rows_of(png: bytes) -> list[bytes]:
    """The rows of a PNG with 8 bits a channel, three bytes a pixel (PNG specification, 9.2)."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, body, head = 8, b"", b""
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, part = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        head, body = (part, body) if kind == b"IHDR" else (head, body + part * (kind == b"IDAT"))
        at += 12 + size
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    assert (depth, interlaced) == (8, 0) and colour in (2, 6)
    step = 3 if colour == 2 else 4
    raw, rows, above = zlib.decompress(body), [], bytes(width * step)
    for k in range(height):
        start = k * (width * step + 1)
        above = unfiltered(raw[start], raw[start + 1 : start + 1 + width * step], above, step)
        rows.append(above)
    if step == 4:
        rows = [b"".join([r[i : i + 3] for i in range(0, len(r), 4)]) for r in rows]
    return rows


def unfiltered(kind: int, line: bytes, above: bytes, step: int) -> bytes:
    """One row without its filter."""
    if kind == 0:
        return line
    if kind == 2:
        return bytes([(x + up) & 255 for x, up in zip(line, above, strict=True)])
    out = bytearray(line)
    for i in range(len(out)):
        left = out[i - step] if i >= step else 0
        corner = above[i - step] if i >= step else 0
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + above[i]) // 2
        else:
            near = left + above[i] - corner
            near_by = ((abs(near - v), n, v) for n, v in enumerate((left, above[i], corner)))
            guess = min(near_by)[2]
        out[i] = (out[i] + guess) & 255
    return bytes(out)


def colours(rows: list[bytes], left: int, upper: int, right: int, lower: int) -> dict[bytes, int]:
    """How many pixels of each colour a part of the picture has."""
    found: dict[bytes, int] = {}
    for row in rows[upper:lower]:
        for x in range(left, right):
            pixel = row[3 * x : 3 * x + 3]
            found[pixel] = found.get(pixel, 0) + 1
    return found


def complaints(seen: Seen) -> list[str]:
    """Lines of the log that scripts and resources of the page caused."""
    return [line for line in seen.log.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(demo: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the small network, in a folder that holds nothing else."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(demo), encoding="utf-8")
    return path


def test_the_overview_is_drawn(page: Path, tmp_path: Path, demo: Data) -> None:
    seen = look(page, "", tmp_path)
    assert 'data-ready="1"' in seen.document and "data-error" not in seen.document
    assert not complaints(seen)
    pixels = rows_of(seen.shot.read_bytes())
    assert len(pixels) == HEIGHT and len(pixels[0]) == 3 * WIDTH
    found = colours(pixels, 0, 60, WIDTH, HEIGHT)
    assert len(found) > 200, "text, bars and cards have many shades"
    assert max(found.values()) < 0.95 * sum(found.values())
    rows = re.findall(r'<tr data-kernel="([^"]*)"', seen.document)
    slow_first = sorted(demo["kernels"], key=lambda k: -k["seconds"])
    assert rows == [k["name"] for k in slow_first], "the table comes sorted by time"


def test_a_link_opens_its_node(page: Path, tmp_path: Path, demo: Data) -> None:
    region = next(n for n in demo["graph"]["nodes"] if len(n["ops"]) > 2)
    seen = look(page, f"n{region['id']}", tmp_path)
    assert not complaints(seen) and "data-error" not in seen.document
    group = re.search(rf'<g class="([^"]*)" id="n{region["id"]}"', seen.document)
    assert group is not None and {"chosen", "open"} <= set(group[1].split())
    details = seen.document.partition('id="details"')[2].partition("</aside>")[0]
    assert region["kernel"] in details and region["place"] in details
    assert all(op["name"] in details for op in region["ops"])
    found = colours(rows_of(seen.shot.read_bytes()), 0, 60, WIDTH - 400, HEIGHT)
    assert len(found) > 100
    accent = bytes.fromhex("3b5bdb")
    assert found.get(accent, 0) > 500, "the frame of the chosen node"


@pytest.mark.parametrize("name", ["demo", "control"])
def test_opened_nodes_push_the_others_down(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "open.html"
    body = render(request.getfixturevalue(name)).replace("</body>", OPEN_ALL + "</body>")
    path.write_text(body, encoding="utf-8")
    assert settled(look(path, "graph", tmp_path)) >= 4


def test_a_node_inside_another_makes_that_grow(control: Data, tmp_path: Path) -> None:
    path = tmp_path / "inner.html"
    path.write_text(render(control), encoding="utf-8")
    loop = next(n for n in control["graph"]["nodes"] if n["title"] == "while")
    inner = next(n for g in loop["graphs"] for n in g["nodes"] if len(n["ops"]) > 2)
    seen = look(path, f"n{inner['id']}", tmp_path)
    assert settled(seen) == 1
    group = next(g for g in drawn(seen).iter(f"{SVG}g") if g.get("id") == f"n{loop['id']}")
    closed, now = float(group.get("data-h", "0")), float(group[1].get("height", "0"))
    assert now > closed + 40


def drawn(seen: Seen) -> ElementTree.Element:
    """The drawing of the graph as it stands in the document."""
    text = re.search(r"<svg [^>]*graph-svg.*?</svg>", seen.document, re.DOTALL)
    assert text is not None
    return ElementTree.fromstring(text[0])


def settled(seen: Seen) -> int:
    """Check every graph of the page: no boxes meet, edges join them; how many nodes are open."""
    assert not complaints(seen) and "data-error" not in seen.document
    svg = drawn(seen)
    graphs = [g for g in svg.iter(f"{SVG}g") if g.get("class") == "graph"]
    for graph in graphs:
        places = {g.get("id"): box for g, box in boxes_of(graph)}
        assert not overlapping(list(places.values()))
        for edge in graph:
            if edge.get("class") == "edge":
                ends = [float(v) for v in re.findall(r"-?[\d.]+", edge.get("d", ""))]
                upper = places[f"n{edge.get('data-from')}"]
                lower = places[f"n{edge.get('data-to')}"]
                assert ends[1] == pytest.approx(upper[3], abs=0.2)
                assert ends[-1] == pytest.approx(lower[1], abs=0.2)
                assert ends[1] < ends[-1]
    return len([g for g in svg.iter(f"{SVG}g") if "open" in g.get("class", "").split()])


Box = tuple[float, float, float, float]


def boxes_of(graph: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, Box]]:
    """The nodes of one graph with the boxes they have now."""
    for group in graph:
        if group.get("class", "").startswith("node "):
            x, y = (float(v) for v in re.findall(r"-?[\d.]+", group.get("transform", "")))
            frame = group[1]
            width, height = float(frame.get("width", "0")), float(frame.get("height", "0"))
            yield group, (x, y, x + width, y + height)


def overlapping(boxes: list[Box]) -> list[tuple[Box, Box]]:
    """Pairs of boxes that meet."""
    return [
        (a, b)
        for k, a in enumerate(boxes)
        for b in boxes[k + 1 :]
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


def test_a_broken_script_is_seen(page: Path, tmp_path: Path) -> None:
    """The checks above can fail: a page whose script throws says so in both ways."""
    path = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8").replace('root.dataset.ready = "1";', "nowhere();")
    path.write_text(text, encoding="utf-8")
    seen = look(path, "", tmp_path)
    assert complaints(seen)
    assert 'data-error="' in seen.document and 'data-ready="1"' not in seen.document
