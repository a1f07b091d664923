"""Executing a plan: finished nodes are reused, the others are executed in order."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selectmoe_core.errors import PartError, RecipeError, SelectMoEError, StageError
from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.plugin.manager import notify
from selectmoe_core.plugin.registry import Registry
from selectmoe_core.recipe.recipe import STAGES
from selectmoe_core.report import Report, write_report
from selectmoe_core.report.record import NodeRecord, RunRecord
from selectmoe_core.runner.execute import execute_node
from selectmoe_core.runner.launch import Launch, check_in_process, execute_in_processes
from selectmoe_core.runner.preflight import check_names, check_part, targets_to_check
from selectmoe_core.runner.run_folder import log_to, new_folder
from selectmoe_core.runner.sample_rows import save_samples
from selectmoe_core.runner.summary import summary
from selectmoe_core.runtime.hardware import Machine, resolve_device, versions
from selectmoe_core.runtime.progress import NoProgress, progress_kind
from selectmoe_core.stages.node_spec import NodeSpec
from selectmoe_core.store import Artifact

log = logging.getLogger("selectmoe.run")


@dataclass(frozen=True)
class RunOptions:
    """How to execute a plan; no part of it enters a digest.

    Attributes:
        outputs: the folder of all outputs.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: ``auto`` (bfloat16 on a GPU, float32 on the CPU) or a dtype.
        threads: torch threads of a process on the CPU; 0 means one per core that it has.
        launch: how several processes of a stage are started.
        progress: ``none``, ``plain``, ``rich`` or ``auto``.
        verbose: show what the libraries log.
        disabled: plugins left out.
        fresh: execute this stage and everything that depends on it again.
        command: the command line, for the record.
    """

    outputs: Path
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    launch: Launch = field(default_factory=Launch)
    progress: str = "auto"
    verbose: bool = False
    disabled: tuple[str, ...] = ()
    fresh: str | None = None
    command: str = ""


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
    return _Run(plan, registry, options, say, purpose or Purpose()).execute()


def _names(nodes: Iterable[Node]) -> Iterator[tuple[str, str]]:
    """Yield what the store calls the artifacts of nodes, each once."""
    yield from dict.fromkeys((node.stage, node.digest) for node in nodes if node.digest)


class _Run:
    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        options: RunOptions,
        say: Callable[[str], None],
        purpose: Purpose,
    ) -> None:
        self.purpose = purpose
        self.plan = plan
        self.registry = registry
        self.options = options
        if options.fresh:
            self._check_fresh(options.fresh)
        self.say = say
        self.device = resolve_device(options.device)
        self.machine = Machine.here(self.device)
        self.launch = options.launch.on(self.device, self.machine.gpus)
        if self.device == "cuda":
            self.launch.check(self.machine.gpus)
        self.folder = new_folder(options.outputs, plan.recipe.head.name)
        self.started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self.begun = time.monotonic()
        self.cached: dict[str, bool] = {}

    def execute(self) -> Outcome:
        handler = log_to(self.folder / "run.log")
        try:
            log.info("%s", self.options.command)
            self._log_processes()
            self._write_recipe()
            self._observe("selectmoe_run_started", run=self.folder)
            if self.options.fresh:
                self._forget(self.options.fresh)
            with self.plan.store.used(_names(self.plan.nodes.values())):
                self._make_what_is_missing()
                outcome = self._report()
            self._observe("selectmoe_run_finished", run=self.folder)
        except (Exception, KeyboardInterrupt) as error:
            kinds = (SelectMoEError, KeyboardInterrupt)
            shown = isinstance(error, PartError) or not isinstance(error, kinds)
            log.error("%s: %s", type(error).__name__, error, exc_info=shown)  # noqa: TRY400
            # The first error must be reported, even if the disk is full.
            with suppress(SelectMoEError, OSError):
                self._record().save(self.folder)
            raise
        finally:
            logging.getLogger("selectmoe").removeHandler(handler)
            handler.close()
        return outcome

    def _make_what_is_missing(self) -> None:
        for text in self.plan.remarks():
            self.say(text)
        missing = self._missing()
        self._check(missing)
        for node in self.plan.nodes.values():
            self._reuse_or_execute(node, needed=node in missing)

    def _log_processes(self) -> None:
        """Report how many processes the shared stages have."""
        shared = [node.stage for node in self.plan.nodes.values() if node.shared]
        count = self.launch.processes
        where = f"{self.device}, {self.machine.gpus or 'no'} visible GPUs"
        log.info("%d process(es) for each of: %s (%s)", count, ", ".join(shared) or "none", where)
        if count > 1 and shared:
            names = ", ".join(dict.fromkeys(shared))
            self.say(
                f"{count} processes for each of {names}; for one process use --num-processes 1"
            )

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

    def _reuse_or_execute(self, node: Node, *, needed: bool) -> None:
        # Two arms may share a node under different keys.
        needed = needed and self._artifact(node) is None
        self.cached[node.key] = not needed
        name = f"{node.key:<17} {node.entry.component.name:<18}"
        if not needed:
            artifact = self._artifact(node)
            self.say(
                f"{name} reused" if artifact else f"{name} not needed, because its result exists"
            )
            return
        self.say(f"{name} ...")
        artifact = self._execute(node)
        self.say(f"{name} done in {artifact.seconds:.1f} s{summary(artifact)}")
        log.info("%s done in %.1f s: %s", node.key, artifact.seconds, artifact.folder)
        self._link(node)
        self._observe("selectmoe_stage_finished", artifact=artifact)

    def _execute(self, node: Node) -> Artifact:
        if node.stage in self.purpose.makers:
            return self.purpose.makers[node.stage](node)
        spec = self._spec(node)
        if node.uses_torch:
            execute_in_processes(spec, self.folder, self.launch)
        else:
            execute_node(spec, self.registry, self.say)
        artifact = self._artifact(node)
        if artifact is None:
            raise StageError(f"{node.key} ended without a result", hint="see run.log")
        return artifact

    def _artifact(self, node: Node) -> Artifact | None:
        assert node.digest is not None
        return self.plan.store.find(node.stage, node.digest)

    def _spec(self, node: Node, sample: Path | None = None) -> NodeSpec:
        assert node.digest is not None
        above = {role: self.plan.nodes[key] for role, key in node.inputs.items()}
        on_gpu = node.uses_torch and self.device.startswith("cuda")
        dtype = self.options.dtype
        if dtype == "auto":
            dtype = "bfloat16" if on_gpu else "float32"
        # A stage that does not use torch may continue under other settings.
        sharing = self.launch.sharing if node.shared else 1
        threads = self.options.threads or max(1, self.machine.cores // sharing)
        dtype, threads = (dtype, threads) if node.uses_torch else ("float32", 1)
        return NodeSpec(
            key=node.key,
            stage=node.stage,
            kind=str(node.entry.kind),
            component=node.entry.component.name,
            options=node.config.model_dump(mode="json"),
            own=node.own.model_dump(mode="json"),
            digest=node.digest,
            folder=self.plan.folder(node),
            store=self.plan.store.root,
            inputs={role: self.plan.folder(source) for role, source in above.items()},
            input_digests={role: source.digest or "" for role, source in above.items()},
            model=vars(node.model) if node.model else None,
            seed=node.seed,
            chat=self.plan.recipe.chat.model_dump(mode="json"),
            device=self.device if on_gpu else "cpu",
            dtype=dtype,
            threads=threads,
            processes=self.launch.processes if node.shared else 1,
            disabled=self.options.disabled,
            progress=progress_kind(self.options.progress),
            log=self.folder / "run.log",
            verbose=self.options.verbose,
            origin=vars(origin) if (origin := self.plan.origin(node)) else None,
            trained_from=vars(base) if (base := self.plan.trained_from(node)) else None,
            sample=sample,
            skips=self.plan.skips(node),
        )

    def _check(self, missing: list[Node]) -> None:
        """Let every part that will run report now what will not work."""
        unchecked = (*self.purpose.makers, "questions")  # the evaluation checks its tasks itself
        missing = [node for node in missing if node.stage not in unchecked]
        for node in missing:
            if not node.uses_torch:
                check_part(self._spec(node), self.registry)
        specs = targets_to_check(self.plan, missing, self._spec)
        if torch_nodes := [node for node in missing if node.uses_torch]:
            samples = save_samples(self.plan, self._spec, self.registry, self.folder)
            specs += [self._spec(node, samples.get(node.rows_of)) for node in torch_nodes]
        if specs:
            check_in_process(specs, self.folder)

    def _check_fresh(self, stage: str) -> None:
        stages = {node.stage for node in self.plan.nodes.values()}
        if stage not in stages:
            there = ", ".join(name for name in STAGES if name in stages)
            why = self.plan.not_needed.get(stage, "this run has no such stage")
            raise RecipeError(f"--fresh {stage}: {why}", hint=f"the stages of this run: {there}")

    def _forget(self, stage: str) -> None:
        """Remove the artifacts of a stage and of everything that reads them."""
        gone: dict[str, Node] = {}
        for node in self.plan.nodes.values():
            if node.stage == stage or gone.keys() & set(node.inputs.values()):
                gone[node.key] = node
        names = list(_names(gone.values()))
        with self.plan.store.unused(names):
            for name in names:
                self.plan.store.remove(*name)

    def _write_recipe(self) -> None:
        import tomli_w

        text = tomli_w.dumps(dict(self.plan.recipe.resolved))
        (self.folder / "recipe.toml").write_text(text, encoding="utf-8")

    def _link(self, node: Node) -> None:
        link = self.folder / "artifacts" / node.key.replace(":", "-")
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(self.plan.folder(node), link.parent))

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
        record = self._record()
        record.save(self.folder)
        return Outcome(self.folder, record, self.purpose.report(record, self.folder))

    def _observe(self, hook: str, **arguments: Any) -> None:  # noqa: ANN401
        """Call the observers; a failure of one is reported and changes nothing."""
        notify(self.registry.manager, hook, self.say, **arguments)
