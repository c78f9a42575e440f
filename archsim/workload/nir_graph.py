"""The graph of a NIR file as plain nodes and edges.

Nested graphs are flattened to dotted names; nothing here knows what a node computes. Texts raised
here do not name the file: `nir_reader.read_nir` puts it in front. Entry point: `flatten`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.sandbox import Hdf5Tree, Hdf5Value

_SHOWN_NAMES = 20

Edge = tuple[str, str]


@dataclass(frozen=True)
class NirNode:
    """One node: its dotted name, its NIR type and its fields as read."""

    name: str
    type: str
    fields: Mapping[str, Hdf5Value]


@dataclass(frozen=True)
class NirGraph:
    """Flat nodes by name, and each edge once."""

    nodes: dict[str, NirNode]
    edges: tuple[Edge, ...]


def flatten(tree: Hdf5Tree) -> NirGraph:
    """Turn the content of a NIR file into a flat graph.

    The Input and Output nodes of nested graphs are spliced out.

    Raises:
        WorkloadError: No graph in it, unprintable or doubled names, or an edge that names no node.
    """
    root = tree.get("node")
    if not isinstance(root, dict):
        raise WorkloadError("HDF5, but not a NIR file: it has no group 'node'")
    if root.get("type") != "NIRGraph":
        raise WorkloadError(f"holds a single {_type_of(root, 'node')}, not a NIRGraph; wrap it with nir.NIRGraph")
    nodes: dict[str, NirNode] = {}
    edges: list[Edge] = []
    inner_ports = _collect(root, "", nodes, edges)
    for name in inner_ports:
        edges = _splice(name, edges)
        del nodes[name]
    return NirGraph(nodes, tuple(dict.fromkeys(edges)))


def with_article(kind: str) -> str:
    """`a LIF`, `an IF`."""
    return f"{'an' if kind[:1] in 'AEIOU' else 'a'} {kind}"


def _collect(graph: Hdf5Tree, prefix: str, nodes: dict[str, NirNode], edges: list[Edge]) -> list[str]:
    """Add the nodes and edges of a graph and of those within; returns the Inputs and Outputs of the latter."""
    members = graph.get("nodes")
    if not isinstance(members, dict) or not members:
        raise WorkloadError(f"graph '{prefix[:-1] or 'node'}' has no nodes")
    entries: dict[str, str] = {}
    exits: dict[str, str] = {}
    inner_ports: list[str] = []
    for key, fields in members.items():
        name = prefix + key
        if not key.isprintable():
            raise WorkloadError(f"node name {name!r} is not printable")
        if not isinstance(fields, dict):
            raise WorkloadError(f"node '{name}' is not a group of fields")
        kind = _type_of(fields, name)
        if kind == "NIRGraph":
            inner_ports += _collect(fields, f"{name}.", nodes, edges)
            entries[key], exits[key] = _port(fields, name, "Input"), _port(fields, name, "Output")
            inner_ports += [entries[key], exits[key]]
        elif name in nodes:
            raise WorkloadError(f"two nodes are called '{name}'")
        else:
            nodes[name] = NirNode(name, kind, fields)
    for source, target in _read_edges(graph, prefix):
        ends = (exits.get(source, prefix + source), entries.get(target, prefix + target))
        if any(end not in nodes for end in ends):
            known = _listed(prefix + key for key in members)
            raise WorkloadError(f"edge {(prefix + source, prefix + target)} names no node; nodes are {known}")
        edges.append(ends)
    return inner_ports


def _type_of(fields: Mapping[str, Hdf5Value], name: str) -> str:
    kind = fields.get("type")
    if not isinstance(kind, str) or not kind.isprintable():
        raise WorkloadError(f"node '{name}' has no type")
    return kind


def _port(graph: Hdf5Tree, name: str, kind: str) -> str:
    """Dotted name of the one Input or Output of a nested graph."""
    members = graph["nodes"]
    assert isinstance(members, dict)
    ports = [key for key, fields in members.items() if isinstance(fields, dict) and fields.get("type") == kind]
    if len(ports) != 1:
        raise WorkloadError(f"graph '{name}' has {len(ports)} nodes of type {kind}; it must have one")
    return f"{name}.{ports[0]}"


def _read_edges(graph: Hdf5Tree, prefix: str) -> list[Edge]:
    value = graph.get("edges")
    if isinstance(value, np.ndarray) and value.size == 0:
        return []
    pairs: list[Edge] = []
    for row in value if isinstance(value, list) else [None]:
        match row:
            case [str(source), str(target)]:
                pairs.append((source, target))
            case _:
                raise WorkloadError(f"edges of graph '{prefix[:-1] or 'node'}' are not pairs of node names")
    return pairs


def _splice(name: str, edges: list[Edge]) -> list[Edge]:
    """Join what enters a pass-through node with what leaves it."""
    sources = [source for source, target in edges if target == name != source]
    targets = [target for source, target in edges if source == name != target]
    kept = [edge for edge in edges if name not in edge]
    return kept + [(source, target) for source in sources for target in targets]


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f" and {len(known) - _SHOWN_NAMES} more" if len(known) > _SHOWN_NAMES else ""
    return ", ".join(known[:_SHOWN_NAMES]) + more
