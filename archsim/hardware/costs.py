"""What an action costs: the cost library, one entry per component and action, each with its source.

An entry is one number of a datasheet, a paper or a tool run, with the node and the parameter values
it holds for and the rule by which it follows other values. Components only count actions; every
picojoule of a run is a count times an entry of this library. Area and leakage work alike.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from archsim.errors import ConfigError

Amount = Annotated[float, Field(ge=0, le=1e12)]
Parameter = Annotated[float, Field(gt=0, le=1e9)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Rule = Literal["sqrt", "linear", "quadratic", "exp2"] | dict[Parameter, Annotated[float, Field(gt=0, le=1e12)]]
EntryKind = Literal[
    "measured", "spice", "synthesis", "cacti", "survey-fit", "paper-table", "derived", "assumption"
]  # fmt: skip

MEMORIES = ("tile_buffer", "fetch", "mac_weights", "index_table", "v_mem", "global_buffer")
"""Components whose area and leakage may be given per stored bit."""


class CostModel(BaseModel):
    """Base of the cost models: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Entry(CostModel):
    """What every number of the library carries: where it comes from, what it holds for, how it scales."""

    node_nm: Annotated[float, Field(gt=0, le=1000)]
    """Technology node in nm that the number was obtained for; it may differ from the library's."""
    kind: EntryKind
    """How the number was obtained."""
    source: Annotated[str, Field(min_length=3, max_length=2000, pattern=r"\S")]
    """Where the number can be found, or why it was assumed."""
    at: dict[Name, Parameter] = {}
    """Parameter values that the number holds for."""
    scale: dict[Name, Rule] = {}
    """Parameter -> `sqrt`, `linear`, `quadratic`, `exp2` (doubles per unit), or a table of relative sizes by value."""

    @model_validator(mode="after")
    def _scales_from_a_known_point(self) -> Self:
        for parameter, rule in self.scale.items():
            if parameter not in self.at:
                raise ValueError(f"scale has {parameter} but at has not; add the value that the number holds for")
            if isinstance(rule, dict) and self.at[parameter] not in rule:
                raise ValueError(f"the table of scale.{parameter} lacks {self.at[parameter]:g}, the value under at")
        return self


