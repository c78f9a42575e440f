"""What hardware files of every kind begin with, and the cost library that comes with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from archsim.errors import ConfigError
from archsim.hardware.costs import CostLibrary

ClockMhz = Annotated[float, Field(ge=0.001, le=1_000_000)]
Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
Width = Annotated[int, Field(ge=1, le=1_048_576)]
Side = Annotated[int, Field(ge=1, le=1024)]
Group = Annotated[int, Field(ge=1, le=4096)]
Bits = Annotated[int, Field(ge=1, le=32)]
Resistance = Annotated[float, Field(ge=0, le=1e9)]
Switch = Annotated[bool, Field(strict=False)]
LayerName = Annotated[str, Field(min_length=1, max_length=200)]
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class Part(BaseModel):
    """Base of every hardware model: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Platform(Part, ABC):
    """Head of a hardware file: its name, kind and prices."""

    format_version: Literal[1]
    """Version of this file format."""
    name: PlainName
    """Name of the chip."""
    kind: str
    """Platform, which decides the keys that follow."""
    node_nm: Annotated[int, Field(ge=1, le=1000)]
    """Technology node in nm; must be the cost library's."""
    costs: PlainName
    """Name of the cost library: NAME.yaml beside the hardware file or in costs/ beside it, else a shipped one."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """Where the numbers come from, in a sentence."""
    _library: CostLibrary | None = PrivateAttr(default=None)

    @property
    def library(self) -> CostLibrary:
        """The cost library that came with the file, or was attached.

        Raises:
            ConfigError: None was: the model was made without `load_hardware` and `with_library`.
        """
        if self._library is None:
            raise ConfigError(
                f"hardware '{self.name}' has no cost library; use load_hardware, or attach one using with_library"
            )
        return self._library

    def with_library(self, library: CostLibrary) -> Self:
        """Copy of this hardware that pays the prices of `library`.

        Raises:
            ConfigError: The library is for another node.
        """
        if library.node_nm != self.node_nm:
            raise ConfigError(
                f"node_nm of hardware '{self.name}' is {self.node_nm}; cost library '{library.name}' "
                f"is for {library.node_nm}; they must be equal"
            )
        copy = self.model_copy()
        copy._library = library
        return copy

    @abstractmethod
    def cost_parameters(self, component: str) -> dict[str, float]:
        """Parameters that the entries of a component may scale with, at the values of this hardware."""
