"""The order in which data passes the nodes of a NIR graph, and where a timestep lies between them.

NIR has no word for a delay of one timestep: a loop that passes a neuron is one. The edge that closes
the loop is the one whose target every path to its source has already passed. What the nodes compute
is left to `nir_reader`. Entry point: `order_nodes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from archsim.errors import WorkloadError
from archsim.workload.nir_graph import Edge, NirGraph, NirNode, with_article

WEIGHTS = ("Affine", "Conv1d", "Conv2d", "Linear")
SPIKING = ("CubaLIF", "IF", "LIF", "Threshold")
INTEGRATORS = ("CubaLI", "I", "LI")
POOLS = ("AvgPool2d", "SumPool2d")
SUPPORTED = tuple(sorted((*WEIGHTS, *SPIKING, *INTEGRATORS, *POOLS, "Flatten", "Input", "Output", "Scale")))

Neighbours = dict[str, list[str]]


@dataclass(frozen=True)
class Flow:
    """Nodes in the order of the data within a timestep, with what feeds them and what they feed."""

    nodes: list[NirNode]
    sources: Neighbours
    """Names that feed a node in the same timestep, sorted."""
    delayed: Neighbours
    """Names whose values of the timestep before feed a node, sorted."""
    targets: Neighbours
    """Names that a node feeds, now or one timestep later, sorted."""


def order_nodes(graph: NirGraph) -> Flow:
    """Order the nodes from Input to Output and find the connections that take one timestep.

    Raises:
        WorkloadError: An unsupported node, a loop without a neuron or with several entries, or a node
            that is not on a way from Input to Output.
    """
    _check_types(graph)
    first, last = _only(graph, "Input"), _only(graph, "Output")
    targets = _neighbours(graph, graph.edges)
    _check_on_the_way(graph, targets, first, last)
    _check_loops_have_neurons(graph)
    delayed = _closing_edges(first.name, targets)
    forward = [edge for edge in graph.edges if edge not in delayed]
    sources = _neighbours(graph, ((target, source) for source, target in forward))
    order = TopologicalSorter({name: sources[name] for name in sorted(graph.nodes)}).static_order()
    return Flow(
        [graph.nodes[name] for name in order],
        sources,
        _neighbours(graph, ((target, source) for source, target in delayed)),
        targets,
    )


def quoted(names: Iterable[str]) -> str:
    """`'a'`, `'a' and 'b'`, sorted."""
    return " and ".join(f"'{name}'" for name in sorted(names))


def _check_types(graph: NirGraph) -> None:
    for node in graph.nodes.values():
        if node.type not in SUPPORTED:
            known, kind = ", ".join(SUPPORTED), with_article(node.type)
            raise WorkloadError(f"node '{node.name}' is {kind}, which archsim cannot map; supported: {known}")


def _only(graph: NirGraph, kind: str) -> NirNode:
    found = [node for node in graph.nodes.values() if node.type == kind]
    if len(found) != 1:
        names = f" ({quoted(node.name for node in found)})" if found else ""
        raise WorkloadError(f"the graph has {len(found)} nodes of type {kind}{names}; it must have one")
    return found[0]


def _neighbours(graph: NirGraph, edges: Iterable[Edge]) -> Neighbours:
    table: Neighbours = {name: [] for name in graph.nodes}
    for source, target in edges:
        table[source].append(target)
    return {name: sorted(found) for name, found in table.items()}


def _check_on_the_way(graph: NirGraph, targets: Neighbours, first: NirNode, last: NirNode) -> None:
    sources = _neighbours(graph, ((target, source) for source, target in graph.edges))
    if sources[first.name]:
        raise WorkloadError(f"node '{first.name}' (Input) is fed by {quoted(sources[first.name])}; nothing may feed it")
    if targets[last.name]:
        raise WorkloadError(f"node '{last.name}' (Output) feeds {quoted(targets[last.name])}; nothing may follow it")
    reached, leading = _reachable(first.name, targets), _reachable(last.name, sources)
    for name in sorted(graph.nodes):
        if name not in reached:
            raise WorkloadError(f"node '{name}' is not on a way from '{first.name}' to '{last.name}'")
    for name in sorted(graph.nodes):
        if name not in leading:
            raise WorkloadError(f"node '{name}' leads nowhere; every node must lead to '{last.name}' (Output)")


def _check_loops_have_neurons(graph: NirGraph) -> None:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for source, target in sorted(graph.edges):
        if graph.nodes[source].type not in SPIKING and graph.nodes[target].type not in SPIKING:
            sorter.add(target, source)
    try:
        sorter.prepare()
    except CycleError as err:
        loop = _arrows(err.args[1])
        raise WorkloadError(f"nodes {loop} form a loop without a neuron that fires; nothing delays it") from err


def _closing_edges(start: str, targets: Neighbours) -> list[Edge]:
    """Edges that close a loop: every path from `start` to their source passes their target.

    In a graph where each loop has one entry these are exactly the edges that a depth-first walk finds
    to lead back. Source: Hecht and Ullman, "Characterizations of reducible flow graphs", J. ACM 1974.
    """
    closing = list(_leading_back(start, targets))
    for source, target in closing:
        if source in _reachable(start, targets, without=target):
            loop = _arrows([*_path(target, source, targets), target])
            raise WorkloadError(
                f"nodes {loop} form a loop that paths enter at more than one node, so it is not clear which "
                "connection takes a timestep; only loops with one entry are supported"
            )
    return closing


def _leading_back(start: str, targets: Neighbours) -> Iterator[Edge]:
    """Edges of a depth-first walk that lead to a node which the walk has entered but not left."""
    entered, left = {start}, set[str]()
    stack = [(start, iter(targets[start]))]
    while stack:
        name, following = stack[-1]
        target = next(following, None)
        if target is None:
            left.add(name)
            stack.pop()
        elif target not in entered:
            entered.add(target)
            stack.append((target, iter(targets[target])))
        elif target not in left:
            yield name, target


def _reachable(start: str, targets: Neighbours, without: str | None = None) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        new = [name for name in targets[waiting.pop()] if name not in found and name != without]
        found.update(new)
        waiting += new
    return found


def _path(start: str, end: str, targets: Neighbours) -> list[str]:
    """A shortest path."""
    before: dict[str, str] = {}
    waiting = [start]
    for name in waiting:
        for target in targets[name]:
            if target not in before and target != start:
                before[target] = name
                waiting.append(target)
    path = [end]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]


def _arrows(names: Iterable[str]) -> str:
    return " -> ".join(f"'{name}'" for name in names)
