"""Tries every interleaving of some programs in a world of plain values.

1. A program is a coroutine over a port that suspends at every call. What it does next is a function of the responses it
   got so far, so those responses are its state: nothing has to be copied, and equal states are explored once.
2. A world is an immutable value. It says what each call can lead to, and what can happen by itself.
3. The search is exhaustive within the world's budgets. A problem comes with the steps that lead to it.
"""

from __future__ import annotations

import contextlib
import gc
import types
from collections.abc import Callable, Coroutine, Generator, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Op = tuple[Any, ...]


@types.coroutine
def ask(*op: Any) -> Generator[Op, Any, Any]:
    """Suspends the program until the world has answered *op*."""
    return (yield op)


class World(Protocol):
    """What the explorer needs of a world; ``key`` makes states comparable."""

    def key(self) -> Hashable: ...
    def outcomes(self, who: int, op: Op) -> Iterable[tuple[str, World, Any]]: ...
    def happenings(self, doing: list[Op | None]) -> Iterable[tuple[str, World]]: ...
    def crashed(self, who: int) -> World | None: ...
    def now(self) -> float: ...


class End(NamedTuple):
    """How a program ended: ``ok`` with its value, ``error`` with its exception, or ``crash``."""

    how: str
    value: Any = None


@dataclass(eq=False)
class Step:
    """One program after some responses: what it asks next, or how it ended."""

    program: int
    responses: tuple[tuple[float, Any], ...]
    op: Op | None = None
    end: End | None = None
    events: tuple[Any, ...] = ()
    after: dict[Any, Step] = field(default_factory=dict)


@dataclass
class Report:
    """What a search found."""

    states: int = 0
    ends: int = 0
    problems: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def kinds(self) -> set[str]:
        return {problem for problem, _ in self.problems}


class Base:
    """The part of a simulated port that is the same in every world: time and events travel with the responses."""

    def __init__(self, who: int, start: float) -> None:
        self.who, self.time, self.attempts = who, start, 0
        self.events: list[Any] = []

    def now(self) -> float:
        return self.time

    def new_idempotency_key(self) -> str:
        self.attempts += 1
        return f"attempt {self.who}.{self.attempts}"

    def emit(self, event: Any) -> None:
        self.events.append(event)


Program = Callable[[Any], Coroutine[Any, Any, Any]]
Trace = Any  # what came before, and the last step; None before the first


class Explorer:
    """Explores *programs*, each over a port made by *port*, from *world* on; *check* judges the ends."""

    def __init__(
        self,
        world: Any,
        programs: list[Program],
        port: Callable[[int, float], Base],
        check: Callable[[Any, list[Step]], Iterable[str]],
        *,
        most: int = 1_000_000,
    ) -> None:
        self.world, self.programs, self.port, self.check, self.most = world, programs, port, check, most

    def run(self, *, stop_at_first: bool = False) -> Report:
        gc.disable()  # all that a search makes is of use until it ends, so that there is no garbage to look for
        try:
            return self._run(stop_at_first)
        finally:
            gc.enable()

    def _run(self, stop_at_first: bool) -> Report:
        report = Report()
        start = tuple(self._step(i, (), self.world.now()) for i in range(len(self.programs)))
        seen: set[Hashable] = set()
        todo: list[tuple[Any, tuple[Step, ...], Trace]] = [(self.world, start, None)]
        while todo and not (stop_at_first and report.problems):
            world, steps, trace = todo.pop()
            key = (world.key(), steps)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > self.most:
                raise AssertionError(f"more than {self.most} states: the scenario is not bounded as it should be")
            moves = list(self._moves(world, steps))
            if world.problem:
                report.problems.append((world.problem, steps_of(trace)))
                continue
            if all(step.end for step in steps) or not moves:
                report.ends += 1
                report.problems += [(problem, steps_of(trace)) for problem in self._judge(world, steps)]
            todo += [(after, then, (trace, label)) for label, after, then in moves]
        report.states = len(seen)
        return report

    def _judge(self, world: Any, steps: tuple[Step, ...]) -> Iterable[str]:
        if not all(step.end for step in steps):
            return ["somebody waits forever"]
        return self.check(world, list(steps))

    def _moves(self, world: Any, steps: tuple[Step, ...]) -> Iterable[tuple[str, Any, tuple[Step, ...]]]:
        for who, step in enumerate(steps):
            if step.op is None:
                continue
            for label, after, response in world.outcomes(who, step.op):
                then = self._next(step, after.now(), response)
                yield f"{who}: {label}", after, (*steps[:who], then, *steps[who + 1 :])
            if (after := world.crashed(who)) is not None:
                dead = step.after.setdefault("crash", Step(step.program, step.responses, None, End("crash")))
                yield f"{who}: crashes before {step.op[0]}", after, (*steps[:who], dead, *steps[who + 1 :])
        for label, after in world.happenings([step.op for step in steps]):
            yield label, after, steps

    def _next(self, step: Step, time: float, response: Any) -> Step:
        at = (time, response)
        if at not in step.after:
            step.after[at] = self._step(step.program, (*step.responses, at), self.world.now())
        return step.after[at]

    def _step(self, program: int, responses: tuple[tuple[float, Any], ...], start: float) -> Step:
        port = self.port(program, start)
        coroutine = self.programs[program](port)
        step = Step(program, responses)
        try:
            step.op = coroutine.send(None)
            for time, response in responses:
                port.time = time
                step.op = coroutine.send(response)
        except StopIteration as done:
            step.op, step.end = None, End("ok", done.value)
        except Exception as error:  # noqa: BLE001  # any error of the rules is an end to be judged
            step.op, step.end = None, End("error", error)
        finally:
            step.events = tuple(port.events)
            _forget(coroutine)
        return step


def steps_of(trace: Trace) -> tuple[str, ...]:
    steps: list[str] = []
    while trace is not None:
        trace, label = trace
        steps.append(label)
    return tuple(reversed(steps))


def _forget(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Lets go of a suspended coroutine without running its ``finally`` blocks against the world."""
    with contextlib.suppress(RuntimeError):  # it awaits its port while it is being closed, as a killed one would not
        coroutine.close()
