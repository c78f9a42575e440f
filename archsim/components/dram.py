"""DRAM channel: what an access moves in whole bursts, which rows it opens, how long it holds the channel.

A stream of positions lies contiguously, frame after frame, every frame from the start of a row on. A
position loads the bursts that those before it have not brought along. An access holds the channel for its
bursts and for the rows that it opens, which no other bank hides (assumption); what is read arrives one latency later.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from archsim.components.netlist import Action
from archsim.components.pricing import priced_action
from archsim.eventlog import Movement
from archsim.hardware.systolic import AnyHardware

COMPONENT = "dram"


def access_action(hardware: AnyHardware, name: str, bits: np.ndarray, frames: np.ndarray, movement: Movement) -> Action:
    """Read or write positions of a stream, in order.

    Energy is that of whole bursts; the bits of the log are those asked for.

    Args:
        hardware: A chip with DRAM.
        name: `read` or `write`.
        bits: Bits of every token, int64.
        frames: Frame that every token belongs to, ascending.
        movement: Where the bits go.
    """
    channel = hardware.chip.dram.channel
    n_bursts, n_rows = bursts_and_rows(hardware, bits, frames)
    action = priced_action(
        hardware,
        COMPONENT,
        (f"dram_{hardware.chip.dram.kind}", name),
        len(bits),
        duration_ps=np.rint(
            n_bursts * (channel.burst_bytes * 1e3 / channel.gb_per_s) + n_rows * (channel.row_open_ns * 1e3)
        ).astype(np.int64),
        count=n_bursts,
        bits=n_bursts * channel.burst_bytes * 8,
        movement=movement,
    )
    return replace(action, bits=bits)


def bursts_and_rows(hardware: AnyHardware, bits: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bursts that every token moves and rows that it opens, int64."""
    dram = hardware.chip.dram
    burst_bits, per_row = dram.channel.burst_bytes * 8, dram.channel.page_bytes // dram.channel.burst_bytes
    end = np.cumsum(bits)
    first = np.searchsorted(frames, frames, side="left")
    end, start = (at - (end - bits)[first] for at in (end, end - bits))
    after, before = -(-end // burst_bits), -(-start // burst_bits)
    n_bursts = after - before
    if dram.page_policy == "open":
        return n_bursts, -(-after // per_row) - -(-before // per_row)
    touched = (after - 1) // per_row - before // per_row + 1
    return n_bursts, np.where(n_bursts > 0, touched, 0)


def latency_ps(hardware: AnyHardware) -> int:
    """From the end of a read on the channel to its arrival on chip."""
    return round(hardware.chip.dram.channel.latency_ns * 1e3)
