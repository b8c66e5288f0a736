"""``--schedule`` and ``--warmup``: how the learning rate changes, as it is written and as it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ArgumentError, unknown_name
from ..schedules import Cosine, Exponential, InverseScaling, Schedule, StepDecay, Warmup
from .scores import counted

__all__ = ["FORMS", "read_schedule", "told"]


@dataclass(frozen=True)
class _Form:
    """How one schedule is written: its numbers after colons, of which the first ``needed`` must be there."""

    written: str
    example: str
    needed: int
    most: int
    make: Callable[..., Schedule]


#: What --schedule takes. ``make`` gets the epochs left after the warm-up, and the numbers that were written.
FORMS: dict[str, _Form] = {
    "cosine": _Form("cosine[:FINAL]", "cosine:0.01", 0, 1, lambda left, final=0.0: Cosine(left, final)),
    "step": _Form(
        "step:EVERY[:FACTOR]", "step:10:0.5", 1, 2, lambda left, every, factor=0.1: StepDecay(every, factor)
    ),
    "exponential": _Form("exponential:RATE", "exponential:0.95", 1, 1, lambda left, rate: Exponential(rate)),
    "inverse": _Form("inverse[:POWER]", "inverse:0.5", 0, 1, lambda left, power=0.5: InverseScaling(power)),
}


def read_schedule(text: str | None, warmup: float | None, epochs: int) -> Schedule | None:
    """The schedule that ``--schedule`` and ``--warmup`` ask for; None where neither is given.

    Raises
    ------
    gpunn.GpunnError
        For a schedule that does not exist (with the nearest one), or numbers that it does not take.

    Examples
    --------
    >>> read_schedule("step:10", None, 60)
    StepDecay(every=10.0, factor=0.1, unit='epoch')
    >>> read_schedule("cosine", 2, 60).then.length
    58.0
    >>> read_schedule("cosin", None, 60)
    Traceback (most recent call last):
        ...
    gpunn.errors.UnknownNameError: unknown --schedule 'cosin': did you mean 'cosine'? Known: cosine,
    exponential, inverse, step
    """
    before = 0.0 if warmup is None else warmup
    if not 0 <= before < epochs:
        raise ArgumentError(f"--warmup is {before:g}, expected at least 0 and fewer than the {epochs} epochs")
    then = None if text is None else _read(text, epochs - before)
    return Warmup(before, then) if before else then


def _read(text: str, left: float) -> Schedule:
    name, *parts = text.split(":")
    if name not in FORMS:
        raise unknown_name("--schedule", name, FORMS)
    form = FORMS[name]
    expected = f"expected {form.written}, such as {form.example}"
    numbers = []
    for part in parts:
        try:
            numbers.append(float(part))
        except ValueError:
            raise ArgumentError(f"--schedule {text}: {part!r} is no number; {expected}") from None
    if not form.needed <= len(numbers) <= form.most:
        many = "no number" if not numbers else f"{len(numbers)} numbers"
        raise ArgumentError(f"--schedule {text} has {many}; {expected}")
    try:
        return form.make(left, *numbers)
    except ArgumentError as error:
        raise ArgumentError(f"--schedule {text}: {error}") from error


def told(schedule: Schedule) -> str:
    """A schedule in words.

    >>> told(Warmup(2, Cosine(58)))
    'rises for 2 epochs, then follows a cosine down to 0 in 58 epochs'
    >>> told(StepDecay(10))
    'times 0.1 every 10 epochs'
    >>> told(Warmup(1, StepDecay(1)))
    'rises for 1 epoch, then times 0.1 each epoch'
    """
    unit = schedule.unit
    if isinstance(schedule, Warmup):
        after = "stays" if schedule.then is None else told(schedule.then)
        return f"rises for {counted(schedule.length, unit)}, then {after}"
    if isinstance(schedule, Cosine):
        end = f"to {schedule.final:g} of it" if schedule.final else "to 0"
        return f"follows a cosine down {end} in {counted(schedule.length, unit)}"
    if isinstance(schedule, StepDecay):
        often = f"each {unit}" if schedule.every == 1 else f"every {counted(schedule.every, unit)}"
        return f"times {schedule.factor:g} {often}"
    if isinstance(schedule, Exponential):
        return f"times {schedule.rate:g} each {unit}"
    if isinstance(schedule, InverseScaling):
        return f"divided by (1 + {unit}s)^{schedule.power:g}"
    return repr(schedule)
