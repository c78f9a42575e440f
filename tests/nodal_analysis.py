"""Sparse nodal analysis of a crossbar: every node an unknown, every resistor an entry. The independent reference.

Nodes are the row wire and the column wire at every cell. Nothing is shared with archsim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu


@dataclass(frozen=True)
class Mesh:
    """A crossbar whose row and column segments are not ideal."""

    g: np.ndarray
    driver_ohm: float | np.ndarray
    row_ohm: float
    col_ohm: float
    sense_ohm: float
    double_drive: bool = False
    double_sense: bool = False

    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the row nodes and of the column nodes, each (row, col)."""
        rows = np.arange(self.g.size).reshape(self.g.shape)
        return rows, rows + self.g.size

    def branches(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Resistors between nodes: first node, second node, conductance."""
        row, col = self.nodes()
        return [
            (row[:, :-1].ravel(), row[:, 1:].ravel(), np.full(row[:, 1:].size, 1 / self.row_ohm)),
            (col[:-1].ravel(), col[1:].ravel(), np.full(col[1:].size, 1 / self.col_ohm)),
            (row.ravel(), col.ravel(), self.g.ravel()),
        ]

    def ends(self) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]:
        """Nodes with a driver (one per row) and nodes with a sense circuit (one per column), and their conductances."""
        row, col = self.nodes()
        drivers = [row[:, 0], row[:, -1]][: 1 + self.double_drive]
        senses = [col[-1], col[0]][: 1 + self.double_sense]
        to_driver = np.broadcast_to(1 / (np.asarray(self.driver_ohm) + self.row_ohm), len(row))
        to_sense = np.broadcast_to(1 / (self.sense_ohm + self.col_ohm), col.shape[1])
        return [(nodes, to_driver) for nodes in drivers], [(nodes, to_sense) for nodes in senses]


def node_voltages(mesh: Mesh, volts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voltages of row and column nodes, each (read, row, col), for row drives of shape (read, row)."""
    n_nodes = 2 * mesh.g.size
    diagonal = np.zeros(n_nodes)
    entries = []
    for first, second, conductance in mesh.branches():
        np.add.at(diagonal, first, conductance)
        np.add.at(diagonal, second, conductance)
        entries += [(first, second, -conductance), (second, first, -conductance)]
    injected = np.zeros((n_nodes, len(volts)))
    drivers, senses = mesh.ends()
    for nodes, conductance in drivers:
        np.add.at(diagonal, nodes, conductance)
        np.add.at(injected, nodes, conductance[:, None] * volts.T)
    for nodes, conductance in senses:
        np.add.at(diagonal, nodes, conductance)
    entries.append((np.arange(n_nodes), np.arange(n_nodes), diagonal))
    first, second, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    matrix = coo_matrix((value, (first, second)), shape=(n_nodes, n_nodes)).tocsc()
    found = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    solved = found.solve(injected).T.reshape(len(volts), 2, *mesh.g.shape)
    return solved[:, 0], solved[:, 1]


def column_currents(mesh: Mesh, col_volts: np.ndarray) -> np.ndarray:
    """Current into the sense circuits of every column, (read, col)."""
    at = col_volts.reshape(len(col_volts), -1)
    return sum(conductance * at[:, nodes - mesh.g.size] for nodes, conductance in mesh.ends()[1])


def row_currents(mesh: Mesh, row_volts: np.ndarray, col_volts: np.ndarray) -> np.ndarray:
    """Current out of the drivers of every row, (read, row): all of it passes the cells of the row."""
    return (mesh.g * (row_volts - col_volts)).sum(2)


def read_power(mesh: Mesh, volts: np.ndarray) -> np.ndarray:
    """Power of every branch added up, in watt, for reads of shape (read, row)."""
    at = np.concatenate([voltages.reshape(len(volts), -1) for voltages in node_voltages(mesh, volts)], 1)
    drivers, senses = mesh.ends()
    in_mesh = sum((c * (at[:, a] - at[:, b]) ** 2).sum(1) for a, b, c in mesh.branches())
    in_drivers = sum((c * (volts - at[:, nodes]) ** 2).sum(1) for nodes, c in drivers)
    return in_mesh + in_drivers + sum((c * at[:, nodes] ** 2).sum(1) for nodes, c in senses)
