"""Executing a plan: finished nodes are reused, the others are executed in order."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from selectmoe_core.errors import PartError, SelectMoEError, StageError
from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.plugin.manager import notify
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.report import Report, write_report
from selectmoe_core.report.record import NodeRecord, RunRecord
from selectmoe_core.runner import bringing
from selectmoe_core.runner.crew import Crew, gpus_to_spread
from selectmoe_core.runner.execute import execute_node
from selectmoe_core.runner.executors import RunExecutor, opened_executor
from selectmoe_core.runner.fresh import check_fresh, forget, names
from selectmoe_core.runner.launch import Child
from selectmoe_core.runner.options import RunOptions
from selectmoe_core.runner.preflight import check_names, check_part, each_once, targets_to_check
from selectmoe_core.runner.run_folder import link, log_to, new_folder, write_recipe
from selectmoe_core.runner.sample_rows import save_samples
from selectmoe_core.runner.schedule import Schedule, maker
from selectmoe_core.runner.specs import Specs
from selectmoe_core.runner.summary import summary
from selectmoe_core.runner.tracking import tracked
from selectmoe_core.runner.watch import Watch
from selectmoe_core.runtime.hardware import versions
from selectmoe_core.runtime.progress import NoProgress, Progress, make_progress
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import Artifact

log = logging.getLogger("selectmoe.run")


@dataclass(frozen=True)
class Outcome:
    """The results of a run."""

    folder: Path
    record: RunRecord
    report: Report


def _write_report(record: RunRecord, folder: Path) -> Report:
    return write_report(record, folder, NoProgress())


@dataclass(frozen=True)
class Purpose:
    """What else a run does with its results.

    Attributes:
        report: writes the report into the run's folder.
        makers: functions that make the nodes of stages without a component, by stage.
    """

    report: Callable[[RunRecord, Path], Report] = _write_report
    makers: Mapping[str, Callable[[Node], Artifact]] = field(default_factory=dict)


def execute_plan(
    plan: Plan,
    registry: Registry,
    options: RunOptions,
    say: Callable[[str], None],
    purpose: Purpose | None = None,
) -> Outcome:
    """Execute the nodes whose results are missing, and write the report.

    Raises:
        StageError: a stage failed; everything before it and its own resumable state are kept.
    """
    check_names(plan, options.outputs)
    with opened_executor(plan.recipe, registry, options, say) as executor:
        return _Run(plan, registry, options, say, purpose or Purpose(), executor).execute()


class _Run:
    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        options: RunOptions,
        say: Callable[[str], None],
        purpose: Purpose,
        executor: RunExecutor,
    ) -> None:
        self.purpose = purpose
        self.executor = executor
        self.plan = plan
        self.registry = registry
        self.options = options
        check_fresh(plan, options.fresh)
        self.say = say
        self.device, self.machine, self.launch = executor.started_on(options)
        self.folder = new_folder(options.outputs, plan.recipe.head.name)
        self.specs = Specs(
            plan, options, self.device, self.machine, self.launch, self.folder, executor
        )
        self.started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self.begun = time.monotonic()
        self.cached: dict[str, bool] = {}
        self.reported: set[str] = set()

    def execute(self) -> Outcome:
        with ExitStack() as stack:
            stack.callback(bringing.publish_run, self.options.outputs, self.folder)
            stack.enter_context(log_to(self.folder / "run.log"))
            try:
                log.info("%s", self.options.command)
                self._log_processes()
                write_recipe(self.folder, self.plan.recipe.resolved)
                tracking = stack.enter_context(tracked(self.plan, self.registry, self.folder))
                self._observe("selectmoe_run_started")
                forget(self.plan, self.options.fresh)
                with self.plan.store.used(names(self.plan.nodes.values())):
                    self._make_what_is_missing()
                    outcome = self._report()
                tracking.verdict = outcome.report.verdicts
                self._observe("selectmoe_run_finished")
            except (Exception, KeyboardInterrupt) as error:
                self._failed(error)
                raise
        return outcome

    def _failed(self, error: BaseException) -> None:
        kinds = (SelectMoEError, KeyboardInterrupt)
        shown = isinstance(error, PartError) or not isinstance(error, kinds)
        log.error("%s: %s", type(error).__name__, error, exc_info=error if shown else None)
        # The first error must be reported, even if the disk is full.
        with suppress(SelectMoEError, OSError):
            self._record().save(self.folder)
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        self._observe("selectmoe_run_failed", error=what)

    def _make_what_is_missing(self) -> None:
        for text in self.plan.remarks():
            self.say(text)
        missing = bringing.without_damage(self.plan, self._missing, self.say)
        with self.launch.forking(self.device, self.options.parallel) as self.launch:
            self._check(missing)
            self._execute_all({node.key for node in missing})

    def _execute_all(self, needed: set[str]) -> None:
        """Execute the nodes as they become ready, several at once where that was asked for."""
        schedule = Schedule(self.plan, longest_first=self.options.parallel > 1)
        progress = make_progress(self.options.progress)
        gpus = gpus_to_spread(self.device, self.machine.gpus)
        watch = partial(self._watch, progress)
        crew = Crew(self.options.parallel, gpus, self.folder, self.launch, watch)
        failures: list[Exception] = []
        with crew.at_work():
            while (schedule.waiting and not failures) or crew.nodes:
                if not failures and not crew.full and self._next(schedule, crew, needed):
                    continue
                for child in crew.wait():
                    try:
                        self._ended(child)
                        schedule.finish(self.plan.nodes[child.spec.key])
                    except SelectMoEError as error:
                        failures.append(error)
                        if crew.nodes:
                            rest = ", ".join(crew.nodes)
                            self.say(f"{error}; waiting for what runs at the same time: {rest}")
        if failures:
            raise failures[0]

    def _next(self, schedule: Schedule, crew: Crew, needed: set[str]) -> bool:
        """Reuse, execute or start the next node; return whether there was one."""
        for node in schedule.ready():
            if self._reused(node, needed=node.key in needed):
                schedule.start(node)
            elif self._made_elsewhere(node):
                continue
            else:
                schedule.start(node)
                bringing.bring_inputs(self.plan, node)
                self.say(f"{_name(node)} ...")
                if crew.size > 1 and node.stage not in self.purpose.makers:
                    crew.start(self.specs.of(node))
                    return True
                self._done(node, self._execute(node))
            schedule.finish(node)
            return True
        return False

    def _made_elsewhere(self, node: Node) -> bool:
        """Return whether another run makes a node now; this run does something else meanwhile."""
        assert node.digest is not None
        by = maker(self.plan.store, node.stage, node.digest)
        if by and f"{node.key} {by}" not in self.reported:
            self.reported.add(f"{node.key} {by}")
            self.say(f"{_name(node)} another run is making this ({by})")
        return bool(by)

    def _ended(self, child: Child) -> None:
        child.check()
        node = self.plan.nodes[child.spec.key]
        self._done(node, self._result(node))

    def _log_processes(self) -> None:
        """Report where the shared stages run, and in how many processes."""
        shared = [node.stage for node in self.plan.nodes.values() if node.shared]
        count, place = self.launch.processes, self.executor.place
        where = place.text if place else f"{self.device}, {self.machine.gpus or 'no'} visible GPUs"
        log.info("%d process(es) for each of: %s (%s)", count, ", ".join(shared) or "none", where)
        if count > 1 and shared and place is None:
            what = f"{count} processes for each of {', '.join(dict.fromkeys(shared))}"
            self.say(f"{what}; for one process use --num-processes 1")

    def _missing(self) -> list[Node]:
        """Return the nodes to make: those that are wanted and missing, and what they read."""
        needed: set[str] = set()
        read = {key for node in self.plan.nodes.values() for key in node.inputs.values()}
        stack = [node for key, node in self.plan.nodes.items() if key not in read]
        stack += [node for node in self.plan.nodes.values() if node.stage in ("pool", "select")]
        while stack:
            node = stack.pop()
            if node.key not in needed and not self.plan.cached(node):
                needed.add(node.key)
                stack.extend(self.plan.above(node))
        return [node for node in self.plan.nodes.values() if node.key in needed]

    def _reused(self, node: Node, *, needed: bool) -> bool:
        """Return whether a node needs nothing to be done, and say so."""
        # Two arms may share a node under different keys.
        artifact = self._artifact(node)
        needed = needed and artifact is None
        self.cached[node.key] = not needed
        if not needed:
            self.say(
                f"{_name(node)} {'reused' if artifact else 'not needed, because its result exists'}"
            )
        return not needed

    def _done(self, node: Node, artifact: Artifact) -> None:
        self.say(f"{_name(node)} done in {artifact.seconds:.1f} s{summary(artifact)}")
        log.info("%s done in %.1f s: %s", node.key, artifact.seconds, artifact.folder)
        self._link(node)
        self._observe("selectmoe_stage_finished", node=node.key, artifact=artifact)

    def _execute(self, node: Node) -> Artifact:
        if node.stage in self.purpose.makers:
            return self.purpose.makers[node.stage](node)
        spec = self.specs.of(node)
        watch = self._watch(NoProgress(), spec)
        try:
            if node.uses_torch:
                self.executor.execute(spec, self.folder, self.launch, watch.look)
            else:
                execute_node(spec, self.registry, self.say)
        finally:
            watch.end()
        return self._result(node)

    def _watch(self, progress: Progress, spec: NodeSpec, printed: Path | None = None) -> Watch:
        return Watch(spec, self._point, progress, printed, self.say)

    def _result(self, node: Node) -> Artifact:
        artifact = self._artifact(node)
        if artifact is None:
            raise StageError(f"{node.key} ended without a result", hint="see run.log")
        return artifact

    def _artifact(self, node: Node) -> Artifact | None:
        assert node.digest is not None
        return self.plan.store.find(node.stage, node.digest)

    def _check(self, missing: list[Node]) -> None:
        """Let every part that will run report now what will not work."""
        unchecked = (*self.purpose.makers, "questions")  # the evaluation checks its tasks itself
        missing = [node for node in missing if node.stage not in unchecked]
        for node in missing:
            if not node.uses_torch:
                check_part(self.specs.of(node), self.registry)
        specs = targets_to_check(self.plan, missing, self.specs.of)
        checked = {spec.key for spec in specs}
        if torch_nodes := [n for n in missing if n.uses_torch and n.key not in checked]:
            samples = save_samples(self.plan, self.specs.of, self.registry, self.folder)
            specs += each_once(
                self.specs.of(node, samples.get(node.rows_of)) for node in torch_nodes
            )
        if specs:
            self.executor.check(specs, self.folder, self.launch)

    def _link(self, node: Node) -> None:
        link(self.folder, node.key, self.plan.folder(node))

    def _record(self) -> RunRecord:
        nodes = []
        for node in self.plan.nodes.values():
            artifact = self._artifact(node)
            if artifact is not None:
                self._link(node)
                nodes.append(
                    NodeRecord(
                        node.key,
                        node.stage,
                        node.entry.component.name,
                        artifact.digest,
                        artifact.folder,
                        self.cached.get(node.key, True),
                        artifact.seconds,
                        node.arms,
                    )
                )
        recipe = (self.folder / "recipe.toml").read_text(encoding="utf-8")
        return RunRecord(
            name=self.plan.recipe.head.name,
            recipe=recipe,
            started=self.started,
            seconds=time.monotonic() - self.begun,
            command=self.options.command,
            # In the order of run.json, so that a repeated report is the same.
            versions=dict(sorted(versions().items())),
            hardware=dict(sorted(self.machine.facts().items())),
            nodes=tuple(nodes),
        )

    def _report(self) -> Outcome:
        bringing.bring_for_report(self.plan)
        record = self._record()
        record.save(self.folder)
        return Outcome(self.folder, record, self.purpose.report(record, self.folder))

    def _point(self, spec: NodeSpec, step: int, values: Mapping[str, float]) -> None:
        """Pass on a point of a training curve."""
        point = {"node": spec.key, "stage": spec.stage, "step": step, "values": values}
        self._observe("selectmoe_metrics", **point)

    def _observe(self, hook: str, **arguments: Any) -> None:  # noqa: ANN401
        """Call the observers; a failure of one is reported, once, and changes nothing."""

        def say(text: str) -> None:
            if text not in self.reported:
                self.reported.add(text)
                self.say(text)

        notify(self.registry.manager, hook, say, run=self.folder, **arguments)


def _name(node: Node) -> str:
    return f"{node.key:<17} {node.entry.component.name:<18}"
