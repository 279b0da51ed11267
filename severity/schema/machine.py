"""Settings of the machine. They change no result beyond rounding, so no stage of dvc.yaml tracks them."""

import os
from typing import Annotated, Literal

from pydantic import Field, field_validator

from severity.schema.kinds import Count, Positive, Section

# More threads or processes a core than this only get in each other's way, and thousands bring a machine down.
PER_CORE = 16

Device = Annotated[str, Field(pattern="^(auto|cpu|cuda(:[0-9]+)?)$", description="auto, cpu, cuda or cuda:<number>")]


class Machine(Section):
    device: Device
    devices: Positive | Literal["all"]
    threads: Positive
    compile: bool
    workers: Count

    @field_validator("threads", "workers")
    @classmethod
    def _what_the_cores_carry(cls, value: int) -> int:
        cores = os.cpu_count() or 1
        if value > PER_CORE * cores:
            raise ValueError(f"is {value:,}, but this machine has {cores} cores. Set it to at most {PER_CORE * cores}.")
        return value
