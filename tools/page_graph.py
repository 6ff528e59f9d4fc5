"""Changes to a workflow in the form that the page opens, and from that the form that the server runs."""

import copy
import json
from pathlib import Path
from typing import Any

from magicvideo.tools.host_server import Prompt
from magicvideo.tools.page_layout import NOTES, Block, Node, blocks_of, lay_out

# Rows that only the page has: the value behind a seed, and the button of a file widget.
AFTER_SEED = ("fixed", "randomize", "increment", "decrement")
PAGE_ONLY = "upload"


class PageGraph:
    """A workflow file that can be changed; `graph` is what the page opens."""

    def __init__(self, path: Path) -> None:
        self.graph = json.loads(path.read_text(encoding="utf-8"))
        self._blocks = blocks_of(self.graph)

    def find(self, type: str, title: str = "") -> Node:
        """The one node of a type whose title begins so."""
        (found,) = (n for n in self.graph["nodes"] if n["type"] == type and n["title"].startswith(title))
        return found

    def join_groups(self, title: str, other: str, new: str) -> None:
        """Makes one group with a new title of two, named without their numbers; those behind them move up by one."""
        kept, gone = (self._titled(name) for name in (title, other))
        kept.nodes.extend(gone.nodes)
        kept.group["title"] = f"{kept.group['title'].split()[0]} {new}"
        self._blocks.remove(gone)
        self.graph["groups"].remove(gone.group)
        for number, block in enumerate((block for block in self._blocks if block.group), 1):
            block.group["title"] = f"{number} {block.group['title'].split(' ', 1)[1]}"

    def _titled(self, title: str) -> Block:
        return next(block for block in self._blocks if block.group and block.group["title"].split(" ", 1)[1] == title)

    def source(self, node: Node, name: str) -> Node:
        """The node that an input is linked to."""
        (number,) = (row["link"] for row in node["inputs"] if row["name"] == name)
        return self._by_id(next(start for link, start, *_ in self.graph["links"] if link == number))

    def remove(self, node: Node) -> None:
        """Takes a node away with its links."""
        for link in list(self.graph["links"]):
            if node["id"] in (link[1], link[3]):
                self._unlink(link)
        self.graph["nodes"].remove(node)
        self._block_of(node).remove(node)

    def add_like(self, node: Node, title: str, behind: Node) -> Node:
        """Another node of the same kind with the same values and no links, in a group behind another node."""
        made = copy.deepcopy(node)
        self.graph["last_node_id"] += 1
        made |= {"id": self.graph["last_node_id"], "title": title}
        for row in made["inputs"]:
            row["link"] = None
        for row in made["outputs"]:
            row["links"] = []
        self.graph["nodes"].append(made)
        block = self._block_of(behind)
        block.insert(block.index(behind) + 1, made)
        return made

    def lay_out(self) -> None:
        """Puts all in its place: each node in its group, where it was added."""
        lay_out(self.graph, self._blocks)

    def connect(self, source: Node, output: str, target: Node, name: str) -> None:
        """Links an output to an input, in the place of what was linked there."""
        slot = next(i for i, row in enumerate(target["inputs"]) if row["name"] == name)
        out = next(i for i, row in enumerate(source["outputs"]) if row["name"] == output)
        for link in [link for link in self.graph["links"] if link[3:5] == [target["id"], slot]]:
            self._unlink(link)
        self.graph["last_link_id"] += 1
        number = self.graph["last_link_id"]
        kind = source["outputs"][out]["type"]
        self.graph["links"].append([number, source["id"], out, target["id"], slot, kind])
        source["outputs"][out]["links"] = [*(source["outputs"][out]["links"] or []), number]
        target["inputs"][slot]["link"] = number

    def _unlink(self, link: list[Any]) -> None:
        number, start, out, end, slot, _ = link
        self.graph["links"].remove(link)
        self._by_id(start)["outputs"][out]["links"].remove(number)
        self._by_id(end)["inputs"][slot]["link"] = None

    def _block_of(self, node: Node) -> list[Node]:
        return next(block.nodes for block in self._blocks if any(one is node for one in block.nodes))

    def _by_id(self, number: int) -> Node:
        return next(node for node in self.graph["nodes"] if node["id"] == number)

    def value(self, node: Node, name: str) -> object:
        """The value of a widget by its name."""
        return node["widgets_values"][self.places(node)[name]]

    def set(self, node: Node, **values: object) -> None:
        """Sets widgets by name."""
        places = self.places(node)
        for name, value in values.items():
            node["widgets_values"][places[name]] = value

    def set_all(self, type: str | None = None, **values: object) -> None:
        """Sets widgets by name on every node (of a type) that has them."""
        for node in self.graph["nodes"]:
            if type in (None, node["type"]):
                places = self.places(node)
                self.set(node, **{name: value for name, value in values.items() if name in places})

    @staticmethod
    def places(node: Node) -> dict[str, int]:
        """Where each widget's value stands in the node's list of values."""
        places, at = {}, 0
        for row in node["inputs"]:
            if "widget" in row:
                places[row["name"]] = at
                seeded = "seed" in row["name"] and node["widgets_values"][at + 1 : at + 2]
                at += 2 if seeded and seeded[0] in AFTER_SEED else 1
        return places

    def number_in_order(self) -> None:
        """Gives each node its place in the order of running: notes first, then nodes behind what they need."""
        waiting = sorted(self.graph["nodes"], key=lambda node: node["type"] not in NOTES)
        done: list[int] = []
        while waiting:
            ready = next(
                n for n in waiting if all(s in done for _, s, _, end, *_ in self.graph["links"] if end == n["id"])
            )
            ready["order"] = len(done)
            done.append(ready["id"])
            waiting.remove(ready)

    def prompt(self) -> Prompt:
        """The form that the server runs."""
        sources = {link[0]: [str(link[1]), link[2]] for link in self.graph["links"]}
        made = {}
        for node in self.graph["nodes"]:
            if node["type"] in NOTES:
                continue
            places, inputs = self.places(node), {}
            for row in node["inputs"]:
                if row["link"] is not None:
                    inputs[row["name"]] = sources[row["link"]]
                elif row["name"] in places and row["name"] != PAGE_ONLY:
                    inputs[row["name"]] = node["widgets_values"][places[row["name"]]]
            made[str(node["id"])] = {
                "class_type": node["type"],
                "inputs": inputs,
                "_meta": {"title": node["title"]},
            }
        return made
