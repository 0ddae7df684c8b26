"""The live traffic to another version, by a promotion or a rollback, of which two may meet."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from lora_assets.assets.served import ensure_loaded, put_in_folder, refuse_candidate_slot
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.rollback import next_previous
from lora_assets.lifecycle import GATES
from lora_assets.records.history import ABORTED, LIVE, Standing, next_number, numbered
from lora_assets.records.model_version import Promotion
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder
from lora_assets.serving.replica_folder import ReplicaFolder
from lora_assets.serving.replicas import Replicas

INTERMEDIATE = tuple(
    alias for gate in GATES.values() for alias in (gate.passed, gate.failed) if alias is not None
)
"""Aliases that a promotion removes (specification, "What It Does", step 6)."""

ATTEMPTS = 6
"""Of all steps, where another one was under way: it may be in the middle of a step, which it ends
before it sees that it was overtaken."""

SECONDS_FOR_THE_OTHER = 60
"""How long one that was overtaken waits to learn whether its version had been live by then."""

Plan = Callable[[Standing], Promotion | None]


class _Overtaken(Exception):
    """Another promotion or rollback was begun since."""


@dataclass(frozen=True)
class LiveSwitch:
    """What the steps work with; `log` gets a line for each thing worth knowing.

    A rollback goes on without replicas that are down, since they serve nobody.
    """

    registry: Registry
    fleet: Fleet
    work_folder: WorkFolder
    slot: str
    log: Callable[[str], None]
    is_rollback: bool = False

    def replicas(self) -> Replicas:
        """Return the replicas that are to get the version."""
        return self.fleet.answering() if self.is_rollback else self.fleet.discover()

    def carry_out(self, plan: Plan) -> Promotion | None:
        """Do what `plan` makes of the standing: slot, `previous`, `live`; None for nothing.

        What is to be done is written down before the first step, under a token. Of two that meet
        the one that wrote last does all of its steps, and plans them again if what it planned
        on has changed; the other stops before its next step, and touches nothing more.
        """
        refuse_candidate_slot(self.fleet, self.slot)
        standing = self.registry.known_standing()
        planned = plan(standing)
        if planned is None:
            return None
        # What the replicas can't have is refused before anything is set out to be done.
        replicas = self.replicas()
        replicas.require_own_slot(self.slot, planned.version.serving_name)
        ensure_loaded(self.registry, replicas, planned.version, self.work_folder)
        now = self.registry.standing()
        before, planned = now.last, numbered(planned, now.history, now.last)
        try:
            self.registry.begin_promotion(planned)
            found = self._settle(before)
            # One that came and ended since the last look may have the same number.
            number = max(planned.number, next_number(found.history))
            is_same = (found.live, found.unfinished) == (standing.live, standing.unfinished)
            is_there = planned.action == "nothing changed" and found.live == planned.version
            if not is_there and not (is_same and number == planned.number):
                planned = planned.model_copy(update={"number": number})
                again = plan(found)
                if again is None:
                    unchanged = planned.model_copy(update={"action": "nothing changed"})
                    self._end(unchanged, ABORTED)
                    return None
                kept = planned.model_dump(include={"token", "at", "number"})
                planned = again.model_copy(update=kept)
                self._require_held(planned)
                self.registry.begin_promotion(planned)
            previous = next_previous(found, planned)
            self._do(planned, previous, contended=before is not None and not before.done)
            self._require_held(planned)
        except _Overtaken:
            # The record under way is the other one's: this one leaves it as it is.
            self._end_overtaken(planned)
            return planned
        except LoraAssetsError as error:
            self._end_failed(planned, error)
            raise
        self._end(planned, LIVE)
        return planned

    def _settle(self, before: Promotion | None) -> Standing:
        """Return the standing as of now, without what this one itself wrote.

        One that was under way has its entry from now on: it went live, or it was aborted.
        """
        found = self.registry.standing()
        aliases, history = found.aliases, found.history
        if before is not None and not before.done:
            reached = aliases.get("live") == before.version
            self.registry.record(before, LIVE if reached else ABORTED, "" if reached else _CUT)
            history = self.registry.history()
            if reached:
                before = before.model_copy(update={"done": True})
        return self.registry.standing_of(aliases, before, history)

    def _do(self, planned: Promotion, previous: int | None, *, contended: bool) -> None:
        attempts = ATTEMPTS if contended else 1
        for attempt in range(1, attempts + 1):
            try:
                self._steps(planned, previous)
                if not contended or self._agrees(planned):
                    return
                cause = "the other promotion or rollback changed it in between"
            except LoraAssetsError as error:
                self._require_held(planned)
                if attempt == attempts:
                    raise
                cause = error.cause
            self.log(f"once more ({attempt} of {attempts}): {cause}")
        raise LoraAssetsError(
            f"Slot and aliases don't stay at version {planned.version.version}",
            "Something else moves them; see 'lora-assets status' and 'lora-assets history'.",
        )

    def _steps(self, planned: Promotion, previous: int | None) -> None:
        """Do each step, which does nothing where it is done already."""
        version, registry = planned.version, self.registry
        replicas = self.replicas()
        self._put_in_slot(planned, replicas)
        self._require_held(planned)
        if previous is not None:
            registry.set_alias("previous", registry.resolve(f"version:{previous}"))
        self._require_held(planned)
        registry.set_alias("live", version)
        self._require_held(planned)
        self._follow(planned, replicas)
        if planned.action not in ("promotion", "nothing changed"):
            return
        aliases = registry.aliases()
        for alias in INTERMEDIATE:
            holder = aliases.get(alias)
            # A newer candidate under way keeps its own.
            if holder and not version.is_older_than(holder):
                registry.clear_alias(alias)
        self._require_held(planned)
        kept = [version.digest for version in registry.aliases().values()]
        replicas.retire(kept, registry.model_name)

    def _put_in_slot(self, planned: Promotion, replicas: Replicas) -> None:
        version = planned.version
        ensure_loaded(self.registry, replicas, version, self.work_folder)
        place = (self.slot, version.serving_name, version.digest)
        replicas.renew_slot(*place, may_go_on=lambda: self.registry.holds(planned))

    def _follow(self, planned: Promotion, first: Replicas) -> None:
        """Give the slot to replicas that became ready meanwhile, and to those that start.

        They were given what `live` was when they started.
        """
        now = self.replicas()
        known = {replica.name for replica in first.members}
        joined = tuple(replica for replica in now.members if replica.name not in known)
        if joined:
            self.log(f"also: {', '.join(replica.name for replica in joined)}, ready by now")
            self._put_in_slot(planned, replace(now, members=joined))
        for pod, folder in now.waiting.items():
            self.log(f"{pod}: {self._prepare(planned, folder)}")

    def _prepare(self, planned: Promotion, folder: ReplicaFolder | None) -> str:
        """Have what is not ready come up with the version; say whether it will."""
        cause = "its folder can't be reached yet"
        try:
            if folder is not None:
                version, work = planned.version, self.work_folder
                put_in_folder(self.registry, folder, version, work, self.slot)
                return "it comes up with what is live now"
        except LoraAssetsError as error:
            cause = error.cause
        return (
            f"it may come up with what was live before ({cause}); the sensor replica_repair gives "
            "it what is live now"
        )

    def _agrees(self, planned: Promotion) -> bool:
        digests = set(self.replicas().serving(self.slot).values())
        live = self.registry.aliases().get("live")
        return digests == {planned.version.digest} and live == planned.version

    def _require_held(self, planned: Promotion) -> None:
        if not self.registry.holds(planned):
            raise _Overtaken

    def _end(self, planned: Promotion, outcome: str, why: str = "") -> None:
        """Keep how it ended, twice where MLflow fails: else it is taken for one under way."""
        try:
            self.registry.end_promotion(planned, outcome, why)
        except LoraAssetsError:
            self.registry.end_promotion(planned, outcome, why)

    def _end_failed(self, planned: Promotion, error: LoraAssetsError) -> None:
        """Keep how far it came: what was put back on all replicas is aborted."""
        if self.registry.holds(planned):
            reached = self.registry.aliases().get("live") == planned.version
            self._end(planned, LIVE if reached else ABORTED, error.cause)

    def _end_overtaken(self, planned: Promotion) -> None:
        """End well if the version was live before the other one came; else say who came."""
        for _ in range(SECONDS_FOR_THE_OTHER):
            history = self.registry.history()
            entries = [entry for entry in history if entry.token == planned.token]
            other = self.registry.last_promotion()
            if entries or other is None or other.done:
                break
            time.sleep(1)
        reached = self.registry.aliases().get("live") == planned.version
        if not entries and not (reached and self._is_told(planned)):
            if planned.number in {entry.number for entry in history}:
                # Neither saw the other's record before it wrote its own.
                planned = planned.model_copy(update={"number": next_number(history)})
            self.registry.record(planned, LIVE if reached else ABORTED, "" if reached else _CUT)
        elif entries and entries[0].outcome == LIVE:
            reached = True
        if not reached:
            raise LoraAssetsError(
                f"This {planned.action} to version {planned.version.version} was overtaken by a "
                "later promotion or rollback, and changed nothing more",
                "See 'lora-assets history', and run it again if it is still wanted.",
            )
        self.log(f"version {planned.version.version} was live when another one came")

    def _is_told(self, planned: Promotion) -> bool:
        """Return whether another one for the same version was the last to go live."""
        live = [entry.version for entry in self.registry.history() if entry.outcome == LIVE]
        return live[-1:] == [planned.version.version]


_CUT = "another promotion or rollback was begun before its version was live"
