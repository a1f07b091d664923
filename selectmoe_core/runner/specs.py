"""From a node of the plan to what its process must know, on this machine and with these options."""

from dataclasses import dataclass
from pathlib import Path

from selectmoe_core.plan.node import Node, Plan
from selectmoe_core.plugin.executor import MAPPED_STAGES
from selectmoe_core.plugin.protocols import Need
from selectmoe_core.runner.execute import begun_threads
from selectmoe_core.runner.executors import RunExecutor
from selectmoe_core.runner.launch import Launch
from selectmoe_core.runner.options import RunOptions
from selectmoe_core.runtime.hardware import Machine
from selectmoe_core.runtime.progress import progress_kind
from selectmoe_core.stages.node_spec import SENT, NodeSpec


@dataclass(frozen=True)
class Specs:
    """Makes the specs of a run's nodes.

    Attributes:
        plan: the plan.
        options: how it is executed.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        machine: this machine.
        launch: how several processes of a stage are started.
        folder: the run's folder.
        executor: runs the processes.
    """

    plan: Plan
    options: RunOptions
    device: str
    machine: Machine
    launch: Launch
    folder: Path
    executor: RunExecutor

    def of(self, node: Node, sample: Path | None = None) -> NodeSpec:
        """Return the spec of a node.

        Args:
            node: the node; its digest is known.
            sample: for checks: a file with a few rows of the pool.
        """
        assert node.digest is not None
        above = {role: self.plan.nodes[key] for role, key in node.inputs.items()}
        on_gpu = node.uses_torch and self.device.startswith("cuda")
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return NodeSpec(
            key=node.key,
            stage=node.stage,
            where=node.where,
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
            dtype=self._dtype(node, on_gpu=on_gpu),
            threads=self._threads(node),
            processes=self.launch.processes if node.shared else 1,
            disabled=self.options.disabled,
            progress=self._progress(),
            log=self.folder / "run.log",
            events=work / f"{node.key.replace(':', '-')}.events",
            verbose=self.options.verbose,
            origin=vars(origin) if (origin := self.plan.origin(node)) else None,
            trained_from=vars(base) if (base := self.plan.trained_from(node)) else None,
            sample=sample,
            mapped=_is_mapped(node),
            executor=self.executor.name,
            skips=self.plan.skips(node),
        )

    def _dtype(self, node: Node, *, on_gpu: bool) -> str:
        # A stage that does not use torch may continue under other settings.
        if not node.uses_torch:
            return "float32"
        if self.options.dtype == "auto":
            return "bfloat16" if on_gpu else "float32"
        return self.options.dtype

    def _threads(self, node: Node) -> int:
        if not node.uses_torch:
            return 1
        if self.executor.place is not None:
            return self.executor.place.threads
        if self.options.threads:
            return self.options.threads
        # An unfinished stage goes on as it was begun, also if other stages now share the cores.
        sharing = max(self.launch.sharing if node.shared else 1, self.options.parallel)
        return begun_threads(self.plan.folder(node)) or max(1, self.machine.cores // sharing)

    def _progress(self) -> str:
        kind = progress_kind(self.options.progress)
        return SENT if self.options.parallel > 1 and kind != "none" else kind


def _is_mapped(node: Node) -> bool:
    """Return whether a node is made shard by shard; a blend of scores is made in one piece."""
    blend = Need.SCORES in node.entry.component.needs(node.config)
    return node.stage in MAPPED_STAGES and node.shared and not blend
