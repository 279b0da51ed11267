"""Settings of the machine. They change no result beyond rounding, so no stage of dvc.yaml tracks them."""

from typing import Annotated, Literal

from pydantic import Field

from severity.schema.kinds import Count, Positive, Section

Device = Annotated[str, Field(pattern="^(auto|cpu|cuda(:[0-9]+)?)$", description="auto, cpu, cuda or cuda:<number>")]


class Machine(Section):
    device: Device
    devices: Positive | Literal["all"]
    threads: Positive
    compile: bool
    workers: Count