class ActionCost(Entry):
    """Energy and least time of one action."""

    energy_pj: Amount
    """Energy in pJ of one event, bit or row."""
    per: Literal["event", "bit", "row"] = "event"
    """What the energy is multiplied with: events, bits moved, or rows driven."""
    latency_ns: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Least time in ns that the action needs; the clock cycles given to it must not be shorter."""
    static_included: bool = False
    """Whether the energy includes static power, being a power divided by a rate."""


class AreaCost(Entry):
    """Silicon area of a component."""

    area_um2: Amount
    """Area in um2 of one instance or bit."""
    per: Literal["instance", "bit"] = "instance"
    """What the area is multiplied with."""


class LeakageCost(Entry):
    """Static power of a component."""

    leakage_mw: Amount
    """Static power in mW of one instance or bit."""
    per: Literal["instance", "bit"] = "instance"
    """What the power is multiplied with."""


class PeakPower(Entry):
    """Power of a component that does all it can, as published; runs do not use it, `describe` adds it up."""

    power_mw: Amount
    """Power in mW of one instance, static power included."""


class ComponentCosts(CostModel):
    """Costs of one kind of component."""

    actions: dict[Name, ActionCost] = {}
    """Action -> cost."""
    area: AreaCost | None = None
    """Area; without an entry the component is counted with none."""
    leakage: LeakageCost | None = None
    """Static power; without an entry the component is counted with none."""
    peak_power: PeakPower | None = None
    """Published peak power, if there is one."""

    @model_validator(mode="after")
    def _static_power_once(self) -> Self:
        with_static = sorted(name for name, action in self.actions.items() if action.static_included)
        if with_static and self.leakage is not None and self.leakage.leakage_mw > 0:
            raise ValueError(
                f"static power is counted twice: {', '.join(with_static)} has static_included: true "
                "and there is a leakage entry; keep one of them"
            )
        return self


class CostLibrary(CostModel):
    """All costs of one technology: what a file in `costs/` holds."""

    format_version: Literal[1]
    """Version of this file format."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    """Name of the library, equal to the file's."""
    node_nm: Annotated[int, Field(ge=1, le=1000)]
    """Technology node in nm that the library stands for; hardware that uses it must have the same."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """What the library is, in a sentence."""
    components: dict[Name, ComponentCosts]
    """Component -> costs."""

    @model_validator(mode="after")
    def _only_memories_count_bits(self) -> Self:
        for name, costs in self.components.items():
            per_bit = [entry for entry in (costs.area, costs.leakage) if entry is not None and entry.per == "bit"]
            if per_bit and name not in MEMORIES:
                raise ValueError(f"components.{name} has a size per bit; only {', '.join(MEMORIES)} store bits")
        return self

    def action(self, component: str, action: str) -> ActionCost:
        """Entry of one action.

        Raises:
            ConfigError: The library has no such entry.
        """
        costs = self.components.get(component)
        if costs is None:
            raise ConfigError(
                f"cost library '{self.name}' has no component {component} (for action {component}.{action}); "
                f"it has {', '.join(sorted(self.components)) or 'none'}"
            )
        if action not in costs.actions:
            raise ConfigError(
                f"cost library '{self.name}' has no action {component}.{action}; "
                f"{component} has {', '.join(sorted(costs.actions)) or 'none'}"
            )
        return costs.actions[action]

    def energy_pj(self, component: str, action: str, **parameters: float) -> float:
        """Energy in pJ of one event, bit or row (see the entry's `per`), scaled to the parameters.

        Raises:
            ConfigError: The entry is missing, or it does not say how to scale to these parameters.
        """
        entry = self.action(component, action)
        return entry.energy_pj * self._factor(entry, f"{component}.{action}", parameters)

    def area_um2(self, component: str, **parameters: float) -> float:
        """Area in um2 of one instance or bit; 0 where the library gives none."""
        entry = self.area(component)
        return 0.0 if entry is None else entry.area_um2 * self._factor(entry, f"{component}.area", parameters)

    def leakage_mw(self, component: str, **parameters: float) -> float:
        """Static power in mW of one instance or bit; 0 where the library gives none."""
        entry = self.leakage(component)
        return 0.0 if entry is None else entry.leakage_mw * self._factor(entry, f"{component}.leakage", parameters)

    def peak_power_mw(self, component: str, **parameters: float) -> float:
        """Published peak power in mW of one instance; 0 where the library gives none."""
        costs = self.components.get(component)
        entry = costs.peak_power if costs is not None else None
        return 0.0 if entry is None else entry.power_mw * self._factor(entry, f"{component}.peak_power", parameters)

    def area(self, component: str) -> AreaCost | None:
        """Entry of a component's area, if there is one."""
        costs = self.components.get(component)
        return costs.area if costs is not None else None

    def leakage(self, component: str) -> LeakageCost | None:
        """Entry of a component's static power, if there is one."""
        costs = self.components.get(component)
        return costs.leakage if costs is not None else None

    def with_factor(self, component: str, entry: str, factor: float) -> CostLibrary:
        """Copy in which one number is multiplied; `entry` is an action's name, `area` or `leakage`.

        Raises:
            ConfigError: There is no such entry, or the product is not a valid cost.
        """
        values = self.model_dump()
        costs = values["components"].get(component, {"actions": {}})
        target = costs.get(entry) if entry in ("area", "leakage") else costs["actions"].get(entry)
        if target is None:
            has = sorted(costs["actions"]) + [name for name in ("area", "leakage") if costs.get(name) is not None]
            raise ConfigError(
                f"cost library '{self.name}' has no entry {component}.{entry}; "
                f"{component} has {', '.join(has) or 'none'}"
            )
        key = next(name for name in ("energy_pj", "area_um2", "leakage_mw") if name in target)
        target[key] *= factor
        try:
            return CostLibrary.model_validate(values)
        except ValueError as err:
            raise ConfigError(f"{component}.{entry} x {factor} is {target[key]}, which is not a valid cost") from err

    def _factor(self, entry: Entry, what: str, parameters: dict[str, float]) -> float:
        factor = 1.0
        for name, rule in entry.scale.items():
            if name not in parameters:
                known = ", ".join(sorted(parameters)) or "no parameter"
                raise ConfigError(f"cost library '{self.name}': {what} scales with {name}; it can scale with {known}")
            try:
                factor *= _relative_size(rule, parameters[name], entry.at[name])
            except (KeyError, OverflowError) as err:
                table = sorted(rule) if isinstance(rule, dict) else [entry.at[name]]
                raise ConfigError(
                    f"cost library '{self.name}': {what} has no value at {name} {parameters[name]:g}; "
                    f"available are {', '.join(f'{value:g}' for value in table)}"
                ) from err
        return factor


def _relative_size(rule: str | dict[float, float], value: float, at: float) -> float:
    if isinstance(rule, dict):
        return rule[value] / rule[at]
    if rule == "exp2":
        return float(2.0 ** (value - at))
    return (value / at) ** {"sqrt": 0.5, "linear": 1, "quadratic": 2}[rule]
