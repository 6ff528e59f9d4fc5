"""Where the nodes of a workflow lie on the page: columns that open at a scale at which the page still draws text.

Lengths are those of a graph file, in which a title bar is 30 high; a `Box` is left, top, width, height.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from magicvideo.tools.app_mode import app_mode

Node = dict[str, Any]
Box = tuple[float, float, float, float]

NOTES = ("MarkdownNote", "Note")
TITLE = 30
# The page shows a template with this much of the window's width or height, whichever is less, around all of its nodes.
ZOOM, MARGIN = 0.75, 10
WINDOW, SMALL_WINDOW = (1600, 1000), (1366, 768)
LEAST_SCALE = 0.60  # the page draws no text below 0.571
# Older pages show the view that the file names; their own bars cover so much at the left and the top, and a banner that
# can be closed some more, which is left free where the scale allows it.
BARS, BANNER, EDGE = (75, 95), 30, 15
MOST_HIGH = int((SMALL_WINDOW[1] - BARS[1] - EDGE) / LEAST_SCALE)

WIDTH, NOTE_WIDTH, GAP, PADDING, HEADING = 280, 330, 12, 10, 36
# Rows as the page draws them, and what shows a text, a picture or a video and so needs more.
ROW, WIDGET, BELOW = 20, 24, 14
HEIGHTS = {
    "CLIPTextEncode": 110,
    "CreateVideo": 110,
    "GetVideoComponents": 86,
    "LoadImage": 330,
    "LoadVideo": 450,
    "MagicVideo_Train": 640,
    "PreviewImage": 300,
    "SaveVideo": 440,
}
NOTE_LINES = (("## ", 28), ("### ", 26), ("", 15))
NOTE_LETTER, NOTE_FRAME = 5.6, 40
TITLE_LETTER, TITLE_FRAME = 7.3, 52


FIRST_NOTES = 2  # at the left; others fill the shortest columns


@dataclass
class Column:
    """What lies below each other from the top of the page on."""

    left: int
    wide: bool
    right: int = 0
    bottom: int = 0


@dataclass
class Block:
    """A group with its nodes in the order in which they are read; notes are a block without a group."""

    group: dict[str, Any] | None
    nodes: list[Node]


def outer_box(node: Node) -> Box:
    """A node with its title bar."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, width, height + TITLE


def around(boxes: Iterable[Box]) -> Box:
    """The least box around all."""
    left, top, right, bottom = zip(*((x, y, x + width, y + height) for x, y, width, height in boxes), strict=True)
    return min(left), min(top), max(right) - min(left), max(bottom) - min(top)


def opening_scale(nodes: list[Node], window: tuple[int, int] = WINDOW) -> float:
    """The scale at which the page opens a template with these nodes in a window of so many pixels."""
    _, _, width, height = around(map(outer_box, nodes))
    return min(ZOOM * window[0] / (width + 2 * MARGIN), ZOOM * window[1] / (height + 2 * MARGIN))


def blocks_of(graph: dict[str, Any]) -> list[Block]:
    """The notes, then each group by its number, with the nodes that lie in it, column after column."""
    by_place = sorted(graph["nodes"], key=lambda node: tuple(node["pos"]))
    notes = Block(None, [node for node in by_place if node["type"] in NOTES])
    groups = sorted(graph["groups"], key=lambda group: int(group["title"].split()[0]))
    found = [Block(group, [node for node in by_place if _begins_in(node, group["bounding"])]) for group in groups]
    return [notes, *found]


def _begins_in(node: Node, box: list[float]) -> bool:
    x, y = node["pos"]
    return node["type"] not in NOTES and box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]


def lay_out(graph: dict[str, Any], blocks: list[Block] | None = None) -> None:
    """Places and sizes nodes and groups, in columns of the height that opens largest.

    Also sets older pages' view, and what newer pages show in their app mode.
    """
    blocks = blocks_of(graph) if blocks is None else blocks
    heights = range(600, MOST_HIGH, 5)
    best = max(heights, key=lambda height: _placed(blocks, height))
    _placed(blocks, best)
    boxes = [outer_box(node) for node in graph["nodes"]] + [tuple(group["bounding"]) for group in graph["groups"]]
    graph["extra"] |= {"ds": _older_view(around(boxes)), "linearData": app_mode(graph)}


def _older_view(box: Box) -> dict[str, Any]:
    """What older pages show of a graph in a small window."""
    left, top, width, height = box
    room_x, room_y = SMALL_WINDOW[0] - BARS[0] - EDGE, SMALL_WINDOW[1] - BARS[1] - EDGE
    below_banner = min(room_x / width, (room_y - BANNER) / height, 1.0)
    scale = max(below_banner, min(room_x / width, room_y / height, LEAST_SCALE))
    scale = math.floor(100 * scale) / 100
    bars_y = BARS[1] + min(BANNER, room_y - scale * height)
    return {"scale": scale, "offset": [round(BARS[0] / scale - left), round(bars_y / scale - top)]}


def _placed(blocks: list[Block], height: int) -> float:
    """Places all blocks in columns that are at most so high, and says how large the result opens."""
    notes, *groups = blocks
    first = Block(None, notes.nodes[:FIRST_NOTES])
    x, y, filled = 0, 0, []
    for block in [first, *groups]:
        columns = _columns(block, height)
        width = max(map(_width, block.nodes))
        inset = PADDING if block.group else 0
        block_width = len(columns) * (width + GAP) - GAP + 2 * inset
        block_height = max(map(_height, columns)) + _frame(block)
        if filled and (len(columns) > 1 or filled[-1].wide or y + block_height > height):
            x, y = max(column.right for column in filled) + GAP, 0
        _place(columns, x + inset, y + (HEADING if block.group else 0), width)
        if block.group:
            block.group["bounding"] = [x, y, block_width, block_height]
        y += block_height + GAP
        if y == block_height + GAP:
            filled.append(Column(x, wide=len(columns) > 1 or block.group is None))
        filled[-1].right, filled[-1].bottom = max(filled[-1].right, x + block_width), y
    for note in sorted(notes.nodes[FIRST_NOTES:], key=node_height, reverse=True):
        shortest = min(filled, key=lambda column: column.bottom)
        width = min(shortest.right - shortest.left, NOTE_WIDTH)
        note["pos"], note["size"] = [shortest.left, shortest.bottom + TITLE], [width, node_height(note, width)]
        shortest.bottom += TITLE + note["size"][1] + GAP
    return opening_scale([node for block in blocks for node in block.nodes])


def _place(columns: list[list[Node]], left: int, top: int, width: int) -> None:
    for number, column in enumerate(columns):
        y = top
        for node in column:
            height = node_height(node, width)
            node["pos"], node["size"] = [left + number * (width + GAP), y + TITLE], [width, height]
            y += TITLE + height + GAP


def _columns(block: Block, height: int) -> list[list[Node]]:
    """The nodes of a block in as few columns as they need."""
    columns: list[list[Node]] = [[]]
    for node in block.nodes:
        if columns[-1] and _height([*columns[-1], node]) + _frame(block) > height:
            columns.append([])
        columns[-1].append(node)
    return columns


def _frame(block: Block) -> int:
    return HEADING + PADDING if block.group else 0


def _height(nodes: list[Node]) -> int:
    return sum(TITLE + node_height(node) + GAP for node in nodes) - GAP


def _width(node: Node) -> int:
    """Wide enough for the title, because the page widens a node to it."""
    if node["type"] in NOTES:
        return NOTE_WIDTH
    return max(WIDTH, 10 * math.ceil((TITLE_LETTER * len(node["title"]) + TITLE_FRAME) / 10))


def node_height(node: Node, width: int = NOTE_WIDTH) -> int:
    """High enough for what the page draws below the title; a note's text is wrapped to the width."""
    if node["type"] in NOTES:
        letters = (width - NOTE_FRAME) / NOTE_LETTER
        return NOTE_FRAME + sum(_note_line(line, letters) for line in node["widgets_values"][0].splitlines())
    if node["type"] in HEIGHTS:
        return HEIGHTS[node["type"]]
    slots = max(sum("widget" not in row for row in node["inputs"]), len(node["outputs"]))
    return slots * ROW + len(node["widgets_values"]) * WIDGET + BELOW


def _note_line(line: str, letters: float) -> int:
    """The height of a line of Markdown in a note."""
    shown = re.sub(r"\]\([^)]*\)|[*`\[]", "", line)
    height = next(height for mark, height in NOTE_LINES if line.startswith(mark))
    return height * math.ceil(len(shown) / letters) if shown.strip() else 8
